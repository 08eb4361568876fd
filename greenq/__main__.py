"""`python -m greenq` is the `greenq` command."""

from greenq.bootstrap import main

if __name__ == '__main__':
    main()
