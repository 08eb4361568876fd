"""RQ's path of the commands that run workers."""

from greenq.cli.worker import worker
from greenq.cli.worker_pool import worker_pool

__all__ = ['worker', 'worker_pool']
