"""What an execution left behind: one entry of a job's stream of results, and how its values are encoded."""

from __future__ import annotations

import time
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_FAILURE_TTL, UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from greenq.exceptions import DeserializationError
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import keys
from greenq.utils import as_text, decode_redis_hash, now

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.job_record import JobRecord

_KEPT_PER_JOB = 10

# A tenth of the time is spared there; nobody waits for a stored traceback to be small.
_COMPRESSION_LEVEL = 1


def encode_return_value(serializer: Serializer, value: Any) -> bytes:
    """The field `return_value`: empty for None, a fixed text for what the serializer refuses."""
    if value is None:
        return b''
    try:
        serialized = serializer.dumps(value)
    except Exception:
        serialized = serializer.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD)
    return b2a_base64(serialized, newline=False)


def encode_exc_string(text: str) -> bytes:
    """The field `exc_string`."""
    # A traceback may quote source that is no valid Unicode, which must not keep the failure from being recorded.
    return b2a_base64(zlib.compress(text.encode('utf-8', 'backslashreplace'), _COMPRESSION_LEVEL), newline=False)


def decode_exc_string(field: bytes | str) -> str:
    """The reverse of `encode_exc_string`."""
    return zlib.decompress(a2b_base64(field)).decode()


class Result:
    """How one execution of a job ended. Times are aware, in UTC; those of old results are None."""

    class Type(Enum):
        """The way it ended."""

        SUCCESSFUL = 1
        FAILED = 2
        STOPPED = 3
        RETRIED = 4
        MAX_RETRIES_EXCEEDED = 5

    #: What was stored, of a result that was read back.
    _payload: Mapping[str, bytes] = {}

    def __init__(
        self,
        job_id: str,
        type: Type,
        connection: Redis,
        id: str | None = None,
        created_at: datetime | None = None,
        return_value: Any | None = None,
        exc_string: str | None = None,
        worker_name: str = '',
        serializer: Serializer | str | None = None,
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        self.job_id = job_id
        self.type = type
        self.connection = connection
        self.id = id
        self.created_at = created_at or now()
        if return_value is not None:
            self.return_value = return_value
        if exc_string is not None:
            self.exc_string = exc_string
        self.worker_name = worker_name
        self.serializer = resolve_serializer(serializer)
        self.execution_id = execution_id
        self.execution_started_at = execution_started_at
        self.execution_ended_at = execution_ended_at

    def __repr__(self) -> str:
        return f'Result(id={self.id}, type={self.type.name})'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __bool__(self) -> bool:
        return bool(self.id)

    @cached_property
    def return_value(self) -> Any:
        """What the job returned. DeserializationError, at each attempt, if it cannot be read here."""
        field = self._payload.get('return_value')
        if not field:
            return None
        try:
            return self.serializer.loads(a2b_base64(field))
        except Exception as error:
            raise DeserializationError(
                f'The result {self.id} of job {self.job_id} cannot be read with {self.serializer!r}: {error}'
            ) from error

    @cached_property
    def exc_string(self) -> str | None:
        """The traceback of an execution that failed."""
        field = self._payload.get('exc_string')
        return decode_exc_string(field) if field else None

    # ---- writing ----

    @classmethod
    def create(
        cls,
        job: JobRecord,
        type: Type,
        ttl: int | None,
        return_value: Any = None,
        exc_string: str | None = None,
        worker_name: str = '',
        pipeline: Pipeline | None = None,
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> Result:
        """Store a result of `job`, or queue that if there is a pipeline; `ttl` as in `save`."""
        result = cls(
            job.id,
            type,
            job.connection,
            return_value=return_value,
            exc_string=exc_string,
            worker_name=worker_name,
            serializer=job.serializer,
            execution_id=execution_id,
            execution_started_at=execution_started_at,
            execution_ended_at=execution_ended_at,
        )
        result.save(ttl, pipeline=pipeline)
        return result

    @classmethod
    def create_failure(cls, job: JobRecord, ttl: int | None, exc_string: str, *args: Any, **kwargs: Any) -> Result:
        """Store the traceback of a failure; the other arguments are those of `create`, from `worker_name` on."""
        return cls.create(job, cls.Type.FAILED, ttl, None, exc_string, *args, **kwargs)

    @classmethod
    def create_retried(
        cls,
        job: JobRecord,
        ttl: int | None,
        return_value: Any,
        worker_name: str,
        execution_id: str,
        execution_started_at: datetime,
        execution_ended_at: datetime,
        pipeline: Pipeline | None = None,
    ) -> Result:
        """Store the `Retry` that a job returned to run again."""
        return cls.create(
            job,
            cls.Type.RETRIED,
            ttl,
            return_value,
            None,
            worker_name,
            pipeline,
            execution_id,
            execution_started_at,
            execution_ended_at,
        )

    @classmethod
    def create_max_retries_exceeded(
        cls,
        job: JobRecord,
        ttl: int | None,
        return_value: Any,
        worker_name: str,
        execution_id: str,
        execution_started_at: datetime,
        execution_ended_at: datetime,
        pipeline: Pipeline | None = None,
    ) -> Result:
        """Store the `Retry` that a job returned when it had none left."""
        return cls.create(
            job,
            cls.Type.MAX_RETRIES_EXCEEDED,
            ttl,
            return_value,
            None,
            worker_name,
            pipeline,
            execution_id,
            execution_started_at,
            execution_ended_at,
        )

    def save(self, ttl: int | None, pipeline: Pipeline | None = None) -> str | None:
        """Append this result to the job's stream; returns its id, which a pipeline does not know yet.

        `ttl` is in seconds, -1 keeps the stream forever. None leaves its expiry alone after a success, and else
        stands for a failed job's default: such results outlived their job otherwise.
        """
        if ttl is None and self.type is not Result.Type.SUCCESSFUL:
            ttl = DEFAULT_FAILURE_TTL
        if pipeline is not None:
            self._write(pipeline, ttl)
            return self.id
        with self.connection.pipeline() as own:
            self._write(own, ttl)
            self.id = as_text(own.execute()[0])
        return self.id

    def _write(self, pipeline: Pipeline, ttl: int | None) -> None:
        key = self.get_key(self.job_id)
        pipeline.xadd(key, self.serialize(), maxlen=_KEPT_PER_JOB)
        if ttl == -1:
            pipeline.persist(key)
        elif ttl is not None:
            pipeline.expire(key, ttl)

    def serialize(self) -> dict[Any, Any]:
        """The fields of the stream's entry."""
        fields: dict[Any, Any] = {'type': self.type.value, 'worker_name': self.worker_name}
        if self.exc_string is not None:
            fields['exc_string'] = encode_exc_string(self.exc_string).decode()
        if self.return_value is not None:
            fields['return_value'] = encode_return_value(self.serializer, self.return_value).decode()
        if self.execution_id:
            fields['execution_id'] = self.execution_id
        if self.execution_started_at:
            fields['execution_started_at'] = self.execution_started_at.timestamp()
        if self.execution_ended_at:
            fields['execution_ended_at'] = self.execution_ended_at.timestamp()
        return fields

    # ---- reading ----

    @classmethod
    def get_key(cls, job_id: str) -> str:
        """Key of a job's stream of results."""
        return keys.results(job_id)

    @classmethod
    def all(cls, job: JobRecord, serializer: Serializer | str | None = None) -> list[Result]:
        """Every result that is kept, newest first."""
        return cls._newest(job, serializer, None)

    @classmethod
    def _newest(cls, job: JobRecord, serializer: Serializer | str | None, count: int | None) -> list[Result]:
        entries: Any = job.connection.xrevrange(cls.get_key(job.id), '+', '-', count=count)
        serializer = serializer or job.serializer
        return [cls.restore(job.id, as_text(id), payload, job.connection, serializer) for id, payload in entries]

    @classmethod
    def count(cls, job: JobRecord) -> int:
        """How many results are kept."""
        return int(job.connection.xlen(cls.get_key(job.id)))

    @classmethod
    def delete_all(cls, job: JobRecord) -> None:
        """Forget every result of a job."""
        job.connection.delete(cls.get_key(job.id))

    @classmethod
    def fetch_latest(
        cls, job: JobRecord, serializer: Serializer | str | None = None, timeout: float = 0
    ) -> Result | None:
        """The newest result. If there is none, wait up to `timeout` seconds for the first; then None."""
        if timeout and not cls._wait(job, timeout):
            return None
        newest = cls._newest(job, serializer, 1)
        return newest[0] if newest else None

    @classmethod
    def _wait(cls, job: JobRecord, timeout: float) -> bool:
        """Whether there is a result, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        longest = _longest_block(job.connection)
        while (left := deadline - time.monotonic()) > 0:
            milliseconds = max(1, int(min(left, longest) * 1000))
            if job.connection.xread({cls.get_key(job.id): '0-0'}, count=1, block=milliseconds):
                return True
        return False

    @classmethod
    def restore(
        cls,
        job_id: str,
        result_id: str,
        payload: Mapping[Any, Any],
        connection: Redis,
        serializer: Serializer | str | None = None,
    ) -> Result:
        """The result in an entry of the stream. Its return value and traceback are decoded when they are asked for."""
        fields = decode_redis_hash(payload)
        result = cls(
            job_id,
            cls.Type(int(fields['type'])),
            connection,
            id=result_id,
            created_at=_moment(int(result_id.partition('-')[0]) / 1000),
            worker_name=as_text(fields.get('worker_name') or ''),
            serializer=serializer,
            execution_id=as_text(fields.get('execution_id') or '') or None,
            execution_started_at=_moment(fields.get('execution_started_at')),
            execution_ended_at=_moment(fields.get('execution_ended_at')),
        )
        result._payload = fields
        return result


def _moment(timestamp: bytes | str | float | None) -> datetime | None:
    return datetime.fromtimestamp(float(timestamp), tz=UTC) if timestamp else None


def _longest_block(connection: Redis) -> float:
    """Seconds that a command may block: the client takes a reply later than its socket timeout for a dead server."""
    socket_timeout = connection.connection_pool.connection_kwargs.get('socket_timeout')
    return float(socket_timeout) / 2 if socket_timeout else float('inf')
