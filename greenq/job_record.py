"""A job as its record in Redis: found, read again, asked for its status, written.

Where a job is, in a queue or a registry, is not changed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from greenq.connections import resolve_connection
from greenq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from greenq.exceptions import InvalidJobOperation, NoSuchJobError
from greenq.job_call import JobCall
from greenq.job_fields import parse_job_id
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import job_hash, keys, transitions
from greenq.store.states import JobStatus
from greenq.utils import as_text, decode_redis_hash, deflate

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


def in_transaction(pipeline: Pipeline) -> Pipeline:
    """The caller's pipeline, past the phase in which a watching one runs each command at once."""
    if pipeline.watching and not pipeline.explicit_transaction:
        pipeline.multi()
    return pipeline


class JobRecord(JobCall):
    """One hash, and the sets of what it waits for and what waits for it."""

    redis_job_namespace_prefix = keys.job('')

    # ---- identity ----

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

    # ---- finding one ----

    @classmethod
    def from_hash(
        cls, job_id: str, raw: job_hash.RawHash, connection: Redis | None, serializer: Serializer | None = None
    ) -> Self:
        """The job of a hash that was read already. Nothing is decoded, so this is cheap, and damage shows later."""
        if cls.__init__ is JobRecord.__init__ and connection is not None and serializer is not None:
            # The constructor would check all three anew.
            job = cls.__new__(cls)
            job.connection = connection
        else:
            job = cls(None, connection)
        job._id = job_id
        if serializer is not None:
            job.serializer = serializer
        if cls.restore is JobRecord.restore:
            # A new object has no values that would have to be forgotten.
            job._check_has_data(raw)
            job._adopt(raw)
        else:
            job.restore(raw)
        return job

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
        data = self._stored_data()
        fields = self._stored_fields() if self._raw else job_hash.of_new_job(self.__dict__)
        fields['data'] = data
        if self._dependency_ids:
            fields['dependency_id'] = self._dependency_ids[0]
        if include_meta and self.meta:
            fields['meta'] = self._serialize_meta()
        if include_result:
            self._add_result(fields)
        return fields

    def _stored_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        state, raw = self.__dict__, self._raw
        for field in job_hash.FIELDS:
            if field.attribute in state or field.always or field.find(raw):
                field.write(fields, getattr(self, field.attribute))
        return fields

    def _stored_data(self) -> bytes:
        if '_data' not in self.__dict__ and isinstance(stored := job_hash.DATA.find(self._raw), bytes):
            return stored
        return deflate(self.data)

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
        return self._dump(
            self.meta, f'Job {self.id}', lambda: {f'meta {name!r}': value for name, value in self.meta.items()}
        )

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


def _has_data(raw: job_hash.RawHash) -> bool:
    return b'data' in raw or 'data' in raw
