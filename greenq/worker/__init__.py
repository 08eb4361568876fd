"""RQ's names for the workers. Each is loaded when it is asked for: some need gevent, and a supervisor needs none."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greenq.defaults import DEFAULT_RESULT_TTL as DEFAULT_RESULT_TTL
    from greenq.worker.base import BaseWorker as BaseWorker
    from greenq.worker.base import DequeueStrategy as DequeueStrategy
    from greenq.worker.base import WorkerStatus as WorkerStatus
    from greenq.worker.base import signal_name as signal_name
    from greenq.worker.fork_worker import HerokuWorker as HerokuWorker
    from greenq.worker.fork_worker import RandomWorker as RandomWorker
    from greenq.worker.fork_worker import RoundRobinWorker as RoundRobinWorker
    from greenq.worker.fork_worker import Worker as Worker
    from greenq.worker.gevent_worker import GeventWorker as GeventWorker
    from greenq.worker.signals import SHUTDOWN_SIGNAL as SHUTDOWN_SIGNAL
    from greenq.worker.simple_worker import SimpleWorker as SimpleWorker
    from greenq.worker.spawn_worker import SpawnWorker as SpawnWorker
    from greenq.worker.wiring import log as logger

_HOMES = {
    'DEFAULT_RESULT_TTL': 'greenq.defaults',
    'SHUTDOWN_SIGNAL': 'greenq.worker.signals',
    'BaseWorker': 'greenq.worker.base',
    'DequeueStrategy': 'greenq.worker.base',
    'GeventWorker': 'greenq.worker.gevent_worker',
    'HerokuWorker': 'greenq.worker.fork_worker',
    'RandomWorker': 'greenq.worker.fork_worker',
    'RoundRobinWorker': 'greenq.worker.fork_worker',
    'SimpleWorker': 'greenq.worker.simple_worker',
    'SpawnWorker': 'greenq.worker.spawn_worker',
    'Worker': 'greenq.worker.fork_worker',
    'WorkerStatus': 'greenq.worker.base',
    'logger': 'greenq.worker.wiring',
    'signal_name': 'greenq.worker.signals',
}

__all__ = [
    'DEFAULT_RESULT_TTL',
    'SHUTDOWN_SIGNAL',
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
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(home), 'log' if name == 'logger' else name)
    globals()[name] = value
    return value
