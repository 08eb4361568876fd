"""A queue as its producers see it: putting jobs in, now or later, one or many, and looking at what waits.

How a job moves is the store's business (`store.transitions`); what a caller may say about a job is `job_options`'.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import total_ordering
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from greenq.callbacks import Callback, execute_failure_callback, execute_success_callback
from greenq.connections import resolve_connection
from greenq.defaults import DEFAULT_FAILURE_TTL, DEFAULT_JOB_TIMEOUT, DEFAULT_RESULT_TTL
from greenq.exceptions import DequeueTimeout, DuplicateJobError, NoSuchJobError
from greenq.intermediate_queue import IntermediateQueue
from greenq.job import Job, JobStatus
from greenq.job_lifecycle import death_penalty_here, format_exc_info
from greenq.job_options import Args, Function, JobOptions, Kwargs, check_distinct, check_unique, parse
from greenq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ReadyJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from greenq.results import Result, encode_exc_string, encode_return_value
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import keys, transitions
from greenq.store.states import checked_on_lost
from greenq.timeouts import BaseDeathPenalty, UnixSignalDeathPenalty
from greenq.utils import (
    as_text,
    backend_class,
    get_version,
    import_attribute,
    now,
    parse_timeout,
    split_list,
    utcformat,
)

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.rate_limit import RateLimit
    from greenq.repeat import Repeat
    from greenq.retry import Retry
    from greenq.types import JobDependencyType
    from greenq.webhook import Webhook

logger = logging.getLogger('greenq.queue')

_R = TypeVar('_R', bound=BaseRegistry)

_JOBS_PER_CALL = 500
_IDS_PER_READ = 1000
_MAINTENANCE_LOCK_SECONDS = 899


class EnqueueData(NamedTuple):
    """One job of an `enqueue_many` call; made by `Queue.prepare_data`."""

    func: Function
    args: Args = None
    kwargs: Kwargs = None
    timeout: float | str | None = None
    result_ttl: float | str | None = None
    ttl: float | str | None = None
    failure_ttl: float | str | None = None
    description: str | None = None
    depends_on: JobDependencyType | None = None
    job_id: str | None = None
    at_front: bool = False
    meta: dict[Any, Any] | None = None
    retry: Retry | None = None
    on_success: Callback | Callable[..., Any] | None = None
    on_failure: Callback | Callable[..., Any] | None = None
    on_stopped: Callback | Callable[..., Any] | None = None
    repeat: Repeat | None = None
    webhooks: Sequence[Webhook] | None = None
    rate_limit: RateLimit | None = None
    unique: bool = False
    on_lost: str | None = None

    def options(self, group_id: str | None = None) -> JobOptions:
        """All but the call itself."""
        options: dict[str, Any] = dict(zip(self._fields[3:], self[3:], strict=True))
        return JobOptions(group_id=group_id, **options)


@total_ordering
class Queue:
    """A named queue. Without a connection it uses the configured URL (see `greenq.connections`).

    `default_timeout` is what a job may run for unless it says otherwise, in seconds or as `'5m'`; `on_lost` is what
    becomes of one whose worker is lost, `requeue` or `fail`. With `is_async=False` jobs run at once, in this process,
    which is for tests. Queues are equal if their names are.
    """

    job_class: type[Job] = Job
    death_penalty_class: type[BaseDeathPenalty] = UnixSignalDeathPenalty
    DEFAULT_TIMEOUT: int = DEFAULT_JOB_TIMEOUT
    _on_lost: str | None = None
    redis_queue_namespace_prefix: str = keys.queue('')
    redis_queues_keys: str = keys.queues()

    @classmethod
    def all(
        cls,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> list[Queue]:
        """Every queue that was ever enqueued to and not deleted since."""
        connection = resolve_connection(connection)
        return [
            cls.from_queue_key(as_text(key), connection, job_class, serializer, death_penalty_class)
            for key in connection.smembers(cls.redis_queues_keys)
            if key
        ]

    @classmethod
    def from_queue_key(
        cls,
        queue_key: str,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> Queue:
        """The queue with this Redis key; ValueError if it is not a queue's key."""
        prefix = cls.redis_queue_namespace_prefix
        if not queue_key.startswith(prefix):
            raise ValueError(f'Not a valid RQ queue key: {queue_key}, because it does not begin with {prefix}')
        return cls(
            queue_key[len(prefix) :],
            connection=connection,
            job_class=job_class,
            serializer=serializer,
            death_penalty_class=death_penalty_class,
        )

    def __init__(
        self,
        name: str = 'default',
        connection: Redis | None = None,
        default_timeout: float | str | None = None,
        is_async: bool = True,
        job_class: str | type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
        on_lost: str | None = None,
        **kwargs: Any,
    ) -> None:
        if 'async' in kwargs:
            is_async = kwargs.pop('async')
            warnings.warn('The `async` keyword is deprecated. Use `is_async` instead', DeprecationWarning, stacklevel=2)
        if kwargs:
            unknown = ', '.join(sorted(kwargs))
            warnings.warn(f'Queue() ignores {unknown}: it has no such argument, remove it', UserWarning, stacklevel=2)
        self.connection: Redis = resolve_connection(connection)
        self.name = name
        self._key = f'{self.redis_queue_namespace_prefix}{name}'
        self._default_timeout = parse_timeout(default_timeout) or self.DEFAULT_TIMEOUT
        self._is_async = is_async
        self.log = logger
        if job_class is not None:
            self.job_class = import_attribute(job_class) if isinstance(job_class, str) else job_class
        if death_penalty_class is not None:
            self.death_penalty_class = death_penalty_class
        self.serializer = resolve_serializer(serializer)
        if on_lost is not None:
            self._on_lost = checked_on_lost(on_lost)

    # ---- what it is ----

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Queue]:
        yield self

    def __eq__(self, other: object) -> bool:
        return self.name == _name_of(other)

    def __lt__(self, other: object) -> bool:
        return self.name < _name_of(other)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r})'

    def __str__(self) -> str:
        return f'<{type(self).__name__} {self.name}>'

    @property
    def key(self) -> str:
        """The Redis key of the list of waiting ids."""
        return self._key

    @property
    def is_async(self) -> bool:
        """Whether jobs wait for a worker; else they run where they are enqueued."""
        return bool(self._is_async)

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """What RQ workers have dequeued and not started yet."""
        return IntermediateQueue(self.key, connection=self.connection)

    @property
    def intermediate_queue_key(self) -> str:
        """The Redis key of `intermediate_queue`."""
        return IntermediateQueue.get_intermediate_queue_key(self.key)

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """The server's version, asked once per connection."""
        return get_version(self.connection)

    # ---- what waits in it ----

    @property
    def count(self) -> int:
        """How many jobs wait."""
        return int(self.connection.llen(self.key))

    def is_empty(self) -> bool:
        """Whether no job waits."""
        return self.count == 0

    @property
    def job_ids(self) -> list[str]:
        """The ids of all waiting jobs, next one first."""
        return self.get_job_ids()

    @property
    def jobs(self) -> list[Job]:
        """All waiting jobs, next one first."""
        return self.get_jobs()

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """The ids of `length` waiting jobs (-1: all) from `offset` on."""
        if length == 0:
            return []
        end = offset + length - 1 if length > 0 else length
        return [as_text(job_id) for job_id in self.connection.lrange(self.key, offset, end)]

    def get_jobs(self, offset: int = 0, length: int = -1) -> list[Job]:
        """`length` waiting jobs (-1: all) from `offset` on, but for damaged ones, which are left to a worker to fail.

        Ids of jobs that are gone leave the queue on the way.
        """
        jobs: list[Job] = []
        for job_ids in split_list(self.get_job_ids(offset, length), _IDS_PER_READ):
            found = self.job_class.fetch_many(job_ids, connection=self.connection, serializer=self.serializer)
            self._forget([job_id for job_id, job in zip(job_ids, found, strict=True) if job is None])
            jobs += [job for job in found if job is not None and job.origin == self.name]
        return jobs

    def _forget(self, job_ids: Sequence[str]) -> None:
        """Take out those of the ids that have no hash."""
        if not job_ids:
            return
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.exists(keys.job(job_id))
            for job_id, exists in zip(job_ids, pipeline.execute(), strict=True):
                if not exists:
                    self.remove(job_id, pipeline=pipeline)
            pipeline.execute()

    def fetch_job(self, job_id: str) -> Job | None:
        """The job with this id if it belongs to this queue, waiting or not; else None."""
        try:
            job = self.job_class.fetch(job_id, connection=self.connection, serializer=self.serializer)
        except NoSuchJobError:
            self.remove(job_id)
            return None
        return job if job.origin == self.name else None

    def get_job_position(self, job_or_id: Job | str) -> int | None:
        """How many jobs will be taken before this one; None if it does not wait here."""
        position = self.connection.lpos(self.key, _id_of(job_or_id))
        return None if position is None else int(position)  # type: ignore[arg-type]

    # ---- taking out ----

    def remove(self, job_or_id: Job | str, pipeline: Pipeline | None = None) -> Any:
        """Take a job out of the queue, without touching the job. Returns how many entries went."""
        client = self.connection if pipeline is None else pipeline
        return client.lrem(self.key, 1, _id_of(job_or_id))

    def empty(self) -> int:
        """Delete all waiting jobs, with their results. Returns how many there were."""
        return transitions.empty(self.connection, self.name)

    def delete(self, delete_jobs: bool = True) -> None:
        """Delete the queue, and unless told otherwise the jobs that wait in it."""
        if delete_jobs:
            self.empty()
        with self.connection.pipeline() as pipeline:
            transitions.delete_queue(pipeline, self.name)
            pipeline.execute()

    def compact(self) -> None:
        """Drop the ids of jobs that no longer exist; the others keep their order."""
        transitions.compact(self.connection, self.name)

    def pop_job_id(self) -> str | None:
        """Take the next id out of the queue. Whoever calls this owns the job: if it dies, the job is lost."""
        job_id = self.connection.lpop(self.key)
        return None if job_id is None else as_text(job_id)  # type: ignore[arg-type]

    def push_job_id(self, job_id: str, pipeline: Pipeline | None = None, at_front: bool = False) -> None:
        """Put an id into the queue, without touching the job."""
        client = self.connection if pipeline is None else pipeline
        (client.lpush if at_front else client.rpush)(self.key, job_id)

    # ---- enqueueing ----

    def enqueue(self, f: Function, *args: Any, **kwargs: Any) -> Job:
        """Enqueue `f(*args, **kwargs)`.

        The options of `enqueue_call` may stand among the keywords, except that `timeout` is spelled `job_timeout`
        here. To give the function itself an argument of such a name, pass all its arguments as `args=` and `kwargs=`.
        """
        options, call_args, call_kwargs = parse(f, args, kwargs)
        return self.enqueue_call(f, call_args, call_kwargs, **options.given())

    def enqueue_call(
        self,
        func: Function,
        args: Args = None,
        kwargs: Kwargs = None,
        timeout: float | str | None = None,
        result_ttl: float | str | None = None,
        ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        description: str | None = None,
        depends_on: JobDependencyType | None = None,
        job_id: str | None = None,
        at_front: bool = False,
        meta: dict[Any, Any] | None = None,
        retry: Retry | None = None,
        repeat: Repeat | None = None,
        on_success: Callback | Callable[..., Any] | None = None,
        on_failure: Callback | Callable[..., Any] | None = None,
        on_stopped: Callback | Callable[..., Any] | None = None,
        rate_limit: RateLimit | None = None,
        pipeline: Pipeline | None = None,
        unique: bool = False,
        webhooks: Sequence[Webhook] | None = None,
        on_lost: str | None = None,
    ) -> Job:
        """Enqueue `func(*args, **kwargs)`; returns the job, whose status says what became of it.

        All times are seconds or strings such as `'5m'`. `timeout`: how long it may run, -1 for no limit. `ttl`: how
        long it may wait. `result_ttl`, `failure_ttl`: how long it is kept after success (500) and failure (a year),
        -1 for ever. `depends_on`: what must finish first. `on_lost`: what becomes of it if its worker is lost while it
        runs, `requeue` or `fail`, whatever the worker's rule. With `pipeline` nothing happens before the pipeline runs.
        DuplicateJobError if `unique` and the id is taken; ValueError for options that contradict each other;
        UnserializableError for arguments that the serializer refuses.
        """
        options = JobOptions(
            timeout=timeout,
            result_ttl=result_ttl,
            ttl=ttl,
            failure_ttl=failure_ttl,
            description=description,
            depends_on=depends_on,
            job_id=job_id,
            meta=meta,
            retry=retry,
            repeat=repeat,
            on_success=on_success,
            on_failure=on_failure,
            on_stopped=on_stopped,
            rate_limit=rate_limit,
            webhooks=webhooks,
            on_lost=on_lost,
        )
        job = self.create_job(func, args, kwargs, **options.given())
        return self.enqueue_job(job, pipeline=pipeline, at_front=at_front, unique=unique)

    def create_job(
        self,
        func: Function,
        args: Args = None,
        kwargs: Kwargs = None,
        timeout: float | str | None = None,
        result_ttl: float | str | None = None,
        ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        description: str | None = None,
        depends_on: JobDependencyType | None = None,
        job_id: str | None = None,
        meta: dict[Any, Any] | None = None,
        status: JobStatus = JobStatus.QUEUED,
        retry: Retry | None = None,
        repeat: Repeat | None = None,
        *,
        on_success: Callback | Callable[..., Any] | None = None,
        on_failure: Callback | Callable[..., Any] | None = None,
        on_stopped: Callback | Callable[..., Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        group_id: str | None = None,
        rate_limit: RateLimit | None = None,
        on_lost: str | None = None,
    ) -> Job:
        """Build a job without storing it. ValueError for a timeout of 0, a ttl that is not positive, an `on_lost` that
        is none."""
        options = JobOptions(
            timeout=timeout,
            result_ttl=result_ttl,
            ttl=ttl,
            failure_ttl=failure_ttl,
            description=description,
            depends_on=depends_on,
            job_id=job_id,
            meta=meta,
            retry=retry,
            on_success=on_success,
            on_failure=on_failure,
            on_stopped=on_stopped,
            webhooks=webhooks,
            group_id=group_id,
            on_lost=on_lost,
        )
        job = self.job_class.create(
            func,
            args=args,
            kwargs=kwargs,
            connection=self.connection,
            serializer=self.serializer,
            origin=self.name,
            status=status,
            **options.create_arguments(self._default_timeout),
        )
        if repeat:
            job.repeats_left = repeat.times
            job.repeat_intervals = repeat.intervals
        if rate_limit:
            job.rate_limit_key = rate_limit.key
            job.rate_limit_concurrency = rate_limit.concurrency
        return job

    def enqueue_job(
        self, job: Job, pipeline: Pipeline | None = None, at_front: bool = False, unique: bool = False
    ) -> Job:
        """Store a job and enqueue it, or defer it until what it depends on has finished. Errors as `enqueue_call`."""
        self._check(job, pipeline, unique)
        return self._submit(job, pipeline, at_front=_goes_first(job, at_front), unique=unique)

    def _enqueue_job(
        self, job: Job, pipeline: Pipeline | None = None, at_front: bool = False, unique: bool = False
    ) -> Job:
        """The same without a look at what the job depends on. Tools that trace RQ replace this method."""
        return self._submit(job, pipeline, at_front=at_front, unique=unique, check_dependencies=False)

    def _check(self, job: Job, pipeline: Pipeline | None, unique: bool) -> None:
        self._check_prefixes(job)
        if unique:
            check_unique(job._id, bool(job._dependency_ids), job.has_rate_limit)
        if not job.has_rate_limit:
            return
        if not self._is_async:
            raise ValueError('rate_limit is not supported on synchronous queues (is_async=False)')
        if pipeline is not None:
            raise ValueError('rate-limited jobs cannot be enqueued with a pipeline: leave the pipeline out')

    def _check_prefixes(self, job: Job) -> None:
        if (
            self.redis_queue_namespace_prefix != Queue.redis_queue_namespace_prefix
            or job.redis_job_namespace_prefix != Job.redis_job_namespace_prefix
        ):
            raise ValueError(
                f'{type(self).__name__} or {type(job).__name__} overrides its key prefix, which is not supported: '
                f'set RQ_KEY_PREFIX instead'
            )

    def _adopt(self, job: Job) -> None:
        job.origin = self.name
        if job.timeout is None:
            job.timeout = self._default_timeout
        if self._on_lost is not None and job.on_lost is None:
            job.on_lost = self._on_lost

    def _submit(
        self,
        job: Job,
        pipeline: Pipeline | None,
        *,
        at_front: bool,
        unique: bool,
        check_dependencies: bool = True,
    ) -> Job:
        self._adopt(job)
        job.enqueued_at = now()
        submission = job.to_submission(at_front=at_front, unique=unique)
        if not check_dependencies:
            submission = submission._replace(dependency_ids=())
        if not self._is_async:
            # What a pipeline would write later must not undo what the job has become by then.
            (status,) = transitions.enqueue(self.connection, self.name, (submission,), push=False)
            self._note_status(job, status)
            return self.run_sync(job) if status == 'queued' else job
        if pipeline is not None and not unique:
            transitions.enqueue(_in_transaction(pipeline), self.name, (submission,))
            self._note_status(job, *self._expected_statuses([submission]))
            return job
        (status,) = transitions.enqueue(self.connection, self.name, (submission,))
        self._note_status(job, status)
        return job

    def _note_status(self, job: Job, status: str) -> None:
        if status == 'duplicate':
            raise DuplicateJobError(f'Job with ID {job.id!r} already exists: delete it first, or leave unique=True out')
        job._status = JobStatus(status)
        if status != 'queued':
            job.enqueued_at = None

    def _expected_statuses(
        self, submissions: Sequence[transitions.Submission], pending: Collection[str] = ()
    ) -> list[str]:
        """What submissions in a pipeline will most likely end in; `pending` are ids that it is about to store."""
        parents = list({job_id for submission in submissions for job_id in submission.dependency_ids})
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in parents:
                pipeline.hget(keys.job(job_id), 'status')
            status_of = dict(zip(parents, pipeline.execute() if parents else (), strict=True))
        status_of |= dict.fromkeys(pending, b'queued')
        expected = []
        for submission in submissions:
            met = {None, b'finished', b'failed'} if submission.allow_failure else {None, b'finished'}
            is_free = met.issuperset(status_of[job_id] for job_id in submission.dependency_ids)
            expected.append('queued' if is_free else 'deferred')
        return expected

    # ---- many at once ----

    @staticmethod
    def prepare_data(
        func: Function,
        args: Args = None,
        kwargs: Kwargs = None,
        timeout: float | str | None = None,
        result_ttl: float | str | None = None,
        ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        description: str | None = None,
        depends_on: JobDependencyType | None = None,
        job_id: str | None = None,
        at_front: bool = False,
        meta: dict[Any, Any] | None = None,
        retry: Retry | None = None,
        on_success: Callback | Callable[..., Any] | None = None,
        on_failure: Callback | Callable[..., Any] | None = None,
        on_stopped: Callback | Callable[..., Any] | None = None,
        repeat: Repeat | None = None,
        webhooks: Sequence[Webhook] | None = None,
        rate_limit: RateLimit | None = None,
        unique: bool = False,
        on_lost: str | None = None,
    ) -> EnqueueData:
        """One job for `enqueue_many`, with the options of `enqueue_call`."""
        return EnqueueData(**locals())

    def enqueue_many(
        self, job_datas: Iterable[EnqueueData], pipeline: Pipeline | None = None, group_id: str | None = None
    ) -> list[Job]:
        """Enqueue many jobs with few round trips: first those that depend on nothing, then the others.

        All jobs are built before the first is stored, so a bad one raises with nothing written. They may depend on each
        other by id, in any order. Returns them: those without dependencies, the deferred, the rest. DuplicateJobError
        names the `unique` jobs that exist already; all others are enqueued nevertheless.
        """
        datas = list(job_datas)
        check_distinct(data.job_id for data in datas)
        jobs = [self._built(data, group_id, pipeline) for data in datas]
        data_of = {job.id: data for job, data in zip(jobs, datas, strict=True)}
        independent = [job for job in jobs if not job._dependency_ids]
        dependent = _dependencies_first([job for job in jobs if job._dependency_ids])
        refused: list[str] = []
        for chunk in (*split_list(independent, _JOBS_PER_CALL), *split_list(dependent, _JOBS_PER_CALL)):
            refused += self._submit_chunk(chunk, data_of, pipeline, group_id)
        if refused:
            raise DuplicateJobError(
                f'Jobs with these IDs already exist: {", ".join(refused)}; '
                f'the other {len(jobs) - len(refused)} were enqueued'
            )
        unmet = [job for job in dependent if job._status is JobStatus.DEFERRED]
        met = [job for job in dependent if job._status is not JobStatus.DEFERRED]
        return independent + unmet + met

    def _built(self, data: EnqueueData, group_id: str | None, pipeline: Pipeline | None) -> Job:
        options = data.options(group_id)
        job = self.create_job(data.func, data.args, data.kwargs, **options.job_arguments())
        self._check(job, pipeline, options.unique)
        if options.unique and pipeline is not None:
            raise ValueError(f'unique=True cannot be used with a pipeline, as for {job.id!r}: leave the pipeline out')
        # Serialized now and kept, so that what cannot be is found before anything is stored.
        _ = job.data
        if job.meta:
            job._serialize_meta()
        return job

    def _submit_chunk(
        self, jobs: Sequence[Job], data_of: Mapping[str, EnqueueData], pipeline: Pipeline | None, group_id: str | None
    ) -> list[str]:
        """Store some jobs; returns the ids of those that were refused."""
        if not self._is_async:
            return self._run_chunk(jobs, data_of, group_id)
        moment = now()
        submissions = []
        for job in jobs:
            self._adopt(job)
            job.enqueued_at = moment
            at_front = _goes_first(job, data_of[job.id].at_front)
            submissions.append(job.to_submission(at_front=at_front, unique=data_of[job.id].unique))
        if pipeline is not None:
            _in_transaction(pipeline)
            self._join_group(jobs, group_id, pipeline)
            transitions.enqueue(pipeline, self.name, submissions)
            statuses = self._expected_statuses(submissions, data_of.keys())
        elif group_id is None:
            statuses = transitions.enqueue(self.connection, self.name, submissions)
        else:
            with self.connection.pipeline() as own:
                self._join_group(jobs, group_id, own)
                transitions.enqueue(own, self.name, submissions)
                statuses = [as_text(status) for status in own.execute()[-1]]
        return self._note_statuses(jobs, statuses)

    def _note_statuses(self, jobs: Sequence[Job], statuses: Sequence[str]) -> list[str]:
        refused = []
        for job, status in zip(jobs, statuses, strict=True):
            if status == 'duplicate':
                refused.append(job.id)
            else:
                self._note_status(job, status)
        return refused

    def _run_chunk(self, jobs: Sequence[Job], data_of: Mapping[str, EnqueueData], group_id: str | None) -> list[str]:
        self._join_group(jobs, group_id, self.connection)
        refused = []
        for job in jobs:
            try:
                self._submit(job, None, at_front=False, unique=data_of[job.id].unique)
            except DuplicateJobError:
                refused.append(job.id)
        return refused

    def _join_group(self, jobs: Sequence[Job], group_id: str | None, client: Any) -> None:
        if group_id is None:
            return
        client.sadd(keys.group(group_id), *(job.id for job in jobs))
        client.sadd(keys.groups(), group_id)

    # ---- later ----

    def enqueue_at(self, datetime: datetime, f: Function, *args: Any, **kwargs: Any) -> Job:
        """Enqueue `f(*args, **kwargs)` at a time, which counts as local if it has no zone. Options as `enqueue`."""
        options, call_args, call_kwargs = parse(f, args, kwargs)
        job = self.create_job(f, call_args, call_kwargs, status=JobStatus.SCHEDULED, **options.job_arguments())
        if options.at_front:
            job.enqueue_at_front = True
        return self.schedule_job(job, datetime, pipeline=options.pipeline, unique=options.unique)

    def enqueue_in(self, time_delta: timedelta, func: Function, *args: Any, **kwargs: Any) -> Job:
        """Enqueue `func(*args, **kwargs)` when a time has passed. Options as `enqueue`."""
        return self.enqueue_at(now() + time_delta, func, *args, **kwargs)

    def schedule_job(self, job: Job, datetime: datetime, pipeline: Pipeline | None = None, unique: bool = False) -> Job:
        """Store a job that a scheduler enqueues at a time (local if it has no zone). Errors as `enqueue_call`."""
        self._check_prefixes(job)
        if unique and not job._id:
            check_unique(job._id, False, False)
        self._adopt(job)
        submission = job.to_submission(unique=unique)
        # `timestamp()` takes a naive time for local, with the offset of that date.
        due = math.floor(datetime.timestamp())
        client = self.connection if pipeline is None or unique else _in_transaction(pipeline)
        status = transitions.schedule(client, self.name, submission, due)
        self._note_status(job, status or 'scheduled')
        return job

    # ---- in this process ----

    def run_sync(self, job: Job) -> Job:
        """Run a stored job here and now, with its callbacks.

        What the job raises is recorded, except that KeyboardInterrupt is raised too; what a callback raises is raised.
        """
        with self.connection.pipeline() as pipeline:
            job.prepare_for_execution('sync', pipeline)
            pipeline.persist(job.key)
            pipeline.execute()
        try:
            self.run_job(job)
        except BaseException as error:
            exc_string = format_exc_info(sys.exc_info())
            self._record_sync_failure(job, exc_string)
            execute_failure_callback(job, death_penalty_here(self.death_penalty_class), *sys.exc_info())
            job.send_webhooks(JobStatus.FAILED, exc_string=exc_string)
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            execute_success_callback(job, death_penalty_here(self.death_penalty_class), job._result)
            job.send_webhooks(JobStatus.FINISHED)
        return job

    def run_job(self, job: Job) -> Job:
        """Run a job here and now and record its success. What it raises is raised."""
        job.perform()
        job.ended_at = now()
        outcome = transitions.Finished(
            job.id,
            '',
            job.origin,
            job.get_result_ttl(DEFAULT_RESULT_TTL),
            (job.started_at or job.ended_at).timestamp(),
            job.ended_at.timestamp(),
            utcformat(job.ended_at),
            encode_return_value(job.serializer, job._result),
            {'rate_limit': job.rate_limit_key} if job.has_rate_limit else None,
        )
        transitions.finish(self.connection, 'sync', (outcome,))
        job._status = JobStatus.FINISHED
        return job

    def _record_sync_failure(self, job: Job, exc_string: str) -> None:
        job.ended_at = now()
        outcome = transitions.Failed(
            job.id,
            '',
            job.origin,
            JobStatus.FAILED.value,
            Result.Type.FAILED.value,
            DEFAULT_FAILURE_TTL if job.failure_ttl is None else job.failure_ttl,
            True,
            (job.started_at or job.ended_at).timestamp(),
            job.ended_at.timestamp(),
            utcformat(job.ended_at),
            encode_exc_string(exc_string),
        )
        transitions.fail(self.connection, 'sync', (outcome,))
        job._status = JobStatus.FAILED

    # ---- dependents ----

    def enqueue_dependents(
        self, job: Job, exclude_job_id: str | None = None, refresh_job_status: bool = True
    ) -> dict[str, list[str]]:
        """Enqueue the jobs that waited for this one, as far as all else they wait for has finished.

        Returns their ids by queue. `exclude_job_id=job.id` takes this job for finished whatever its status. With
        `refresh_job_status=False` the status of `job` counts, not the stored one.
        """
        if exclude_job_id == job.id:
            return transitions.enqueue_dependents(self.connection, job.id, parent_status='finished')
        status = '' if refresh_job_status else job.get_status(refresh=False).value
        return transitions.enqueue_dependents(
            self.connection, job.id, exclude_job_id=exclude_job_id or '', parent_status=status
        )

    def enqueue_ready_jobs_by_queue(self, job_ids_by_queue_name: Mapping[str, list[str]]) -> None:
        """Enqueue jobs that an RQ worker has marked ready. An error is logged: cleaning the registries tries again."""
        for name, job_ids in job_ids_by_queue_name.items():
            queue = type(self)(name, connection=self.connection, job_class=self.job_class, serializer=self.serializer)
            try:
                queue.ready_job_registry.enqueue_jobs(job_ids)
            except Exception:
                self.log.exception('Could not enqueue the ready jobs of queue %s', name)

    # ---- taking from several queues ----

    @classmethod
    def lpop(
        cls, queue_keys: Sequence[str], timeout: int | None, connection: Redis | None = None
    ) -> tuple[Any, Any] | None:
        """Pop an id from the first queue that has one: (queue key, id), or None.

        A timeout of None does not wait. After `timeout` seconds without a job: DequeueTimeout.
        """
        connection = resolve_connection(connection)
        if timeout is None:
            for queue_key in queue_keys:
                job_id = connection.lpop(queue_key)
                if job_id is not None:
                    return queue_key, job_id
            return None
        result = connection.blpop(list(queue_keys), _checked_wait(timeout))
        if result is None:
            raise DequeueTimeout(f'No job within {timeout} s in {", ".join(queue_keys)}')
        return result[0], result[1]

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> tuple[str, Any] | None:
        """Move the next id of a queue to its intermediate list, as RQ workers do; waits and returns as `lpop`."""
        target = IntermediateQueue.get_intermediate_queue_key(queue_key)
        job_id: Any
        if timeout is None:
            job_id = connection.lmove(queue_key, target)
            return None if job_id is None else (queue_key, job_id)
        job_id = connection.blmove(queue_key, target, _checked_wait(timeout))
        if job_id is None:
            raise DequeueTimeout(f'No job within {timeout} s in {queue_key}')
        return queue_key, job_id

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> tuple[Job, Queue] | None:
        """Take the next job of the first queue that has one, skipping ids without a job; waits as `lpop`.

        This is RQ's way of taking, kept for tools: greenq's workers claim instead, which a crash cannot tear.
        """
        connection = resolve_connection(connection)
        job_class = backend_class(cls, 'job_class', override=job_class)
        queue_keys = [queue.key for queue in queues]
        while True:
            if len(queue_keys) == 1:
                popped = cls.lmove(connection, queue_keys[0], timeout)
            else:
                popped = cls.lpop(queue_keys, timeout, connection=connection)
            if popped is None:
                return None
            queue = cls.from_queue_key(as_text(popped[0]), connection, job_class, serializer, death_penalty_class)
            try:
                job = queue.job_class.fetch(as_text(popped[1]), connection=connection, serializer=serializer)
            except NoSuchJobError:
                continue
            return job, queue

    # ---- registries and maintenance ----

    def _registry(self, kind: type[_R]) -> _R:
        return kind(queue=self, job_class=self.job_class, death_penalty_class=self.death_penalty_class)

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        """The jobs that run."""
        return self._registry(StartedJobRegistry)

    @property
    def finished_job_registry(self) -> FinishedJobRegistry:
        """The jobs that succeeded."""
        return self._registry(FinishedJobRegistry)

    @property
    def failed_job_registry(self) -> FailedJobRegistry:
        """The jobs that failed or were stopped."""
        return self._registry(FailedJobRegistry)

    @property
    def deferred_job_registry(self) -> DeferredJobRegistry:
        """The jobs that wait for others."""
        return self._registry(DeferredJobRegistry)

    @property
    def ready_job_registry(self) -> ReadyJobRegistry:
        """The jobs that an RQ worker is about to enqueue."""
        return self._registry(ReadyJobRegistry)

    @property
    def scheduled_job_registry(self) -> ScheduledJobRegistry:
        """The jobs that wait for their time."""
        return self._registry(ScheduledJobRegistry)

    @property
    def canceled_job_registry(self) -> CanceledJobRegistry:
        """The jobs that were canceled."""
        return self._registry(CanceledJobRegistry)

    @property
    def registry_cleaning_key(self) -> str:
        """The Redis key of the maintenance lock."""
        return keys.clean_registries(self.name)

    def acquire_maintenance_lock(self) -> bool:
        """Whether the caller is the one to clean this queue's registries, for the next 15 minutes."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=_MAINTENANCE_LOCK_SECONDS))

    def release_maintenance_lock(self) -> None:
        """Let others clean this queue's registries again."""
        self.connection.delete(self.registry_cleaning_key)

    @property
    def scheduler_pid(self) -> int | None:
        """The process that enqueues this queue's scheduled jobs, on whichever host; None if there is none."""
        name = self.connection.get(keys.scheduler_lock(self.name))
        pid = None if name is None else self.connection.hget(keys.scheduler(as_text(name)), 'pid')
        return int(pid) if pid else None


def _name_of(other: object) -> str:
    if not isinstance(other, Queue):
        raise TypeError(f'Cannot compare queues to other objects, such as {other!r}: compare names')
    return other.name


def _id_of(job_or_id: Job | str) -> str:
    return job_or_id if isinstance(job_or_id, str) else job_or_id.id


def _goes_first(job: Job, at_front: bool) -> bool:
    """Whether a job goes to the front: now, or, which is noted on it, when what it waits for has finished."""
    if job._dependency_ids and (at_front or job.enqueue_at_front):
        job.enqueue_at_front = True
        return True
    return at_front


def _in_transaction(pipeline: Pipeline) -> Pipeline:
    """The caller's pipeline, past the phase in which a watching one runs each command at once."""
    if pipeline.watching and not pipeline.explicit_transaction:
        pipeline.multi()
    return pipeline


def _checked_wait(timeout: int) -> int:
    if timeout == 0:
        raise ValueError('RQ does not support indefinite timeouts. Please pick a timeout value > 0')
    return timeout


def _dependencies_first(jobs: list[Job]) -> list[Job]:
    """The same jobs, none before one that it depends on: a job that is not stored yet would count as finished."""
    by_id = {job.id: job for job in jobs}
    graph = {job.id: [parent for parent in job._dependency_ids if parent in by_id] for job in jobs}
    try:
        return [by_id[job_id] for job_id in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise ValueError(f'These jobs depend on each other in a circle: {", ".join(error.args[1])}') from None
