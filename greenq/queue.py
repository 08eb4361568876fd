"""A queue, as its producers see it: putting jobs in, now or later, and what is enqueued when a job ends.

Its parts are elsewhere: `queue_record`, `queue_registries`, `bulk_enqueue`, `dequeue`. How a job moves is the store's
business (`store.transitions`); what a caller may say about a job is `job_options`'.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenq.bulk_enqueue import BulkEnqueue
from greenq.bulk_enqueue import EnqueueData as EnqueueData
from greenq.callbacks import Callback, execute_failure_callback, execute_success_callback
from greenq.defaults import DEFAULT_JOB_TIMEOUT, DEFAULT_RESULT_TTL
from greenq.dequeue import Dequeue
from greenq.exceptions import DequeueTimeout as DequeueTimeout
from greenq.exceptions import DuplicateJobError
from greenq.exceptions import NoSuchJobError as NoSuchJobError
from greenq.job import Job, JobStatus
from greenq.job_attempt import failed, finished
from greenq.job_dependencies import expected_statuses
from greenq.job_lifecycle import death_penalty_here, format_exc_info
from greenq.job_options import Args, Function, JobOptions, Kwargs, check_unique, parse
from greenq.job_record import in_transaction
from greenq.queue_registries import QueueRegistries
from greenq.serializers import Serializer
from greenq.store import transitions
from greenq.store.states import checked_on_lost
from greenq.timeouts import BaseDeathPenalty
from greenq.utils import now, parse_timeout

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.rate_limit import RateLimit
    from greenq.repeat import Repeat
    from greenq.retry import Retry
    from greenq.types import JobDependencyType
    from greenq.webhook import Webhook

logger = logging.getLogger('greenq.queue')


class Queue(QueueRegistries, Dequeue):
    """A named queue. Without a connection it uses the configured URL (see `greenq.connections`).

    `default_timeout` is what a job may run for unless it says otherwise, in seconds or as `'5m'`; `on_lost` is what
    becomes of one whose worker is lost, `requeue` or `fail`. With `is_async=False` jobs run at once, in this process,
    which is for tests. Queues are equal if their names are.
    """

    DEFAULT_TIMEOUT: int = DEFAULT_JOB_TIMEOUT
    _on_lost: str | None = None

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
        super().__init__(
            name,
            connection,
            job_class=job_class,
            serializer=serializer,
            death_penalty_class=death_penalty_class,
        )
        self._default_timeout = parse_timeout(default_timeout) or self.DEFAULT_TIMEOUT
        self._is_async = is_async
        if on_lost is not None:
            self._on_lost = checked_on_lost(on_lost)

    @property
    def is_async(self) -> bool:
        """Whether jobs wait for a worker; else they run where they are enqueued."""
        return bool(self._is_async)

    # ---- enqueueing ----

    def enqueue(self, f: Function, *args: Any, **kwargs: Any) -> Job:
        """Enqueue `f(*args, **kwargs)`.

        The options of `enqueue_call` may stand among the keywords, except that `timeout` is spelled `job_timeout`
        here. To give the function itself an argument of such a name, pass all its arguments as `args=` and `kwargs=`.
        """
        options, call_args, call_kwargs = parse(f, args, kwargs)
        if _is_replaced(self.enqueue_call, _ENQUEUE_CALL):
            return self.enqueue_call(f, call_args, call_kwargs, **options.given())
        return self._enqueue_with(options, f, call_args, call_kwargs)

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
            at_front=at_front,
            pipeline=pipeline,
            unique=unique,
        )
        return self._enqueue_with(options, func, args, kwargs)

    def _enqueue_with(self, options: JobOptions, func: Function, args: Args, kwargs: Kwargs) -> Job:
        job = self._created(options, func, args, kwargs)
        return self.enqueue_job(job, pipeline=options.pipeline, at_front=options.at_front, unique=options.unique)

    def _created(self, options: JobOptions, func: Function, args: Args, kwargs: Kwargs) -> Job:
        """By `create_job`, whose many arguments are taken apart and put together again only for one that needs them."""
        if _is_replaced(self.create_job, _CREATE_JOB):
            return self.create_job(func, args, kwargs, **options.job_arguments())
        return self._new_job(options, func, args, kwargs, JobStatus.QUEUED)

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
            repeat=repeat,
            rate_limit=rate_limit,
        )
        return self._new_job(options, func, args, kwargs, status)

    def _new_job(self, options: JobOptions, func: Function, args: Args, kwargs: Kwargs, status: JobStatus) -> Job:
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
        if options.repeat:
            job.repeats_left = options.repeat.times
            job.repeat_intervals = options.repeat.intervals
        if options.rate_limit:
            job.rate_limit_key = options.rate_limit.key
            job.rate_limit_concurrency = options.rate_limit.concurrency
        return job

    def enqueue_job(
        self, job: Job, pipeline: Pipeline | None = None, at_front: bool = False, unique: bool = False
    ) -> Job:
        """Store a job and enqueue it, or defer it until what it depends on has finished. Errors as `enqueue_call`."""
        self._check(job, pipeline, unique)
        return self._submit(job, pipeline, at_front=job._goes_first(at_front), unique=unique)

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
        # One that was made without a connection lives where it is enqueued.
        job.__dict__.setdefault('connection', self.connection)
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
            transitions.enqueue(in_transaction(pipeline), self.name, (submission,))
            self._note_status(job, *expected_statuses(self.connection, [submission]))
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

    # ---- many at once ----

    #: One job for `enqueue_many`, with the options of `enqueue_call`.
    prepare_data = staticmethod(EnqueueData)

    def enqueue_many(
        self, job_datas: Iterable[EnqueueData], pipeline: Pipeline | None = None, group_id: str | None = None
    ) -> list[Job]:
        """Enqueue many jobs with few round trips: first those that depend on nothing, then the others.

        The jobs of a list, or of any other collection, are built before the first is stored, so a bad one raises with
        nothing written. An iterator is streamed: jobs are stored, some hundreds at a time, while it gives the next
        ones; if it raises, or a job is bad, those that were stored by then stay. Jobs may depend on each other by id,
        in any order. Returns them: those without dependencies, the deferred, the rest. DuplicateJobError names the
        `unique` jobs that exist already; all others are enqueued nevertheless.
        """
        return BulkEnqueue(self, job_datas, pipeline, group_id).submit()

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
        client = self.connection if pipeline is None or unique else in_transaction(pipeline)
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
        outcome = finished(job, job.get_result_ttl(DEFAULT_RESULT_TTL))
        if job.has_rate_limit:
            outcome = outcome._replace(options={'rate_limit': job.rate_limit_key})
        transitions.finish(self.connection, 'sync', (outcome,))
        job._status = JobStatus.FINISHED
        return job

    def _record_sync_failure(self, job: Job, exc_string: str) -> None:
        job.ended_at = now()
        transitions.fail(self.connection, 'sync', (failed(job, exc_string),))
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


_ENQUEUE_CALL, _CREATE_JOB = Queue.enqueue_call, Queue.create_job


def _is_replaced(method: Callable[..., Any], own: Callable[..., Any]) -> bool:
    """Whether a method of a queue is somebody else's, of a subclass, of a tool that traces, of this object alone."""
    return getattr(method, '__func__', None) is not own


def __getattr__(name: str) -> Any:
    from greenq.compat import missing_name

    raise missing_name(__name__, name)
