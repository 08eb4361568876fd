"""RQ's names for the workers, and GeventWorker, which is loaded when it is asked for: it needs gevent."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_RESULT_TTL
from greenq.worker.base import BaseWorker, DequeueStrategy, WorkerStatus, signal_name
from greenq.worker.fork_worker import HerokuWorker, RandomWorker, RoundRobinWorker, Worker
from greenq.worker.simple_worker import SimpleWorker
from greenq.worker.wiring import log as logger

if TYPE_CHECKING:
    from greenq.worker.gevent_worker import GeventWorker as GeventWorker
    from greenq.worker.spawn_worker import SpawnWorker as SpawnWorker

_LAZY = {'GeventWorker': 'greenq.worker.gevent_worker', 'SpawnWorker': 'greenq.worker.spawn_worker'}

__all__ = [
    'DEFAULT_RESULT_TTL',
    'BaseWorker',
    'DequeueStrategy',
    'GeventWorker',
    'HerokuWorker',
    'RandomWorker',
    'RoundRobinWorker',
    'SimpleWorker',
    'SpawnWorker',
    'Worker',
    'WorkerStatus',
    'logger',
    'signal_name',
]


def __getattr__(name: str) -> Any:
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
