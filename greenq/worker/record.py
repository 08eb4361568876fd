"""A worker as Redis knows it: what `Worker.all()` returns, its state and its counters. It runs nothing."""

import os
import socket
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from greenq.connections import resolve_connection
from greenq.executions import Execution
from greenq.job import Job
from greenq.queue import Queue
from greenq.serializers import resolve_serializer
from greenq.store import keys
from greenq.timeouts import BaseDeathPenalty, get_default_death_penalty_class
from greenq.utils import as_text, decode_redis_hash, now, utcformat, utcparse
from greenq.version import VERSION
from greenq.worker.in_flight import InFlight

if TYPE_CHECKING:
    from redis import Redis


class WorkerStatus(str, Enum):
    """State of a worker, as stored in its hash."""

    STARTED = 'started'
    SUSPENDED = 'suspended'
    BUSY = 'busy'
    IDLE = 'idle'


class WorkerRecord:
    """The record of a worker, read from Redis or about to be written there."""

    redis_worker_namespace_prefix = keys.worker('')
    redis_workers_keys = keys.workers()
    death_penalty_class: type[BaseDeathPenalty] = get_default_death_penalty_class()
    queue_class: type[Queue] = Queue
    job_class: type[Job] = Job

    connection: 'Redis'
    queues: list[Queue]
    name: str

    def _init_record(self) -> None:
        self.version: str = VERSION
        self.python_version: str = sys.version
        self.hostname: str | None = None
        self.pid: int | None = None
        self.ip_address: str | None = 'unknown'
        self.executions = InFlight()
        self._executions: list[Execution] = []
        self._state: str = 'starting'
        self.successful_job_count: int = 0
        self.failed_job_count: int = 0
        #: Outcomes that were dropped because somebody else had taken the job over meanwhile.
        self.lost_outcome_count: int = 0
        #: How often a job kept all others from running for too long.
        self.block_count: int = 0
        self.total_working_time: float = 0
        self.birth_date: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self._shutdown_requested_date: datetime | None = None

    def _describe_process(self) -> None:
        self.hostname = socket.gethostname()
        self.pid = os.getpid()

    # Finding workers

    @classmethod
    def find_by_key(
        cls,
        worker_key: str,
        connection: 'Redis | None' = None,
        job_class: type[Job] | str | None = None,
        queue_class: type[Queue] | str | None = None,
        serializer: Any = None,
    ) -> Self | None:
        """The worker of a key such as `rq:worker:name`, None if it is gone; ValueError if it is no worker's key."""
        found = cls._load([worker_key], resolve_connection(connection), job_class, queue_class, serializer)
        return found[0] if found else None

    @classmethod
    def all(
        cls,
        connection: 'Redis | None' = None,
        job_class: type[Job] | str | None = None,
        queue_class: type[Queue] | str | None = None,
        queue: Queue | None = None,
        serializer: Any = None,
    ) -> list[Self]:
        """All workers, or those of a queue, in two round trips."""
        connection = queue.connection if queue is not None else resolve_connection(connection)
        return cls._load(cls.all_keys(connection, queue), connection, job_class, queue_class, serializer)

    @classmethod
    def all_keys(cls, connection: 'Redis | None' = None, queue: Queue | None = None) -> list[str]:
        """The keys of all workers, or of those of a queue."""
        client: Any = queue.connection if queue is not None else resolve_connection(connection)
        members = client.smembers(keys.workers(queue.name if queue is not None else None))
        return [as_text(key) for key in members]

    @classmethod
    def count(cls, connection: 'Redis | None' = None, queue: Queue | None = None) -> int:
        """How many workers there are, or listen to a queue."""
        return len(cls.all_keys(connection, queue))

    @classmethod
    def _load(
        cls,
        worker_keys: Sequence[str],
        connection: 'Redis',
        job_class: type[Job] | str | None,
        queue_class: type[Queue] | str | None,
        serializer: Any,
    ) -> list[Self]:
        prefix = cls.redis_worker_namespace_prefix
        for key in worker_keys:
            if not key.startswith(prefix):
                raise ValueError(f'Not a valid RQ worker key: {key!r}; it must start with {prefix!r}')
        with connection.pipeline(transaction=False) as pipeline:
            for key in worker_keys:
                pipeline.hgetall(key)
            hashes = pipeline.execute()
        workers = []
        for key, raw in zip(worker_keys, hashes, strict=True):
            if not raw:
                connection.srem(cls.redis_workers_keys, key)
                continue
            worker = cls(
                [],
                key[len(prefix) :],
                connection=connection,
                job_class=job_class,
                queue_class=queue_class,
                prepare_for_work=False,
                serializer=serializer,
            )
            worker._restore(raw)
            workers.append(worker)
        return workers

    if TYPE_CHECKING:

        def __init__(
            self,
            queues: Any,
            name: str | None = None,
            *,
            connection: 'Redis | None' = None,
            job_class: type[Job] | str | None = None,
            queue_class: type[Queue] | str | None = None,
            prepare_for_work: bool = True,
            serializer: Any = None,
        ) -> None: ...

    def refresh(self) -> None:
        """Reads the record again; leaves all as it is if it is gone."""
        raw = self.connection.hgetall(self.key)
        if raw:
            self._restore(raw)

    def _restore(self, raw: Any) -> None:
        data: dict[str, str] = decode_redis_hash(raw, decode_values=True)
        self.hostname = data.get('hostname') or None
        self.ip_address = data.get('ip_address') or None
        self.pid = int(data['pid']) if data.get('pid') else None
        self.version = data.get('version') or VERSION
        self.python_version = data.get('python_version') or sys.version
        self._state = data.get('state', '?')
        self.last_heartbeat = utcparse(data['last_heartbeat']) if data.get('last_heartbeat') else None
        self.birth_date = utcparse(data['birth']) if data.get('birth') else None
        self.failed_job_count = int(data.get('failed_job_count') or 0)
        self.successful_job_count = int(data.get('successful_job_count') or 0)
        self.lost_outcome_count = int(data.get('greenq_lost_outcomes') or 0)
        self.block_count = int(data.get('greenq_blocks') or 0)
        self.total_working_time = float(data.get('total_working_time') or 0)
        if data.get('queues'):
            self.queues = [self._queue(name) for name in data['queues'].split(',')]

    def _queue(self, name: str) -> Queue:
        return self.queue_class(
            name,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )

    serializer: Any = resolve_serializer(None)

    # Names

    @property
    def key(self) -> str:
        """Key of the worker's hash."""
        return self.redis_worker_namespace_prefix + self.name

    @property
    def executions_key(self) -> str:
        """Key of the set of composite keys of what the worker runs."""
        return keys.worker_executions(self.name)

    @property
    def pubsub_channel_name(self) -> str:
        """Channel on which the worker takes commands."""
        return keys.channel(self.name)

    def queue_names(self) -> list[str]:
        """Names of the worker's queues, in its order."""
        return [queue.name for queue in self.queues]

    def queue_keys(self) -> list[str]:
        """Keys of the worker's queues, in its order."""
        return [queue.key for queue in self.queues]

    # What it runs

    @property
    def execution(self) -> Execution | None:
        """One of the worker's executions, None when it is idle; works for workers of other processes too."""
        if self.executions:
            return next(iter(self.executions.values()))
        executions = self.get_current_executions()
        return executions[0] if executions else None

    @execution.setter
    def execution(self, execution: Execution | None) -> None:
        if execution is not None:
            self.executions[execution.id] = execution
            return
        if len(self.executions) > 1:
            raise ValueError(
                'Cannot clear worker.execution when multiple executions are active, '
                'remove the entry from worker.executions instead'
            )
        self.executions.clear()

    @property
    def current_execution_count(self) -> int:
        """How many jobs the worker runs now, by its index in Redis."""
        count: Any = self.connection.scard(self.executions_key)
        return int(count)

    def get_current_executions(self, refresh: bool = False) -> list[Execution]:
        """The worker's executions by its index in Redis, cached; entries whose record has expired are removed."""
        if self._executions and not refresh:
            return self._executions
        composites: Any = self.connection.smembers(self.executions_key)
        executions = [Execution.from_composite_key(as_text(item), connection=self.connection) for item in composites]
        with self.connection.pipeline(transaction=False) as pipeline:
            for execution in executions:
                pipeline.hgetall(execution.key)
            hashes = pipeline.execute()
        live, stale = [], []
        for execution, raw in zip(executions, hashes, strict=True):
            if raw:
                execution.restore(raw)
                live.append(execution)
            else:
                stale.append(execution.composite_key)
        if stale:
            self.connection.srem(self.executions_key, *stale)
        self._executions = live
        return live

    def get_current_job_id(self) -> str | None:
        """Id of a job that the worker runs, None when it is idle."""
        execution = self.execution
        return execution.job_id if execution else None

    def get_current_job(self) -> Job | None:
        """A job that the worker runs, None when it is idle."""
        execution = self.execution
        if execution is None:
            return None
        if execution._job is None:
            execution._job = self.job_class.fetch(execution.job_id, self.connection, self.serializer)
        return execution._job

    # State and counters

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Sets the worker's state, here and in Redis."""
        self._state = state
        client: Any = self.connection if pipeline is None else pipeline
        client.hset(self.key, 'state', state)

    def get_state(self) -> str:
        """The worker's state as last set or read."""
        return self._state

    @property
    def state(self) -> str:
        """Deprecated: use `get_state()`."""
        warnings.warn('worker.state is deprecated, use worker.get_state() instead.', DeprecationWarning, stacklevel=2)
        return self.get_state()

    @state.setter
    def state(self, state: str) -> None:
        warnings.warn('worker.state is deprecated, use worker.set_state() instead.', DeprecationWarning, stacklevel=2)
        self.set_state(state)

    def set_shutdown_requested_date(self) -> None:
        """Notes in Redis when the worker was asked to stop."""
        self.connection.hset(self.key, 'shutdown_requested_date', utcformat(self._shutdown_requested_date or now()))

    @property
    def shutdown_requested_date(self) -> datetime | None:
        """When the worker was asked to stop, read from Redis."""
        return self._read_date('shutdown_requested_date')

    @property
    def death_date(self) -> datetime | None:
        """When the worker ended, read from Redis."""
        return self._read_date('death')

    def _read_date(self, field: str) -> datetime | None:
        raw: Any = self.connection.hget(self.key, field)
        return utcparse(as_text(raw)) if raw is not None else None

    def increment_failed_job_count(self, pipeline: Any = None) -> None:
        """Counts a failed job; the transitions that end an execution do it by themselves."""
        client: Any = self.connection if pipeline is None else pipeline
        client.hincrby(self.key, 'failed_job_count', 1)

    def increment_successful_job_count(self, pipeline: Any = None) -> None:
        """Counts a successful job; the transitions that end an execution do it by themselves."""
        client: Any = self.connection if pipeline is None else pipeline
        client.hincrby(self.key, 'successful_job_count', 1)

    def increment_total_working_time(self, job_execution_time: timedelta, pipeline: Any = None) -> None:
        """Adds to the time that the worker has spent in jobs."""
        client: Any = self.connection if pipeline is None else pipeline
        client.hincrbyfloat(self.key, 'total_working_time', job_execution_time.total_seconds())

    def serialize(self) -> dict[str, Any]:
        """The record's fields, as RQ writes them at birth."""
        birth = self.birth_date or now()
        return {
            'birth': utcformat(birth),
            'last_heartbeat': utcformat(self.last_heartbeat or birth),
            'queues': ','.join(self.queue_names()),
            'pid': self.pid or 0,
            'hostname': self.hostname or '',
            'ip_address': self.ip_address or '',
            'version': self.version,
            'python_version': self.python_version,
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self.__class__):
            raise TypeError('Cannot compare workers to other types (of workers)')
        return self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)
