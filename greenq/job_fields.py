"""A job as an object: its id, and the fields of its hash as attributes, each decoded when it is first read.

Redis is never asked here: what was read of the hash is handed in.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from greenq.connections import resolve_connection
from greenq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import job_hash
from greenq.store.job_hash import Interruption
from greenq.store.states import JobStatus
from greenq.utils import random_uuid
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis

UNEVALUATED: Any = object()
"""Stands for what was not computed yet, as in RQ."""

T = TypeVar('T')
D = TypeVar('D')

_JOB_ID = re.compile(r'[A-Za-z0-9_-]+')


def parse_job_id(job_or_execution_id: str) -> str:
    """The job's id, from itself or from an execution's composite key."""
    return job_or_execution_id.partition(':')[0]


def validate_job_id(job_id: str) -> None:
    """TypeError or ValueError for what cannot be a job's id."""
    if not isinstance(job_id, str):
        raise TypeError(f'Job ID must be a string, not {type(job_id).__name__}: {job_id!r}')
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f'Job ID must only contain letters, numbers, underscores and dashes, not {job_id!r}')


def or_default(value: T | None, default: D) -> T | D:
    """The value of a field that may be unset."""
    return default if value is None else value


class _StoredField:
    """Decodes an attribute from the job's hash when it is first asked for. Afterwards it is a plain attribute."""

    def __init__(self, field: job_hash.Field) -> None:
        self.field = field
        self._attribute = field.attribute

    def __get__(self, job: JobFields | None, owner: type[JobFields]) -> Any:
        if job is None:
            return self
        value = job.__dict__[self._attribute] = self.read(job)
        return value

    def read(self, job: JobFields) -> Any:
        return self.field.read(job._raw, job._id)


class _StoredData(_StoredField):
    def read(self, job: JobFields) -> Any:
        data = self.field.read(job._raw, job._id)
        return UNEVALUATED if data is None else data


class _StoredMeta(_StoredField):
    def read(self, job: JobFields) -> Any:
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
    def read(self, job: JobFields) -> Any:
        stored = super().read(job)
        if stored is None:
            return None
        try:
            return job.serializer.loads(stored)
        except Exception:
            return UNSERIALIZABLE_RETURN_VALUE_PAYLOAD


class _StoredWebhooks(_StoredField):
    def read(self, job: JobFields) -> Any:
        try:
            return super().read(job)
        except ValueError:
            # Losing a notification is better than losing the job.
            job.log.warning('Job %s: failed to deserialize webhooks', job.id, exc_info=True)
            return []


class _DefaultConnection:
    """The configured connection, for a job that was given none; made when it is needed."""

    def __get__(self, job: JobFields | None, owner: type[JobFields]) -> Any:
        if job is None:
            return self
        connection = job.__dict__['connection'] = resolve_connection(None)
        return connection


class JobFields:
    """What a job knows of itself. `_raw` is its hash, as far as it was read."""

    log = logging.getLogger('greenq.job')

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

    #: Attributes that are forgotten when the hash is read again; a subclass adds those that it derives from it.
    #: `_result` and `_exc_info` are not among them: they stay unless the hash has them.
    _cached_attributes: ClassVar[frozenset[str]] = frozenset(
        {field.attribute for field in job_hash.FIELDS} | {'_data', 'meta', '_unreadable_meta', 'interruptions'}
    )

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

    @property
    def id(self) -> str:
        """The job's id, made up when it is first needed. TypeError or ValueError for setting what cannot be one."""
        if self._id is None:
            self._id = random_uuid()
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        validate_job_id(value)
        self._id = value

    # ---- what follows from the fields ----

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
        return or_default(self.ttl, default_ttl)

    def get_result_ttl(self, default_ttl: int) -> int:
        """Seconds that its result is kept."""
        return or_default(self.result_ttl, default_ttl)

    # ---- taking over a hash ----

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
        for name in self._cached_attributes & state.keys():
            del state[name]
        for field in (job_hash.RESULT, job_hash.EXC_INFO):
            # What this process has just computed is in no hash any more.
            if field.attribute in state and field.find(raw_data):
                del state[field.attribute]


_MOSTLY_ABSENT = (
    (b'result_ttl', 'result_ttl'),
    (b'rate_limit_key', 'rate_limit_key'),
    (b'repeats_left', 'repeats_left'),
    (b'success_callback_name', '_success_callback_name'),
)

_SPECIAL_FIELDS: tuple[tuple[str, _StoredField], ...] = (
    ('_data', _StoredData(job_hash.DATA)),
    ('meta', _StoredMeta(job_hash.META)),
    ('_result', _StoredResult(job_hash.RESULT)),
    ('_exc_info', _StoredField(job_hash.EXC_INFO)),
    ('interruptions', _StoredField(job_hash.INTERRUPTIONS)),
    ('webhooks', _StoredWebhooks(next(field for field in job_hash.FIELDS if field.name == 'webhooks'))),
)

JobFields.connection = _DefaultConnection()  # type: ignore[assignment]
for _field in job_hash.FIELDS:
    setattr(JobFields, _field.attribute, _StoredField(_field))
for _attribute, _stored in _SPECIAL_FIELDS:
    setattr(JobFields, _attribute, _stored)
