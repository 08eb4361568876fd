"""How arguments, metadata and results become bytes, in a form that RQ and greenq read from each other."""

from __future__ import annotations

import io
import json
import pickle
import re
from typing import Any, Protocol

from greenq.utils import import_attribute


class Serializer(Protocol):
    """Anything with these two: a class, an instance or a module."""

    def dumps(self, obj: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


# What greenq and RQ have in common, under the RQ module that a pickle must name for RQ to load it.
# `Callback` goes by its older place, where RQ 2 and RQ 3 both have it.
_RQ_NAMES = {
    'rq.cron': ('CronJob', 'CronScheduler'),
    'rq.exceptions': (
        'AbandonedJobError',
        'DequeueTimeout',
        'DeserializationError',
        'DuplicateJobError',
        'DuplicateSchedulerError',
        'InvalidJobDependency',
        'InvalidJobOperation',
        'InvalidJobOperationError',
        'NoSuchGroupError',
        'NoSuchJobError',
        'SchedulerNotFound',
        'ShutDownImminentException',
        'StopRequested',
        'TimeoutFormatError',
    ),
    'rq.executions': ('Execution', 'ExecutionRegistry'),
    'rq.group': ('Group',),
    'rq.job': ('Callback', 'Dependency', 'Job', 'JobStatus', 'Retry'),
    'rq.queue': ('EnqueueData', 'Queue'),
    'rq.rate_limit': ('RateLimit',),
    'rq.registry': (
        'BaseRegistry',
        'CanceledJobRegistry',
        'DeferredJobRegistry',
        'FailedJobRegistry',
        'FinishedJobRegistry',
        'ReadyJobRegistry',
        'ScheduledJobRegistry',
        'StartedJobRegistry',
    ),
    'rq.repeat': ('Repeat',),
    'rq.results': ('Result',),
    'rq.scheduler': ('RQScheduler', 'SchedulerStatus'),
    'rq.serializers': ('DefaultSerializer', 'JSONSerializer'),
    'rq.timeouts': (
        'BaseDeathPenalty',
        'BaseTimeoutException',
        'HorseMonitorTimeoutException',
        'JobTimeoutException',
        'TimerDeathPenalty',
        'UnixSignalDeathPenalty',
    ),
    'rq.utils': ('Platform',),
    'rq.webhook': ('Webhook',),
    'rq.worker': (
        'BaseWorker',
        'DequeueStrategy',
        'HerokuWorker',
        'RandomWorker',
        'RoundRobinWorker',
        'SimpleWorker',
        'SpawnWorker',
        'Worker',
        'WorkerStatus',
    ),
}
_RQ_MODULES = {name: module for module, names in _RQ_NAMES.items() for name in names}

# Where greenq defines what RQ keeps elsewhere; everything else has the same place in both.
_GREENQ_MODULES = {'Callback': 'greenq.callbacks', 'Retry': 'greenq.retry'}

# A pickle of protocol 4 or later spells a module's name in full where it is first used, after an opcode and its length.
_names_greenq = re.compile(rb'\x8c.greenq\.', re.DOTALL).search


def _rq_module_of(obj: Any) -> str | None:
    """The RQ module that has this class of greenq's, or None: users' own modules never match."""
    if isinstance(obj, type) and obj.__module__.startswith('greenq.'):
        return _RQ_MODULES.get(obj.__qualname__.partition('.')[0])
    return None


_PythonPickler: Any = pickle._Pickler


class _RQPickler(_PythonPickler):  # type: ignore[misc]
    """Writes greenq's classes under the names that RQ loads.

    On the Python pickler, because the C one gives no say in how a class is named. It is slow, and therefore used
    only when the fast one has written a name of greenq's.
    """

    def reducer_override(self, obj: Any) -> Any:
        # A string makes the pickler call `save_global` below, which it does not do for a plain class by itself.
        return obj.__qualname__ if _rq_module_of(obj) else NotImplemented

    def save_global(self, obj: Any, name: str | None = None) -> None:
        rq_module = _rq_module_of(obj)
        if rq_module is None:
            super().save_global(obj, name)
            return
        self.save(rq_module)
        self.save(obj.__qualname__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


class _RQUnpickler(pickle.Unpickler):
    """Loads names of RQ's as greenq's; those that greenq does not have, from RQ itself if it is installed."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith('rq.'):
            counterpart = _GREENQ_MODULES.get(name, 'greenq' + module.removeprefix('rq'))
            try:
                return super().find_class(counterpart, name)
            except (ImportError, AttributeError):
                return super().find_class(module, name)
        return super().find_class(module, name)


class DefaultSerializer:
    """Pickle at the highest protocol."""

    @staticmethod
    def dumps(obj: Any) -> bytes:
        data = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        # Two steps, because looking for a fixed string costs next to nothing and a pattern does not.
        if b'greenq.' in data and _names_greenq(data):
            buffer = io.BytesIO()
            _RQPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(obj)
            return buffer.getvalue()
        return data

    @staticmethod
    def loads(data: bytes) -> Any:
        if b'rq.' in data:
            return _RQUnpickler(io.BytesIO(data)).load()
        return pickle.loads(data)


PickleSerializer = DefaultSerializer


class JSONSerializer:
    """JSON in UTF-8, for arguments and results that other languages read."""

    @staticmethod
    def dumps(*args: Any, **kwargs: Any) -> bytes:
        return json.dumps(*args, **kwargs).encode('utf-8')

    @staticmethod
    def loads(data: bytes, *args: Any, **kwargs: Any) -> Any:
        return json.loads(data.decode('utf-8'), *args, **kwargs)


SERIALIZER_ALIASES: dict[str, Serializer] = {'json': JSONSerializer, 'pickle': PickleSerializer}


def resolve_serializer(serializer: Serializer | str | None = None) -> Serializer:
    """The serializer that `serializer` is or names: pickle for None, `'json'`, `'pickle'`, or a dotted path.

    NotImplementedError for what has no `dumps` and `loads`.
    """
    if not serializer:
        return PickleSerializer
    found = serializer
    if isinstance(found, str):
        found = SERIALIZER_ALIASES.get(found) or import_attribute(found)
    # By hand, since `isinstance` of a protocol takes twenty times as long, and every job asks.
    if not (hasattr(found, 'dumps') and hasattr(found, 'loads')):
        raise NotImplementedError(f'Serializer should have (dumps, loads) methods: {serializer!r} does not')
    return found
