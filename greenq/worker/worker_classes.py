"""RQ's path of the worker classes."""

from greenq.worker.fork_worker import HerokuWorker, RandomWorker, RoundRobinWorker, Worker
from greenq.worker.simple_worker import SimpleWorker
from greenq.worker.spawn_worker import SpawnWorker

__all__ = ['HerokuWorker', 'RandomWorker', 'RoundRobinWorker', 'SimpleWorker', 'SpawnWorker', 'Worker']
