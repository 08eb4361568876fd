"""RQ's path of `greenq cron`."""

from greenq.cli.cron import cron

__all__ = ['cron']
