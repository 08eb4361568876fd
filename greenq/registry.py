"""The registries of a queue: which of its jobs run, have finished, failed, wait for others, for their time, ...

They read, and drop what has expired; what moves a job between them is a transition of the store.
"""

from __future__ import annotations

import calendar
import logging
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from greenq.abandoned import AbandonedExecutions
from greenq.connections import get_connection_kwargs, resolve_connection
from greenq.defaults import DEFAULT_FAILURE_TTL, FORMAT_KEY_PREFIX
from greenq.exceptions import InvalidJobOperation, NoSuchJobError
from greenq.job import Job, JobStatus
from greenq.rate_limit import RateLimitRegistry
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import keys, transitions
from greenq.timeouts import BaseDeathPenalty, UnixSignalDeathPenalty
from greenq.utils import as_text, backend_class, current_timestamp, now, parse_composite_key, split_list

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.executions import Execution
    from greenq.queue import Queue

logger = logging.getLogger('greenq.registry')

_CHUNK = 1000

ExceptionHandlers = Sequence[Callable[..., Any]]


def _template(kind: str) -> str:
    """A registry's key with `{0}` for the queue, as `str.format` reads it: a prefix may itself have braces."""
    return keys.registry(kind, '\0').replace('{', '{{').replace('}', '}}').replace('\0', '{0}')


class BaseRegistry:
    """A sorted set of job ids, scored by when each expires (epoch seconds).

    Made for a `queue`, or for a queue's name and a connection. Its length, `count` and `get_job_ids` clean it first.
    """

    job_class: type[Job] = Job
    death_penalty_class: type[BaseDeathPenalty] = UnixSignalDeathPenalty
    key_template: str = FORMAT_KEY_PREFIX + ':registry:{0}'

    def __init__(
        self,
        name: str = 'default',
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        queue: Queue | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> None:
        self.connection: Redis
        if queue is not None:
            self.name = queue.name
            self.connection = queue.connection
            self.serializer = queue.serializer
        else:
            self.name = name
            self.connection = resolve_connection(connection)
            self.serializer = resolve_serializer(serializer)
        self.key = self.key_template.format(self.name)
        self.job_class = backend_class(self, 'job_class', override=job_class)
        self.death_penalty_class = backend_class(self, 'death_penalty_class', override=death_penalty_class)

    # ---- reading ----

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseRegistry):
            return NotImplemented
        return self.key == other.key and (
            self.connection is other.connection
            or get_connection_kwargs(self.connection) == get_connection_kwargs(other.connection)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r})'

    def __contains__(self, item: Job | str) -> bool:
        return self.connection.zscore(self.key, _id_of(item)) is not None

    @property
    def count(self) -> int:
        """How many jobs it has, once cleaned."""
        return self.get_job_count(cleanup=True)

    def get_job_count(self, cleanup: bool = True) -> int:
        """How many jobs it has."""
        if cleanup:
            self.cleanup()
        return int(self.connection.zcard(self.key))

    def get_job_ids(self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True) -> list[str]:
        """The ids from rank `start` to `end`, both included, by score."""
        if cleanup:
            self.cleanup()
        return [self.parse_job_id(entry) for entry in self._entries(start, end, desc)]

    def _entries(self, start: int, end: int, desc: bool) -> list[Any]:
        entries: Any = self.connection.zrange(self.key, start, end, desc=desc)
        return list(entries)

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        """The ids that expire before `timestamp` (epoch seconds; default: now)."""
        cutoff = current_timestamp() if timestamp is None else timestamp
        return [self.parse_job_id(entry) for entry in self._entries_until(cutoff)]

    def _entries_until(self, cutoff: float, start: int | None = None, num: int | None = None) -> list[Any]:
        entries: Any = self.connection.zrangebyscore(self.key, 0, cutoff, start=start, num=num)
        return list(entries)

    def get_expiration_time(self, job: Job) -> datetime:
        """When the job leaves the registry, in UTC. NoSuchJobError if it is not in it."""
        return _moment(self.connection.zscore(self.key, job.id), job.id, self.key)

    def get_queue(self) -> Queue:
        """The queue that the registry belongs to."""
        from greenq.queue import Queue

        return Queue(
            self.name,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )

    @staticmethod
    def parse_job_id(entry: bytes | str) -> str:
        """The job id in an entry of the sorted set."""
        return as_text(entry)

    # ---- writing ----

    def add(self, job: Job | str, ttl: int = 0, pipeline: Pipeline | None = None, xx: bool = False) -> Any:
        """Add a job for `ttl` seconds, or for ever (-1); with `xx` only if it is there already."""
        client = self.connection if pipeline is None else pipeline
        return client.zadd(self.key, {_id_of(job): _score(ttl)}, xx=xx)

    def remove(self, job: Job | str, pipeline: Pipeline | None = None, delete_job: bool = False) -> Any:
        """Take a job out of the registry, and with `delete_job` delete it altogether. Returns how many were in it."""
        client = self.connection if pipeline is None else pipeline
        if not delete_job:
            return client.zrem(self.key, _id_of(job))
        if pipeline is not None:
            return self._remove_and_delete(job, pipeline)
        with self.connection.pipeline() as own:
            self._remove_and_delete(job, own)
            return own.execute()[0]

    def _remove_and_delete(self, job: Job | str, pipeline: Pipeline) -> Any:
        result = pipeline.zrem(self.key, _id_of(job))
        if isinstance(job, str):
            transitions.delete(pipeline, job)
        else:
            job.delete(pipeline=pipeline)
        return result

    def requeue(self, job_or_id: Job | str, at_front: bool = False) -> Job:
        """Move a job from this registry back into its queue, in one step; returns it.

        InvalidJobOperation if it is not in the registry, NoSuchJobError if there is no such job.
        """
        if isinstance(job_or_id, str):
            job = self.job_class.fetch(job_or_id, connection=self.connection, serializer=self.serializer)
        else:
            job = job_or_id
        status = transitions.requeue(self.connection, job.id, self.key, job.origin, at_front=at_front)
        if status is None:
            raise InvalidJobOperation(f'Job {job.id} is not in {self.key}, so it cannot be requeued from there')
        if status == 'gone':
            raise NoSuchJobError(f'No such job: {job.key}')
        job._status = JobStatus(status)
        job.started_at = job.ended_at = job.last_heartbeat = None
        job.enqueued_at = now() if job._status is JobStatus.QUEUED else None
        job._exc_info = None
        return job

    def cleanup(self, timestamp: float | None = None, exception_handlers: ExceptionHandlers | None = None) -> Any:
        """Drop what has expired; not every registry has such entries."""

    def _drop_expired(self, timestamp: float | None) -> None:
        """Remove all entries up to a score, a chunk at a time. Permanent ones are below 0 or at +inf."""
        cutoff = current_timestamp() if timestamp is None else timestamp
        while True:
            entries: Any = self.connection.zrangebyscore(self.key, 0, cutoff, start=0, num=_CHUNK, withscores=True)
            if not entries:
                return
            self.connection.zremrangebyscore(self.key, 0, entries[-1][1])
            if len(entries) < _CHUNK:
                return


class StartedJobRegistry(BaseRegistry):
    """The jobs that run. An entry is `job id:execution id`, and expires if its worker shows no sign of life.

    Cleaning it is for what RQ workers left behind: greenq's own workers hold leases, which its workers watch.
    """

    key_template = _template('started')

    def __contains__(self, item: Job | str) -> bool:
        job_id = _id_of(item)
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.zrange(keys.executions(job_id), 0, -1)
            pipeline.hget(keys.job(job_id), 'status')
            execution_ids, status = pipeline.execute()
        if execution_ids:
            entries = [f'{job_id}:{as_text(execution_id)}' for execution_id in execution_ids]
            return any(score is not None for score in self.connection.zmscore(self.key, entries))
        # The list of executions expires a minute after the last of them did, which may be before anybody cleans up.
        return status == b'started' and any(True for _ in self.connection.zscan_iter(self.key, match=f'{job_id}:*'))

    def add(self, job: Job | str, ttl: int = 0, pipeline: Pipeline | None = None, xx: bool = False) -> Any:
        """Not for this registry."""
        raise NotImplementedError('StartedJobRegistry holds executions: use add_execution()')

    def remove(self, job: Job | str, pipeline: Pipeline | None = None, delete_job: bool = False) -> Any:
        """Not for this registry."""
        raise NotImplementedError('StartedJobRegistry holds executions: use remove_execution() or remove_executions()')

    def add_execution(self, execution: Execution, pipeline: Pipeline, ttl: int = 0, xx: bool = False) -> Any:
        """Add an execution for `ttl` seconds, or for ever (-1); with `xx` only if it is there already."""
        return pipeline.zadd(self.key, {execution.composite_key: _score(ttl)}, xx=xx)

    def remove_execution(
        self,
        execution: Execution,
        job: Job | None = None,
        pipeline: Pipeline | None = None,
        delete_job: bool = False,
    ) -> None:
        """Take an execution out. `job` and `delete_job` are accepted and do nothing, as in RQ."""
        client = self.connection if pipeline is None else pipeline
        client.zrem(self.key, execution.composite_key)

    def remove_executions(self, job: Job, pipeline: Pipeline | None = None) -> None:
        """Take all executions of a job out."""
        client = self.connection if pipeline is None else pipeline
        entries = [execution.composite_key for execution in job.get_executions()]
        if entries:
            client.zrem(self.key, *entries)

    def get_job_and_execution_ids(
        self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True
    ) -> list[tuple[str, str]]:
        """(job id, execution id) from rank `start` to `end`, both included."""
        if cleanup:
            self.cleanup()
        return [parse_composite_key(as_text(entry)) for entry in self._entries(start, end, desc)]

    @staticmethod
    def parse_job_id(entry: bytes | str) -> str:
        """The job id in an entry; very old workers wrote nothing else."""
        return as_text(entry).partition(':')[0]

    def cleanup(self, timestamp: float | None = None, exception_handlers: ExceptionHandlers | None = None) -> None:
        """End the executions that were abandoned before `timestamp` (epoch seconds; default: now).

        Each job runs again if it has retries left, else it fails with AbandonedJobError: its failure callback, the
        exception handlers, its dependents and its webhooks see to the rest. However many clean up at once, each
        execution is ended once.
        """
        cutoff = current_timestamp() if timestamp is None else timestamp
        AbandonedExecutions(self, exception_handlers or ()).end(cutoff)


class FinishedJobRegistry(BaseRegistry):
    """The jobs that succeeded, until their result expires."""

    key_template = _template('finished')

    def cleanup(self, timestamp: float | None = None, exception_handlers: ExceptionHandlers | None = None) -> None:
        """Drop the jobs that expired before `timestamp` (epoch seconds; default: now)."""
        self._drop_expired(timestamp)


class FailedJobRegistry(BaseRegistry):
    """The jobs that failed or were stopped, for a year unless their `failure_ttl` says otherwise."""

    key_template = _template('failed')

    def cleanup(self, timestamp: float | None = None, exception_handlers: ExceptionHandlers | None = None) -> None:
        """Drop the jobs that expired before `timestamp` (epoch seconds; default: now)."""
        self._drop_expired(timestamp)

    def add(  # type: ignore[override]
        self, job: Job, ttl: int | None = None, exc_string: str = '', pipeline: Pipeline | None = None
    ) -> None:
        """Save a job and add it for `ttl` seconds (default: a year; -1: for ever); the job expires with its entry."""
        if pipeline is None:
            with self.connection.pipeline() as own:
                self.add(job, ttl, exc_string, own)
                own.execute()
            return
        seconds = DEFAULT_FAILURE_TTL if ttl is None else ttl
        job._exc_info = exc_string
        job.save(pipeline=pipeline, include_meta=False, include_result=False)
        job.cleanup(ttl=seconds, pipeline=pipeline)
        pipeline.zadd(self.key, {job.id: seconds if seconds < 0 else current_timestamp() + seconds})


class _WaitingRegistry(BaseRegistry):
    """Scored by when a job came in; nothing in it expires."""

    def add(self, job: Job | str, ttl: int | None = None, pipeline: Pipeline | None = None, xx: bool = False) -> Any:
        """Add a job, as of now; `ttl` is accepted and does nothing, as in RQ."""
        return super().add(job, 0, pipeline, xx)


class DeferredJobRegistry(_WaitingRegistry):
    """The jobs that wait for others to finish."""

    key_template = _template('deferred')


class ReadyJobRegistry(_WaitingRegistry):
    """The jobs that an RQ worker has found ready and is about to enqueue; greenq enqueues such jobs at once."""

    key_template = _template('ready')

    def cleanup(self, timestamp: float | None = None, exception_handlers: ExceptionHandlers | None = None) -> list[Job]:
        """Enqueue what was left here by a worker that died in between; returns those jobs."""
        return self.enqueue_jobs(self.get_job_ids(cleanup=False))

    def register_jobs(self, jobs: Sequence[Job], pipeline: Pipeline) -> None:
        """Mark deferred jobs of this queue as ready, in the caller's transaction."""
        deferred = DeferredJobRegistry(self.name, connection=self.connection)
        for job in jobs:
            deferred.remove(job, pipeline=pipeline)
            job.set_status(JobStatus.READY_TO_ENQUEUE, pipeline=pipeline)
            self.add(job, pipeline=pipeline)

    def enqueue_jobs(self, job_ids: Sequence[str]) -> list[Job]:
        """Move ready jobs into the queue, and drop entries that are no longer ready; returns the jobs moved."""
        moved: list[str] = []
        for chunk in split_list(job_ids, _CHUNK):
            moved += transitions.promote_ready(self.connection, self.name, chunk)
        if not moved:
            return []
        jobs = self.job_class.fetch_many(moved, connection=self.connection, serializer=self.serializer)
        return [job for job in jobs if job is not None]


class ScheduledJobRegistry(BaseRegistry):
    """The jobs that wait for their time, which is their score."""

    key_template = _template('scheduled')

    def schedule(self, job: Job, scheduled_datetime: datetime, pipeline: Pipeline | None = None) -> Any:
        """Add a job at its time, local if it has no zone. `Queue.schedule_job` stores the job as well."""
        moment = scheduled_datetime if scheduled_datetime.tzinfo else scheduled_datetime.astimezone()
        client = self.connection if pipeline is None else pipeline
        return client.zadd(self.key, {job.id: calendar.timegm(moment.utctimetuple())})

    def get_jobs_to_schedule(self, timestamp: float | None = None, chunk_size: int = _CHUNK) -> list[str]:
        """At most `chunk_size` ids whose time has come."""
        cutoff = current_timestamp() if timestamp is None else timestamp
        return [as_text(job_id) for job_id in self._entries_until(cutoff, 0, chunk_size)]

    def get_jobs_to_enqueue(self, timestamp: float | None = None) -> list[str]:
        """All ids whose time has come."""
        return self.get_expired_job_ids(timestamp)

    def get_scheduled_time(self, job_or_id: Job | str) -> datetime:
        """When the job will be enqueued, in UTC. NoSuchJobError if it is not scheduled."""
        job_id = _id_of(job_or_id)
        return _moment(self.connection.zscore(self.key, job_id), job_id, self.key)

    def remove_jobs(self, timestamp: float | None = None, pipeline: Pipeline | None = None) -> Any:
        """Drop the entries whose time has come. Deprecated: it loses jobs."""
        warnings.warn(
            'ScheduledJobRegistry.remove_jobs() is deprecated: use remove()', DeprecationWarning, stacklevel=2
        )
        client = self.connection if pipeline is None else pipeline
        return client.zremrangebyscore(self.key, 0, current_timestamp() if timestamp is None else timestamp)


class CanceledJobRegistry(BaseRegistry):
    """The jobs that were canceled, until somebody deletes them."""

    key_template = _template('canceled')

    def get_expired_job_ids(self, timestamp: float | None = None) -> list[str]:
        """Not for this registry: nothing in it expires."""
        raise NotImplementedError('Nothing in CanceledJobRegistry expires: use get_job_ids()')


def clean_registries(queue: Queue, exception_handlers: ExceptionHandlers | None = None) -> None:
    """Clean all registries of a queue, and all rate limits."""
    queue.finished_job_registry.cleanup()
    queue.started_job_registry.cleanup(exception_handlers=exception_handlers)
    queue.failed_job_registry.cleanup()
    queue.deferred_job_registry.cleanup()
    queue.ready_job_registry.cleanup()
    for rate_limit_registry in RateLimitRegistry.all(queue.connection):
        rate_limit_registry.cleanup()


def _id_of(job_or_id: Job | str) -> str:
    return job_or_id if isinstance(job_or_id, str) else job_or_id.id


def _score(ttl: int) -> float:
    return float('inf') if ttl == -1 else ttl if ttl < 0 else current_timestamp() + ttl


def _moment(score: float | None, job_id: str, key: str) -> datetime:
    if score is None:
        raise NoSuchJobError(f'Job {job_id} is not in {key}')
    return datetime.fromtimestamp(score, UTC)
