"""RQ's path of the command and its subcommands."""

from greenq.cli import main
from greenq.cli.info import info
from greenq.cli.jobs import empty, enqueue, requeue
from greenq.cli.suspend import resume, suspend

__all__ = ['empty', 'enqueue', 'info', 'main', 'requeue', 'resume', 'suspend']

if __name__ == '__main__':
    main()
