"""A job: the record of a call, read from its hash piece by piece, and what one can ask of it.

Where a job is, in a queue or a registry, is changed by `store.transitions` only; the methods here ask for it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import re
import warnings
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from uuid import uuid4

from greenq.callbacks import Callback, as_callback
from greenq.connections import resolve_connection
from greenq.defaults import CALLBACK_TIMEOUT, DEFAULT_FAILURE_TTL, UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from greenq.exceptions import DeserializationError, InvalidJobOperation, NoSuchJobError, UnserializableError
from greenq.results import Result, encode_exc_string, encode_return_value
from greenq.retry import Retry
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import job_hash, keys, transitions
from greenq.store.job_hash import Interruption
from greenq.store.states import JobStatus, checked_on_lost
from greenq.types import FailureCallbackType, JobDependencyType, SuccessCallbackType
from greenq.utils import (
    as_text,
    current_timestamp,
    decode_redis_hash,
    ensure_job_list,
    get_call_string,
    import_attribute,
    now,
    parse_timeout,
    resolve_function_reference,
    utcformat,
)
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.executions import Execution, ExecutionRegistry
    from greenq.queue import Queue
    from greenq.registry import BaseRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

__all__ = [
    'UNEVALUATED',
    'Callback',
    'Dependency',
    'Interruption',
    'Job',
    'JobStatus',
    'Retry',
    'cancel_job',
    'get_current_job',
    'parse_job_id',
    'requeue_job',
    'validate_job_id',
]

logger = logging.getLogger('greenq.job')

UNEVALUATED: Any = object()
"""Stands for what was not computed yet, as in RQ."""

T = TypeVar('T')
D = TypeVar('D')
R = TypeVar('R', bound='BaseRegistry')

_JOB_ID = re.compile(r'[A-Za-z0-9_-]+')
_LONGEST_ARGUMENT_SHOWN = 75

_current_job: ContextVar[Job | None] = ContextVar('current_job', default=None)
#: Where else to look for the job that the caller runs in: workers add what contexts do not reach.
current_job_finders: list[Callable[[], Job | None]] = []


def parse_job_id(job_or_execution_id: str) -> str:
    """The job's id, from itself or from an execution's composite key."""
    return job_or_execution_id.partition(':')[0]


def validate_job_id(job_id: str) -> None:
    """TypeError or ValueError for what cannot be a job's id."""
    if not isinstance(job_id, str):
        raise TypeError(f'Job ID must be a string, not {type(job_id).__name__}: {job_id!r}')
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f'Job ID must only contain letters, numbers, underscores and dashes, not {job_id!r}')


def get_current_job(connection: Redis | None = None, job_class: type[Job] | None = None) -> Job | None:
    """The job that the caller runs in, None outside of any. Both arguments are deprecated and do nothing."""
    for name, value in (('connection', connection), ('job_class', job_class)):
        if value is not None:
            warnings.warn(f'{name} argument for get_current_job is deprecated.', DeprecationWarning, stacklevel=2)
    job = _current_job.get()
    if job is not None:
        return job
    return next((found for find in current_job_finders if (found := find()) is not None), None)


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


class Dependency:
    """What a job waits for: jobs or their ids, and on which terms.

    With `allow_failure` it also runs after jobs that failed; with `enqueue_at_front` it then goes first.
    """

    def __init__(
        self,
        jobs: Job | str | Iterable[Job | str],
        allow_failure: bool = False,
        enqueue_at_front: bool = False,
    ) -> None:
        dependencies = ensure_job_list(jobs)
        if not dependencies:
            raise ValueError('jobs: cannot be empty.')
        for job in dependencies:
            if not isinstance(job, (Job, str)):
                raise ValueError(
                    f'jobs: must contain objects of type Job and/or strings representing Job ids, not {job!r}'
                )
        self.dependencies: Sequence[Job | str] = dependencies
        self.allow_failure = allow_failure
        self.enqueue_at_front = enqueue_at_front


class _UnpicklableError(UnserializableError, pickle.PicklingError):
    """Caught by whoever expects what pickle raises, and by whoever expects what json raises."""


class _StoredField:
    """Decodes an attribute from the job's hash when it is first asked for. Afterwards it is a plain attribute."""

    def __init__(self, field: job_hash.Field) -> None:
        self.field = field

    def __get__(self, job: Job | None, owner: type[Job]) -> Any:
        if job is None:
            return self
        value = job.__dict__[self.field.attribute] = self.read(job)
        return value

    def read(self, job: Job) -> Any:
        return self.field.read(job._raw, job._id)


class _StoredData(_StoredField):
    def read(self, job: Job) -> Any:
        data = super().read(job)
        return UNEVALUATED if data is None else data


class _StoredMeta(_StoredField):
    def read(self, job: Job) -> Any:
        stored = super().read(job)
        if not isinstance(stored, bytes):
            return stored
        try:
            return job.serializer.loads(stored)
        except Exception:
            # It may name classes that only the producer has: kept, so that saving the job does not destroy it.
            job._unreadable_meta = stored
            return {'unserialized': stored}


class _StoredResult(_StoredField):
    def read(self, job: Job) -> Any:
        stored = super().read(job)
        if stored is None:
            return None
        try:
            return job.serializer.loads(stored)
        except Exception:
            return UNSERIALIZABLE_RETURN_VALUE_PAYLOAD


class _StoredWebhooks(_StoredField):
    def read(self, job: Job) -> Any:
        try:
            return super().read(job)
        except ValueError:
            # Losing a notification is better than losing the job.
            job.log.warning('Job %s: failed to deserialize webhooks', job.id, exc_info=True)
            return []


class _CallPart:
    """The function's name, instance, args or kwargs; the first one asked for loads all four."""

    def __set_name__(self, owner: type[Job], name: str) -> None:
        self.name = name

    def __get__(self, job: Job | None, owner: type[Job]) -> Any:
        if job is None:
            return self
        job._load_call()
        return job.__dict__[self.name]


class _DefaultConnection:
    """The configured connection, for a job that was given none; made when it is needed."""

    def __get__(self, job: Job | None, owner: type[Job]) -> Any:
        if job is None:
            return self
        connection = job.__dict__['connection'] = resolve_connection(None)
        return connection


class Job:
    """One call of a function, to be made by a worker: what to call, how, and how it went.

    Times are aware, in UTC; timeouts and ttls are in seconds, -1 meaning without end and None not set. A job that
    was fetched decodes a field when it is first read, and raises a ValueError that names it then if it is damaged.
    """

    redis_job_namespace_prefix = keys.job('')
    log = logger
    redis_server_version: tuple[int, int, int] | None = None

    connection: Redis
    serializer: Serializer
    meta: dict[str, Any]
    webhooks: list[Webhook]
    description: str | None
    origin: str
    created_at: datetime
    enqueued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    last_heartbeat: datetime | None
    timeout: int | None
    result_ttl: int | None
    failure_ttl: int | None
    ttl: int | None
    worker_name: str | None
    group_id: str | None
    #: Left of those that `Retry` allows after exceptions.
    retries_left: int | None
    #: How often the job has run again because it returned a `Retry`.
    number_of_retries: int | None
    retry_intervals: list[int] | None
    enqueue_at_front_on_retry: bool
    repeats_left: int | None
    repeat_intervals: list[int] | None
    allow_dependency_failures: bool | None
    enqueue_at_front: bool | None
    rate_limit_key: str | None
    rate_limit_concurrency: int | None
    #: What becomes of the job if its worker is lost while it runs, `requeue` or `fail`; None leaves it to the worker.
    on_lost: str | None
    #: Each time that it was cut off since it last ran to its end, the latest last; kept when it is failed as poison.
    interruptions: list[Interruption]

    _id: str | None
    _status: JobStatus
    _dependency_ids: list[str]
    _success_callback_name: str | None
    _failure_callback_name: str | None
    _stopped_callback_name: str | None
    _success_callback_timeout: int | None
    _failure_callback_timeout: int | None
    _stopped_callback_timeout: int | None
    _data: Any
    _result: Any
    _exc_info: str | None

    _raw: job_hash.RawHash = {}
    _unreadable_meta: bytes | None = None
    _cached_result: Result | None = None
    _success_callback: Any = UNEVALUATED
    _failure_callback: Any = UNEVALUATED
    _stopped_callback: Any = UNEVALUATED

    _func_name = _CallPart()
    _instance = _CallPart()
    _args = _CallPart()
    _kwargs = _CallPart()

    def __init__(
        self,
        id: str | None = None,
        connection: Redis | None = None,
        serializer: Serializer | str | None = None,
    ) -> None:
        if id:
            validate_job_id(id)
        self._id = id or None
        self.serializer = resolve_serializer(serializer)
        if connection is not None:
            self.connection = resolve_connection(connection)

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
        if id is not None:
            job.id = id
        job.created_at = now()
        job.origin = origin or ''
        job._instance, job._func_name = resolve_function_reference(func)
        job._args = _positional(_args, args)
        job._kwargs = _named(kwargs)
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

    def process_dependencies(self, depends_on: JobDependencyType) -> None:
        """Note what this job waits for. The terms of one `Dependency` hold for all; ValueError for other objects."""
        ids: list[str] = []
        for item in ensure_job_list(depends_on):
            if isinstance(item, Dependency):
                self.enqueue_at_front = self.enqueue_at_front or item.enqueue_at_front
                self.allow_dependency_failures = self.allow_dependency_failures or item.allow_failure
            elif not isinstance(item, (Job, str)):
                raise ValueError(f'depends_on items must be Job objects or string job IDs, got {type(item).__name__}')
            listed = item.dependencies if isinstance(item, Dependency) else [item]
            ids += (job.id if isinstance(job, Job) else job for job in listed)
        self._dependency_ids = ids

    @classmethod
    def from_hash(
        cls, job_id: str, raw: job_hash.RawHash, connection: Redis | None, serializer: Serializer | None = None
    ) -> Self:
        """The job of a hash that was read already. Nothing is decoded, so this is cheap, and damage shows later."""
        job = cls(None, connection)
        # Set here, because the constructor would check both anew.
        job._id = job_id
        if serializer is not None:
            job.serializer = serializer
        if cls.restore is Job.restore:
            # A new object has no values that would have to be forgotten.
            job._check_has_data(raw)
            job._adopt(raw)
        else:
            job.restore(raw)
        return job

    # ---- finding one ----

    @classmethod
    def exists(cls, job_id: str, connection: Redis | None = None) -> bool:
        """Whether a job with this id is stored."""
        return bool(resolve_connection(connection).exists(cls.key_for(job_id)))

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Serializer | str | None = None) -> Self:
        """The job with this id, or of this execution; NoSuchJobError if there is none."""
        job = cls(parse_job_id(id), connection=connection, serializer=serializer)
        job.refresh()
        return job

    @classmethod
    def fetch_many(
        cls,
        job_ids: Iterable[str],
        connection: Redis | None = None,
        serializer: Serializer | str | None = None,
    ) -> list[Self | None]:
        """The jobs with these ids, in one round trip; None in place of those that do not exist, or whose hash has no
        data, so that one damaged job does not hide the others."""
        ids = [parse_job_id(job_id) for job_id in job_ids]
        client = resolve_connection(connection)
        resolved = resolve_serializer(serializer)
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hgetall(cls.key_for(job_id))
            hashes = pipeline.execute()
        return [
            cls.from_hash(job_id, raw, client, resolved) if _has_data(raw) else None
            for job_id, raw in zip(ids, hashes, strict=True)
        ]

    def refresh(self) -> None:
        """Read the hash again; NoSuchJobError if it is gone."""
        raw = self.connection.hgetall(self.key)
        if not raw:
            raise NoSuchJobError(f'No such job: {self.key}')
        self.restore(raw)

    def restore(self, raw_data: job_hash.RawHash) -> None:
        """Take over the values of a hash, in place of all that this object knew; NoSuchJobError if it has no data."""
        self._check_has_data(raw_data)
        self._forget_values(raw_data)
        self._adopt(raw_data)

    def _check_has_data(self, raw: job_hash.RawHash) -> None:
        if not _has_data(raw):
            names = ', '.join(sorted(map(str, decode_redis_hash(raw)))) or 'none'
            raise NoSuchJobError(f'Unexpected job format: the hash of job {self.id} has no data; its fields: {names}')

    def _adopt(self, raw: job_hash.RawHash) -> None:
        """Keeps a hash; sets at once what a worker reads of every job and most jobs do not have, which is cheaper here
        than by a descriptor each."""
        state = self.__dict__
        state['_raw'] = raw
        if b'data' not in raw:
            return
        for key, attribute in _MOSTLY_ABSENT:
            if not raw.get(key):
                state[attribute] = None
        if not raw.get(b'webhooks'):
            state['webhooks'] = []
        if not raw.get(b'dependency_ids') and not raw.get(b'dependency_id'):
            state['_dependency_ids'] = []

    def _forget_values(self, raw_data: job_hash.RawHash) -> None:
        state = self.__dict__
        for name in _CACHED_ATTRIBUTES & state.keys():
            del state[name]
        for field in (job_hash.RESULT, job_hash.EXC_INFO):
            # What this process has just computed is in no hash any more.
            if field.attribute in state and field.find(raw_data):
                del state[field.attribute]

    # ---- identity ----

    @property
    def id(self) -> str:
        """The job's id, made up when it is first needed. TypeError or ValueError for setting what cannot be one."""
        if self._id is None:
            self._id = str(uuid4())
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        validate_job_id(value)
        self._id = value

    @classmethod
    def key_for(cls, job_id: str) -> str:
        """Key of a job's hash."""
        return keys.job(job_id)

    @classmethod
    def dependents_key_for(cls, job_id: str) -> str:
        """Key of the set of ids of the jobs that wait for a job."""
        return keys.dependents(job_id)

    @property
    def key(self) -> str:
        """Key of this job's hash."""
        return self.key_for(self.id)

    @property
    def dependents_key(self) -> str:
        """Key of the set of ids of the jobs that wait for this one."""
        return self.dependents_key_for(self.id)

    @property
    def dependencies_key(self) -> str:
        """Key of the set of ids of the jobs that this one waits for."""
        return keys.dependencies(self.id)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._id!r}, enqueued_at={self.enqueued_at!r})'

    def __str__(self) -> str:
        return f'<{type(self).__name__} {self.id}: {self.description}>'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    # ---- the call ----

    def _load_call(self) -> None:
        """Put into `__dict__` those parts of the call that are not there yet."""
        try:
            parts = self.serializer.loads(self.data)
            func_name, instance, args, kwargs = parts
        except Exception as error:
            raise DeserializationError(
                f'Job {self._id}: field data cannot be read with {_name_of(self.serializer)}: {_in_one_line(error)}'
            ) from error
        state = self.__dict__
        state.setdefault('_func_name', func_name)
        state.setdefault('_instance', instance)
        state.setdefault('_args', args)
        state.setdefault('_kwargs', kwargs)

    def _set_call_part(self, name: str, value: Any) -> None:
        if self._data is not UNEVALUATED:
            # The other parts are known only from it.
            self._load_call()
        self.__dict__[name] = value
        self._data = UNEVALUATED

    @property
    def data(self) -> bytes:
        """The serialized call. ValueError when there is none, a clear error for arguments that cannot be serialized."""
        if self._data is UNEVALUATED:
            self._data = self._dump_call()
        data: bytes = self._data
        return data

    @data.setter
    def data(self, value: bytes) -> None:
        self._data = value
        for name in _CALL_PARTS & self.__dict__.keys():
            del self.__dict__[name]

    def _dump_call(self) -> bytes:
        state = self.__dict__
        if '_func_name' not in state:
            raise ValueError(f'Cannot build the job data: job {self._id} has no function')
        func_name, instance = state['_func_name'], state.get('_instance')
        args, kwargs = state.get('_args', ()), state.get('_kwargs', {})
        parts = {'its instance': instance}
        parts |= {f'argument {at}': value for at, value in enumerate(args)}
        parts |= {f'argument {name!r}': value for name, value in kwargs.items()}
        return self._dump((func_name, instance, args, kwargs), func_name, parts)

    def _dump(self, value: Any, owner: str, parts: Mapping[str, Any]) -> bytes:
        """Serialize `value`; the error says which of its parts cannot be."""
        try:
            return self.serializer.dumps(value)
        except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError) as error:
            culprits = (f'{name} ({type(part).__name__})' for name, part in parts.items() if not self._can_dump(part))
            raise _UnpicklableError(
                f'{owner}: {next(culprits, "it")} cannot be serialized with {_name_of(self.serializer)} '
                f'({_in_one_line(error)}); pass something plain, such as an id'
            ) from error

    def _can_dump(self, value: Any) -> bool:
        try:
            self.serializer.dumps(value)
        except Exception:
            return False
        return True

    @property
    def func_name(self) -> str | None:
        """Dotted path of the function, or name of the method of `instance`."""
        name: str | None = self._func_name
        return name

    @func_name.setter
    def func_name(self, value: str | None) -> None:
        self._set_call_part('_func_name', value)

    @property
    def instance(self) -> Any:
        """What the method is called on, None for a function."""
        return self._instance

    @instance.setter
    def instance(self, value: Any) -> None:
        self._set_call_part('_instance', value)

    @property
    def args(self) -> list[Any] | tuple[Any, ...]:
        """Positional arguments; DeserializationError if they cannot be read here."""
        args: list[Any] | tuple[Any, ...] = self._args
        return args

    @args.setter
    def args(self, value: list[Any] | tuple[Any, ...]) -> None:
        self._set_call_part('_args', value)

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments; DeserializationError if they cannot be read here."""
        kwargs: dict[str, Any] = self._kwargs
        return kwargs

    @kwargs.setter
    def kwargs(self, value: dict[str, Any]) -> None:
        self._set_call_part('_kwargs', value)

    @property
    def func(self) -> Callable[..., Any] | None:
        """What is called. ValueError if it cannot be imported here."""
        func_name = self.func_name
        if func_name is None:
            return None
        instance = self.instance
        func: Callable[..., Any] = import_attribute(func_name) if instance is None else getattr(instance, func_name)
        return func

    def get_call_string(self) -> str | None:
        """The call as one would type it."""
        return get_call_string(self.func_name, self.args, self.kwargs, max_length=_LONGEST_ARGUMENT_SHOWN)

    # ---- running ----

    def perform(self) -> Any:
        """Make the call, in this process and at once; returns what it returns, raises what it raises."""
        token = _current_job.set(self)
        try:
            self._result = self._execute()
        finally:
            _current_job.reset(token)
        return self._result

    def _execute(self) -> Any:
        result = self._call()
        # Not asyncio's test, which takes a plain generator for a coroutine on Python 3.11.
        return self._run_coroutine(result) if inspect.iscoroutine(result) else result

    def _call(self) -> Any:
        func = self.func
        if func is None:
            raise ValueError(f'Cannot execute job {self.id}: function is None')
        return func(*self.args, **self.kwargs)

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run what an `async def` function returned, on a loop of its own."""
        return asyncio.run(coroutine)

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """Write that a worker has started this job."""
        self.worker_name = worker_name
        self.started_at = self.last_heartbeat = now()
        self._status = JobStatus.STARTED
        moment = utcformat(self.started_at)
        fields: dict[Any, Any] = {
            'status': self._status.value,
            'started_at': moment,
            'last_heartbeat': moment,
            'worker_name': worker_name,
        }
        pipeline.hset(self.key, mapping=fields)

    def heartbeat(self, timestamp: datetime, ttl: int, pipeline: Pipeline | None = None, xx: bool = False) -> None:
        """Write that this job was alive at `timestamp`. The other arguments are RQ's and do nothing there either."""
        self.last_heartbeat = timestamp
        self._client(pipeline).hset(self.key, 'last_heartbeat', utcformat(timestamp))

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
        return _or_default(self._success_callback_timeout, CALLBACK_TIMEOUT)

    @property
    def failure_callback_timeout(self) -> int:
        """Seconds that it may run."""
        return _or_default(self._failure_callback_timeout, CALLBACK_TIMEOUT)

    @property
    def stopped_callback_timeout(self) -> int:
        """Seconds that it may run."""
        return _or_default(self._stopped_callback_timeout, CALLBACK_TIMEOUT)

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Make the requests that were asked for when the job becomes `status`. Their failures are only logged."""
        for webhook in self.webhooks:
            if webhook.job_status == status:
                self.log.debug('Job %s: sending %s webhook to %s', self.id, webhook.job_status, webhook.url)
                webhook.send(self, exc_string=exc_string)

    # ---- settings ----

    @property
    def has_rate_limit(self) -> bool:
        """Whether the job needs a slot of a rate limit to be queued."""
        return bool(self.rate_limit_key and self.rate_limit_concurrency)

    def should_enqueue_at_front(self) -> bool:
        """Whether the job goes first: when it was enqueued so, or is retried and its `Retry` asked for it."""
        if self.enqueue_at_front_on_retry and self.ended_at is not None:
            return True
        return bool(self.enqueue_at_front)

    def get_ttl(self, default_ttl: int | None = None) -> int | None:
        """Seconds that the job may wait in its queue."""
        return _or_default(self.ttl, default_ttl)

    def get_result_ttl(self, default_ttl: int) -> int:
        """Seconds that its result is kept."""
        return _or_default(self.result_ttl, default_ttl)

    # ---- status ----

    def get_status(self, refresh: bool = True) -> JobStatus:
        """The status in Redis; without `refresh`, the one last seen. InvalidJobOperation if the job is gone."""
        if refresh:
            self._status = self._fetch_status()
        return self._status

    def _fetch_status(self) -> JobStatus:
        status = self.connection.hget(self.key, 'status')
        if not status:
            raise InvalidJobOperation(f'Failed to retrieve status for job: {self.id}')
        return JobStatus(as_text(status))

    def set_status(self, status: JobStatus, pipeline: Pipeline | None = None) -> None:
        """Write a status and nothing else. It moves the job nowhere: cancel, requeue or delete it for that."""
        self._status = status
        self._client(pipeline).hset(self.key, 'status', JobStatus(status).value)

    @property
    def is_finished(self) -> bool:
        return self.get_status() == JobStatus.FINISHED

    @property
    def is_queued(self) -> bool:
        return self.get_status() == JobStatus.QUEUED

    @property
    def is_failed(self) -> bool:
        return self.get_status() == JobStatus.FAILED

    @property
    def is_started(self) -> bool:
        return self.get_status() == JobStatus.STARTED

    @property
    def is_deferred(self) -> bool:
        return self.get_status() == JobStatus.DEFERRED

    @property
    def is_canceled(self) -> bool:
        return self.get_status() == JobStatus.CANCELED

    @property
    def is_scheduled(self) -> bool:
        return self.get_status() == JobStatus.SCHEDULED

    @property
    def is_stopped(self) -> bool:
        return self.get_status() == JobStatus.STOPPED

    @property
    def is_ready_to_enqueue(self) -> bool:
        return self.get_status() == JobStatus.READY_TO_ENQUEUE

    def get_position(self) -> int | None:
        """How many jobs are ahead of this one in its queue; None if it is in none."""
        if not self.origin:
            return None
        position: int | None = self.connection.lpos(keys.queue(self.origin), self.id)  # type: ignore[assignment]
        return position

    # ---- storing ----

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """The hash that this job is stored as."""
        fields: dict[str, Any] = {'data': self._stored_data()}
        state, raw = self.__dict__, self._raw
        for field in job_hash.FIELDS:
            if field.attribute in state or field.always or (raw and field.find(raw)):
                field.write(fields, getattr(self, field.attribute))
        if self._dependency_ids:
            fields['dependency_id'] = self._dependency_ids[0]
        if include_meta and self.meta:
            fields['meta'] = self._serialize_meta()
        if include_result:
            self._add_result(fields)
        return fields

    def _stored_data(self) -> bytes:
        if '_data' not in self.__dict__ and isinstance(stored := job_hash.DATA.find(self._raw), bytes):
            return stored
        return zlib.compress(self.data)

    def _add_result(self, fields: dict[str, Any]) -> None:
        if self._result is not None:
            try:
                fields['result'] = self.serializer.dumps(self._result)
            except Exception:
                fields['result'] = UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
        job_hash.EXC_INFO.write(fields, self._exc_info)

    def _serialize_meta(self) -> bytes:
        unreadable = self._unreadable_meta
        is_placeholder = len(self.meta) == 1 and self.meta.get('unserialized') is unreadable
        if unreadable is not None and is_placeholder:
            return unreadable
        return self._dump(self.meta, f'Job {self.id}', {f'meta {name!r}': value for name, value in self.meta.items()})

    def to_submission(self, at_front: bool = False, unique: bool = False) -> transitions.Submission:
        """This job as `transitions.enqueue` takes it."""
        fields = self.to_dict(include_result=False)
        del fields['status']
        limited = self.rate_limit_key and self.rate_limit_concurrency
        return transitions.Submission(
            self.id,
            fields,
            at_front=at_front,
            ttl=self.ttl,
            unique=unique,
            dependency_ids=self._dependency_ids,
            allow_failure=bool(self.allow_dependency_failures),
            rate_limit=(self.rate_limit_key, self.rate_limit_concurrency) if limited else None,  # type: ignore[arg-type]
        )

    def save(self, pipeline: Pipeline | None = None, include_meta: bool = True, include_result: bool = True) -> None:
        """Write the hash. Leaving `meta` out keeps what the job itself may have written meanwhile."""
        fields = self.to_dict(include_meta=include_meta, include_result=include_result)
        self._client(pipeline).hset(self.key, mapping=fields)

    def get_meta(self, refresh: bool = True) -> dict[str, Any]:
        """The user's metadata, read again unless told otherwise."""
        if refresh:
            stored = self.connection.hget(self.key, 'meta')
            self.meta = self.serializer.loads(stored) if stored else {}  # type: ignore[arg-type]
        return self.meta

    def save_meta(self) -> None:
        """Write `meta`, and nothing else."""
        self.connection.hset(self.key, 'meta', self._serialize_meta())

    def _client(self, pipeline: Pipeline | None) -> Any:
        return self.connection if pipeline is None else pipeline

    def cleanup(self, ttl: int | None = None, pipeline: Pipeline | None = None, remove_from_queue: bool = True) -> None:
        """Have the job go away after `ttl` seconds: at once for 0, never for a negative number or None."""
        if ttl == 0:
            self.delete(pipeline=pipeline, remove_from_queue=remove_from_queue)
        elif ttl is not None and ttl > 0:
            client = self._client(pipeline)
            for key in (self.key, self.dependents_key, self.dependencies_key):
                client.expire(key, ttl)

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
            _stop_reading(pipeline)
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

    # ---- dependencies ----

    @property
    def _dependency_id(self) -> str | None:
        """Other packages read it."""
        return self._dependency_ids[0] if self._dependency_ids else None

    @property
    def dependency(self) -> Job | None:
        """The first job that this one waits for, fetched once; NoSuchJobError if it is gone."""
        dependency_id = self._dependency_id
        if dependency_id is None:
            return None
        if '_dependency' not in self.__dict__:
            self._dependency = self.fetch(dependency_id, connection=self.connection, serializer=self.serializer)
        return self._dependency

    @property
    def dependent_ids(self) -> list[str]:
        """Ids of the jobs that wait for this one."""
        return [as_text(member) for member in self.connection.smembers(self.dependents_key)]

    @property
    def dependency_ids(self) -> list[str]:
        """Ids of the jobs that this one waits for, as Redis has them."""
        return [as_text(member) for member in self.connection.smembers(self.dependencies_key)]

    def fetch_dependencies(self, watch: bool = False, pipeline: Pipeline | None = None) -> list[Self]:
        """The jobs that this one waits for, without those that are gone; if asked, WATCHed by the pipeline."""
        if watch and self._dependency_ids:
            self._client(pipeline).watch(*map(self.key_for, self._dependency_ids))
        found = self.fetch_many(self._dependency_ids, connection=self.connection, serializer=self.serializer)
        return [job for job in found if job is not None]

    def register_dependency(self, pipeline: Pipeline | None = None) -> None:
        """Write what this job waits for, and that it waits. `Queue.enqueue_job` does all that in one step."""
        client = self._client(pipeline)
        client.zadd(keys.registry('deferred', self.origin), {self.id: current_timestamp()})
        for dependency_id in self._dependency_ids:
            client.sadd(self.dependents_key_for(dependency_id), self.id)
            client.sadd(self.dependencies_key, dependency_id)

    def dependencies_are_met(
        self,
        parent_job: Job | None = None,
        pipeline: Pipeline | None = None,
        exclude_job_id: str | None = None,
        refresh_job_status: bool = True,
    ) -> bool:
        """Whether all that this job waits for has finished, or is gone, or has failed if that is allowed.

        `parent_job` has just ended: only being canceled, stopped, or failed when that is not allowed counts
        against it. `exclude_job_id` is not looked at. A pipeline WATCHes the dependencies.
        """
        reader = self._client(pipeline)
        if pipeline is not None and self._dependency_ids:
            reader.watch(*map(self.key_for, self._dependency_ids))
        ids = {as_text(member) for member in reader.smembers(self.dependencies_key)}
        ids.discard(exclude_job_id or '')
        if parent_job is not None and parent_job.id != exclude_job_id:
            ids.discard(parent_job.id)
            if not self._lets_run(parent_job.get_status(refresh=refresh_job_status)):
                return False
        with self.connection.pipeline(transaction=False) as statuses:
            for dependency_id in ids:
                statuses.hget(self.key_for(dependency_id), 'status')
            found = [JobStatus(as_text(status)) for status in statuses.execute() if status]
        return all(status in self._met_statuses() for status in found)

    def _met_statuses(self) -> set[JobStatus]:
        return {JobStatus.FINISHED, JobStatus.FAILED} if self.allow_dependency_failures else {JobStatus.FINISHED}

    def _lets_run(self, parent_status: JobStatus) -> bool:
        ended_badly = {JobStatus.CANCELED, JobStatus.STOPPED, JobStatus.FAILED}
        return parent_status not in ended_badly or parent_status in self._met_statuses()

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

    # ---- for workers written for RQ ----

    def get_retry_interval(self) -> int:
        """Seconds to wait before the next retry."""
        if not self.retry_intervals:
            return 0
        return self.retry_intervals[max(len(self.retry_intervals) - (self.retries_left or 0), 0)]

    @property
    def should_retry(self) -> bool:
        """Whether there are retries left."""
        return self.retries_left is not None and self.retries_left > 0

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Use a retry: queue the job again, or schedule it if its `Retry` has an interval."""
        if not self.should_retry:
            raise InvalidJobOperation(f'Cannot retry job {self.id}: it has no retries left')
        interval = self.get_retry_interval()
        self.retries_left = (self.retries_left or 0) - 1
        self._run_again(queue, pipeline, interval, {'retries_left': self.retries_left})

    def _handle_retry_result(
        self,
        queue: Queue,
        pipeline: Pipeline,
        retry: Retry,
        execution_id: str,
        execution_started_at: datetime,
        execution_ended_at: datetime,
        worker_name: str = '',
    ) -> None:
        """Run again because the job returned a `Retry`, which becomes its newest result."""
        Result.create_retried(
            self, self.failure_ttl, retry, worker_name, execution_id, execution_started_at, execution_ended_at, pipeline
        )
        interval = Retry.get_interval(self.number_of_retries or 0, retry.intervals)
        self.number_of_retries = (self.number_of_retries or 0) + 1
        self.enqueue_at_front_on_retry = self.enqueue_at_front_on_retry or retry.enqueue_at_front
        self._run_again(queue, pipeline, interval, {'number_of_retries': self.number_of_retries})

    def _run_again(self, queue: Queue, pipeline: Pipeline, interval: int, counters: Mapping[str, int]) -> None:
        due = now() + timedelta(seconds=interval) if interval else None
        fields = {**counters, 'enqueue_at_front_on_retry': int(self.enqueue_at_front_on_retry)}
        started, ended = self._run_times()
        outcome = transitions.Retried(
            self.id,
            '',
            queue.name,
            None if due is None else int(due.timestamp()),
            self.enqueue_at_front_on_retry,
            started.timestamp(),
            ended.timestamp(),
            utcformat(ended),
            fields,
            rate_limit=self.rate_limit_key or '' if self.has_rate_limit else '',
        )
        transitions.retry(pipeline, '', [outcome])
        self._status = JobStatus.SCHEDULED if due else JobStatus.QUEUED
        self.log.info('Job %s: %s for retry', self.id, f'scheduled at {due}' if due else 'enqueued')

    def _run_times(self) -> tuple[datetime, datetime]:
        ended = self.ended_at or now()
        return self.started_at or ended, ended

    def _handle_success(
        self,
        result_ttl: int,
        pipeline: Pipeline,
        worker_name: str = '',
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        """Record that the job has finished with `_result`."""
        started, ended = self._run_times()
        self._status = JobStatus.FINISHED
        outcome = transitions.Finished(
            self.id,
            '',
            self.origin,
            result_ttl,
            (execution_started_at or started).timestamp(),
            (execution_ended_at or ended).timestamp(),
            utcformat(ended),
            encode_return_value(self.serializer, self._result),
        )
        transitions.finish(pipeline, '', [outcome])

    def _handle_failure(
        self,
        exc_string: str,
        pipeline: Pipeline,
        worker_name: str = '',
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        """Record that the job has failed for good."""
        started, ended = self._run_times()
        self._status = JobStatus.FAILED
        outcome = transitions.Failed(
            self.id,
            '',
            self.origin,
            JobStatus.FAILED.value,
            Result.Type.FAILED.value,
            _or_default(self.failure_ttl, DEFAULT_FAILURE_TTL),
            True,
            (execution_started_at or started).timestamp(),
            (execution_ended_at or ended).timestamp(),
            utcformat(ended),
            encode_exc_string(exc_string),
        )
        transitions.fail(pipeline, '', [outcome])


def _has_data(raw: job_hash.RawHash) -> bool:
    return b'data' in raw or 'data' in raw


def _or_default(value: T | None, default: D) -> T | D:
    return default if value is None else value


def _positional(by_position: Any, by_name: Any) -> list[Any] | tuple[Any, ...]:
    """The arguments of the call. A bare string is refused by name, where RQ refuses it, and taken by position, where
    RQ's own documentation passes it."""
    if by_position is not None and by_name is not None:
        raise TypeError("Job.create() got multiple values for argument 'args'")
    if isinstance(by_position, str):
        return (by_position,)
    args = by_name if by_position is None else by_position
    if args is None:
        return ()
    if not isinstance(args, (list, tuple)):
        raise TypeError(f'args must be a list or tuple, not {args!r}: a single argument is (value,)')
    return args


def _named(kwargs: Any) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, dict):
        raise TypeError(f'kwargs must be a dict, not {kwargs!r}')
    return kwargs


def _checked_webhooks(webhooks: Any) -> list[Webhook]:
    if not isinstance(webhooks, Sequence) or not all(isinstance(webhook, Webhook) for webhook in webhooks):
        raise TypeError(f'webhooks must be a sequence of Webhook instances, not {webhooks!r}')
    return list(webhooks)


def _name_of(serializer: Any) -> str:
    return getattr(serializer, '__name__', None) or type(serializer).__name__


def _in_one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def _stop_reading(pipeline: Pipeline) -> None:
    """Have a pipeline that watches keys queue what comes next, instead of running it at once."""
    if pipeline.watching and not pipeline.explicit_transaction:
        pipeline.multi()


_SPECIAL_FIELDS: tuple[tuple[str, _StoredField], ...] = (
    ('_data', _StoredData(job_hash.DATA)),
    ('meta', _StoredMeta(job_hash.META)),
    ('_result', _StoredResult(job_hash.RESULT)),
    ('_exc_info', _StoredField(job_hash.EXC_INFO)),
    ('interruptions', _StoredField(job_hash.INTERRUPTIONS)),
    ('webhooks', _StoredWebhooks(next(field for field in job_hash.FIELDS if field.name == 'webhooks'))),
)

Job.connection = _DefaultConnection()  # type: ignore[assignment]
for _field in job_hash.FIELDS:
    setattr(Job, _field.attribute, _StoredField(_field))
for _attribute, _stored in _SPECIAL_FIELDS:
    setattr(Job, _attribute, _stored)

_CALL_PARTS = frozenset({'_func_name', '_instance', '_args', '_kwargs'})

#: What goes when a hash is read again. `_result` and `_exc_info` stay unless the hash has them.
_MOSTLY_ABSENT = (
    (b'result_ttl', 'result_ttl'),
    (b'rate_limit_key', 'rate_limit_key'),
    (b'repeats_left', 'repeats_left'),
    (b'success_callback_name', '_success_callback_name'),
)
_CACHED_ATTRIBUTES = (
    _CALL_PARTS
    | {field.attribute for field in job_hash.FIELDS}
    | {
        '_data',
        'meta',
        '_unreadable_meta',
        'interruptions',
        '_dependency',
        '_cached_result',
        '_success_callback',
        '_failure_callback',
        '_stopped_callback',
    }
)
