"""A job, as its users see it: making one, what it returned, taking it back, and what is called when it ends.

Its parts are elsewhere: `job_fields`, `job_call`, `job_record`, `job_dependencies`, `job_attempt`. Where a job is, in a
queue or a registry, is changed by `store.transitions` only; the methods here ask for it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from greenq.callbacks import Callback, as_callback
from greenq.defaults import CALLBACK_TIMEOUT
from greenq.exceptions import DeserializationError, InvalidJobOperation, NoSuchJobError
from greenq.job_attempt import JobAttempt
from greenq.job_call import _current_job as _current_job
from greenq.job_call import current_job_finders, get_current_job
from greenq.job_dependencies import Dependency, JobDependencies
from greenq.job_fields import UNEVALUATED, or_default, parse_job_id, validate_job_id
from greenq.job_record import in_transaction
from greenq.results import Result
from greenq.retry import Retry
from greenq.serializers import Serializer
from greenq.store import transitions
from greenq.store.job_hash import Interruption
from greenq.store.states import JobStatus, checked_on_lost
from greenq.types import FailureCallbackType, JobDependencyType, SuccessCallbackType
from greenq.utils import import_attribute, now, parse_timeout
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.executions import Execution, ExecutionRegistry
    from greenq.registry import BaseRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

__all__ = [
    'UNEVALUATED',
    'Callback',
    'Dependency',
    'DeserializationError',
    'Interruption',
    'Job',
    'JobStatus',
    'NoSuchJobError',
    'Retry',
    'cancel_job',
    'current_job_finders',
    'get_current_job',
    'parse_job_id',
    'requeue_job',
    'validate_job_id',
]

logger = logging.getLogger('greenq.job')

R = TypeVar('R', bound='BaseRegistry')

# What is asked of every new job, and of few has an answer: set at once, which is cheaper than to look in the hash.
_MOSTLY_UNSET = dict.fromkeys(
    ('rate_limit_key', 'rate_limit_concurrency', 'allow_dependency_failures', 'enqueue_at_front', 'on_lost')
)


def cancel_job(
    job_id: str,
    connection: Redis | None = None,
    serializer: Serializer | str | None = None,
    enqueue_dependents: bool = False,
) -> None:
    """Cancel the job with this id; NoSuchJobError if there is none, else as `Job.cancel`."""
    Job.fetch(job_id, connection=connection, serializer=serializer).cancel(enqueue_dependents=enqueue_dependents)


def requeue_job(job_id: str, connection: Redis | None = None, serializer: Serializer | str | None = None) -> Job:
    """Requeue the failed job with this id; NoSuchJobError if there is none, else as `Job.requeue`."""
    return Job.fetch(job_id, connection=connection, serializer=serializer).requeue()


class Job(JobDependencies, JobAttempt):
    """One call of a function, to be made by a worker: what to call, how, and how it went.

    Times are aware, in UTC; timeouts and ttls are in seconds, -1 meaning without end and None not set. A job that
    was fetched decodes a field when it is first read, and raises a ValueError that names it then if it is damaged.
    """

    redis_server_version: tuple[int, int, int] | None = None

    _cached_result: Result | None = None
    _success_callback: Any = UNEVALUATED
    _failure_callback: Any = UNEVALUATED
    _stopped_callback: Any = UNEVALUATED

    _cached_attributes = JobDependencies._cached_attributes | {
        '_cached_result',
        '_success_callback',
        '_failure_callback',
        '_stopped_callback',
    }

    # ---- making one ----

    @classmethod
    def create(
        cls,
        func: str | Callable[..., Any],
        _args: list[Any] | tuple[Any, ...] | str | None = None,
        kwargs: dict[str, Any] | None = None,
        connection: Redis | None = None,
        result_ttl: float | str | None = None,
        ttl: float | str | None = None,
        status: JobStatus | None = None,
        description: str | None = None,
        depends_on: JobDependencyType | None = None,
        timeout: float | str | None = None,
        retry: Retry | None = None,
        id: str | None = None,
        origin: str = '',
        meta: dict[str, Any] | None = None,
        failure_ttl: float | str | None = None,
        serializer: Serializer | str | None = None,
        group_id: str | None = None,
        *,
        args: list[Any] | tuple[Any, ...] | None = None,
        on_success: Callback | str | Callable[..., Any] | None = None,
        on_failure: Callback | str | Callable[..., Any] | None = None,
        on_stopped: Callback | str | Callable[..., Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        on_lost: str | None = None,
    ) -> Self:
        """A new job that calls `func`, a callable or its dotted path. It is not stored yet.

        `args` (by name, or second by position) is a list or tuple, `kwargs` a dict; a bare string in second place is
        a single argument. Times are in seconds, or `'90'`, `'5s'`, `'3m'`, `'1h'`, `'1d'`. TypeError for arguments
        of a wrong kind, ValueError for an id, a dependency or an `on_lost` that cannot be one.
        """
        job = cls(connection=connection, serializer=serializer)
        job.__dict__.update(_MOSTLY_UNSET, _dependency_ids=[])
        if id is not None:
            job.id = id
        job.created_at = now()
        job.origin = origin or ''
        job._set_call(func, _args, args, kwargs)
        job._set_callbacks(on_success, on_failure, on_stopped)
        if webhooks:
            job.webhooks = _checked_webhooks(webhooks)
        job.description = description or job.get_call_string()
        job.result_ttl = parse_timeout(result_ttl)
        job.failure_ttl = parse_timeout(failure_ttl)
        job.ttl = parse_timeout(ttl)
        job.timeout = parse_timeout(timeout)
        job.meta = meta or {}
        job.group_id = group_id
        if on_lost is not None:
            job.on_lost = checked_on_lost(on_lost)
        if retry is not None:
            job.retries_left = retry.max
            job.retry_intervals = retry.intervals
            job.enqueue_at_front_on_retry = retry.enqueue_at_front
        if depends_on is not None:
            job.process_dependencies(depends_on)
        job._status = JobStatus.CREATED if status is None else status
        return job

    def _set_callbacks(self, on_success: Any, on_failure: Any, on_stopped: Any) -> None:
        if callback := as_callback(on_success, 'on_success'):
            self._success_callback_name, self._success_callback_timeout = callback.name, callback.timeout
        if callback := as_callback(on_failure, 'on_failure'):
            self._failure_callback_name, self._failure_callback_timeout = callback.name, callback.timeout
        if callback := as_callback(on_stopped, 'on_stopped'):
            self._stopped_callback_name, self._stopped_callback_timeout = callback.name, callback.timeout

    # ---- callbacks and webhooks ----

    def _callback(self, kind: Literal['success', 'failure', 'stopped']) -> Any:
        attribute = f'_{kind}_callback'
        if getattr(self, attribute) is UNEVALUATED:
            name = getattr(self, f'{attribute}_name')
            setattr(self, attribute, import_attribute(name) if name else None)
        return getattr(self, attribute)

    @property
    def success_callback(self) -> SuccessCallbackType | None:
        """What to call after success, with the job, its connection and the result."""
        callback: SuccessCallbackType | None = self._callback('success')
        return callback

    @property
    def failure_callback(self) -> FailureCallbackType | None:
        """What to call after a failure, with the job, its connection, and the exception's type, value, traceback."""
        callback: FailureCallbackType | None = self._callback('failure')
        return callback

    @property
    def stopped_callback(self) -> Callable[[Job, Redis], Any] | None:
        """What to call after the job was stopped on request, with the job and its connection."""
        callback: Callable[[Job, Redis], Any] | None = self._callback('stopped')
        return callback

    @property
    def success_callback_timeout(self) -> int:
        """Seconds that it may run."""
        return or_default(self._success_callback_timeout, CALLBACK_TIMEOUT)

    @property
    def failure_callback_timeout(self) -> int:
        """Seconds that it may run."""
        return or_default(self._failure_callback_timeout, CALLBACK_TIMEOUT)

    @property
    def stopped_callback_timeout(self) -> int:
        """Seconds that it may run."""
        return or_default(self._stopped_callback_timeout, CALLBACK_TIMEOUT)

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Make the requests that were asked for when the job becomes `status`. Their failures are only logged."""
        for webhook in self.webhooks:
            if webhook.job_status == status:
                self.log.debug('Job %s: sending %s webhook to %s', self.id, webhook.job_status, webhook.url)
                webhook.send(self, exc_string=exc_string)

    # ---- results ----

    def latest_result(self, timeout: float = 0) -> Result | None:
        """The newest result. If there is none, wait up to `timeout` seconds for the first; then None."""
        return Result.fetch_latest(self, serializer=self.serializer, timeout=timeout)

    def results(self) -> list[Result]:
        """All results that are kept, newest first."""
        return Result.all(self, serializer=self.serializer)

    def return_value(self, refresh: bool = False) -> Any | None:
        """What the job returned, if its newest result is a success. Remembered, unless `refresh` is set."""
        latest = self._latest_result(refresh)
        return latest.return_value if latest is not None and latest.type is Result.Type.SUCCESSFUL else None

    def _latest_result(self, refresh: bool = False) -> Result | None:
        if refresh or self._cached_result is None:
            self._cached_result = self.latest_result()
        return self._cached_result

    @property
    def result(self) -> Any:
        """Deprecated: use `return_value()`. Also finds the results of old RQ, in the job's hash."""
        warnings.warn('job.result is deprecated, use job.return_value instead.', DeprecationWarning, stacklevel=2)
        latest = self._latest_result()
        if latest is not None and latest.type is Result.Type.SUCCESSFUL:
            return latest.return_value
        if self._result is None:
            stored = self.connection.hget(self.key, 'result')
            self._result = None if stored is None else self.serializer.loads(stored)  # type: ignore[arg-type]
        return self._result

    @property
    def exc_info(self) -> str | None:
        """Deprecated: use `latest_result()`. The traceback, if the newest result is a failure."""
        warnings.warn('job.exc_info is deprecated, use job.latest_result() instead.', DeprecationWarning, stacklevel=2)
        latest = self._latest_result()
        if latest is not None and latest.type is Result.Type.FAILED:
            return latest.exc_string
        return self._exc_info

    # ---- leaving ----

    def cancel(
        self,
        pipeline: Pipeline | None = None,
        enqueue_dependents: bool = False,
        remove_from_dependencies: bool = False,
    ) -> dict[str, list[str]]:
        """Keep the job from running, wherever it is; a running one goes on, but its outcome will be dropped.

        Returns the dependents that this enqueued, by queue; with a pipeline nothing is known yet, and the dict is
        empty. InvalidJobOperation if the job is canceled already, is gone, or is rate limited and a pipeline is given.
        """
        if pipeline is not None:
            self._check_cancel_in_pipeline()
            in_transaction(pipeline)
        released = transitions.cancel(
            self._client(pipeline),
            self.id,
            enqueue_dependents=enqueue_dependents,
            remove_from_dependencies=remove_from_dependencies,
        )
        if released is None:
            self._fetch_status()
            raise InvalidJobOperation(f'Cannot cancel already canceled job: {self.id}')
        self._status = JobStatus.CANCELED
        return released

    def _check_cancel_in_pipeline(self) -> None:
        if self._fetch_status() == JobStatus.CANCELED:
            raise InvalidJobOperation(f'Cannot cancel already canceled job: {self.id}')
        if self.has_rate_limit:
            # RQ forbids it, and code written for greenq has to run on RQ.
            raise InvalidJobOperation(f'Cannot cancel rate-limited job {self.id} with a caller-supplied pipeline')

    def requeue(self, at_front: bool = False) -> Job:
        """Put a failed job back into its queue; InvalidJobOperation if it is not in the failed registry."""
        return self.failed_job_registry.requeue(self, at_front=at_front)

    def delete(
        self, pipeline: Pipeline | None = None, remove_from_queue: bool = True, delete_dependents: bool = False
    ) -> None:
        """Delete the job, its results and its places in queue and registries, perhaps the jobs that wait for it too.

        A running one goes on, but its outcome will be dropped.
        """
        transitions.delete(
            self._client(pipeline), self.id, remove_from_queue=remove_from_queue, delete_dependents=delete_dependents
        )

    def delete_dependents(self, pipeline: Pipeline | None = None) -> None:
        """Delete the jobs that wait for this one."""
        client = self._client(pipeline)
        for dependent_id in self.dependent_ids:
            transitions.delete(client, dependent_id, remove_from_queue=False)
        client.delete(self.dependents_key)

    def cleanup(self, ttl: int | None = None, pipeline: Pipeline | None = None, remove_from_queue: bool = True) -> None:
        """Have the job go away after `ttl` seconds: at once for 0, never for a negative number or None."""
        if ttl == 0:
            self.delete(pipeline=pipeline, remove_from_queue=remove_from_queue)
        elif ttl is not None and ttl > 0:
            client = self._client(pipeline)
            for key in (self.key, self.dependents_key, self.dependencies_key):
                client.expire(key, ttl)

    # ---- registries and executions: layers above this one, hence the late imports ----

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        """The registry of running jobs of this job's queue."""
        from greenq.registry import StartedJobRegistry

        return self._registry(StartedJobRegistry)

    @property
    def failed_job_registry(self) -> FailedJobRegistry:
        """The registry of failed jobs of this job's queue."""
        from greenq.registry import FailedJobRegistry

        return self._registry(FailedJobRegistry)

    @property
    def finished_job_registry(self) -> FinishedJobRegistry:
        """The registry of finished jobs of this job's queue."""
        from greenq.registry import FinishedJobRegistry

        return self._registry(FinishedJobRegistry)

    def _registry(self, registry_class: type[R]) -> R:
        return registry_class(self.origin, connection=self.connection, job_class=type(self), serializer=self.serializer)

    @property
    def execution_registry(self) -> ExecutionRegistry:
        """The attempts of this job that run now."""
        from greenq.executions import ExecutionRegistry

        return ExecutionRegistry(self.id, connection=self.connection)

    def get_executions(self) -> list[Execution]:
        """The attempts of this job that run now."""
        return self.execution_registry.get_executions()


def _checked_webhooks(webhooks: Any) -> list[Webhook]:
    if not isinstance(webhooks, Sequence) or not all(isinstance(webhook, Webhook) for webhook in webhooks):
        raise TypeError(f'webhooks must be a sequence of Webhook instances, not {webhooks!r}')
    return list(webhooks)
