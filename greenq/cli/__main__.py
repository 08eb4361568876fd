"""`python -m greenq.cli`, as in RQ, is the `greenq` command."""

from greenq.bootstrap import main

if __name__ == '__main__':
    main()
