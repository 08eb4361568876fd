"""One attempt at a job, as its record in Redis, and the attempts of a job that run now. Claiming is the store's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from greenq.connections import resolve_connection
from greenq.job import Job
from greenq.registry import BaseRegistry, StartedJobRegistry
from greenq.serializers import resolve_serializer
from greenq.store import keys
from greenq.utils import as_text, current_timestamp, decode_redis_hash, now, parse_composite_key

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

# The list of attempts outlives their records by so much, and so does a worker's index of them.
_MARGIN_SECONDS = 60


class Execution:
    """One attempt at a job: by which worker, since when, and when it last was alive."""

    #: Whether the job's own code has begun to run, in this process.
    has_begun = False

    def __init__(self, id: str, job_id: str, connection: Redis | None = None, worker_name: str = '') -> None:
        self.id = id
        self.job_id = job_id
        self.connection = resolve_connection(connection)
        self.worker_name = worker_name
        self.created_at = self.last_heartbeat = now()
        self.queue_name = ''
        self._job: Job | None = None

    @classmethod
    def claimed(
        cls, id: str, job_id: str, connection: Redis, worker_name: str, queue_name: str, created_at: datetime
    ) -> Self:
        """The execution that a claim has begun; made without the checks of the constructor, thousands a second."""
        execution = cls.__new__(cls)
        execution.id = id
        execution.job_id = job_id
        execution.connection = connection
        execution.worker_name = worker_name
        execution.queue_name = queue_name
        execution.created_at = execution.last_heartbeat = created_at
        execution._job = None
        return execution

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Execution) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f'Execution({self.composite_key!r}, worker_name={self.worker_name!r})'

    @property
    def composite_key(self) -> str:
        """`job_id:execution_id`, under which it is listed among the running."""
        return f'{self.job_id}:{self.id}'

    @property
    def key(self) -> str:
        """Key of its hash."""
        return keys.execution(self.composite_key)

    @property
    def worker_executions_key(self) -> str:
        """Key of the set of what its worker runs."""
        return keys.worker_executions(self.worker_name)

    @property
    def job(self) -> Job:
        """The job, fetched once; NoSuchJobError if it is gone."""
        if self._job is None:
            self._job = Job.fetch(self.job_id, connection=self.connection)
        return self._job

    @classmethod
    def from_composite_key(cls, composite_key: str, connection: Redis | None = None) -> Self:
        """The execution that `job_id:execution_id` names; nothing is read."""
        job_id, execution_id = parse_composite_key(composite_key)
        return cls(execution_id, job_id, connection)

    @classmethod
    def fetch(cls, id: str, job_id: str, connection: Redis | None = None) -> Self:
        """The stored execution; ValueError if there is none."""
        execution = cls(id, job_id, connection)
        execution.refresh()
        return execution

    def refresh(self) -> None:
        """Read the hash again; ValueError if it is gone."""
        raw = self.connection.hgetall(self.key)
        if not raw:
            raise ValueError(f'Execution {self.id} of job {self.job_id} not found in Redis: it has ended')
        self.restore(raw)

    def restore(self, data: Mapping[Any, Any]) -> None:
        """Take over the values of a hash. Old ones have neither job id nor worker name."""
        fields = decode_redis_hash(data, decode_values=True)
        self.job_id = fields.get('job_id') or self.job_id
        self.worker_name = fields.get('worker_name', '')
        self.created_at = datetime.fromtimestamp(float(fields['created_at']), tz=UTC)
        self.last_heartbeat = datetime.fromtimestamp(float(fields['last_heartbeat']), tz=UTC)

    def serialize(self) -> dict[Any, Any]:
        """The fields of the hash."""
        return {
            'id': self.id,
            'job_id': self.job_id,
            'created_at': self.created_at.timestamp(),
            'last_heartbeat': self.last_heartbeat.timestamp(),
            'worker_name': self.worker_name,
        }

    @classmethod
    def create(cls, job: Job, ttl: int, pipeline: Pipeline, worker_name: str = '') -> Self:
        """Record that a worker begins to run `job`; without a heartbeat the record expires after `ttl` seconds."""
        execution = cls(uuid4().hex, job.id, job.connection, worker_name)
        execution._job = job
        execution.save(ttl, pipeline)
        ExecutionRegistry(job.id, job.connection).add(execution, ttl, pipeline)
        pipeline.zadd(keys.registry('started', job.origin), {execution.composite_key: current_timestamp() + ttl})
        if worker_name:
            pipeline.sadd(execution.worker_executions_key, execution.composite_key)
            pipeline.expire(execution.worker_executions_key, ttl + _MARGIN_SECONDS)
        return execution

    def save(self, ttl: int, pipeline: Pipeline | None = None) -> None:
        """Write the hash, to expire after `ttl` seconds."""
        client = self.connection if pipeline is None else pipeline
        client.hset(self.key, mapping=self.serialize())
        client.expire(self.key, ttl)

    def heartbeat(self, started_job_registry: StartedJobRegistry, ttl: int, pipeline: Pipeline) -> None:
        """Record that it is alive, for another `ttl` seconds. What has ended meanwhile is not brought back."""
        self.last_heartbeat = now()
        pipeline.hset(self.key, 'last_heartbeat', self.last_heartbeat.timestamp())
        pipeline.expire(self.key, ttl)
        pipeline.zadd(started_job_registry.key, {self.composite_key: current_timestamp() + ttl}, xx=True)
        ExecutionRegistry(self.job_id, self.connection).add(self, ttl, pipeline, xx=True)

    def delete(self, job: Job, pipeline: Pipeline) -> None:
        """Remove every trace of it."""
        pipeline.delete(self.key)
        pipeline.zrem(keys.registry('started', job.origin), self.composite_key)
        ExecutionRegistry(self.job_id, self.connection).remove(self, pipeline)
        if self.worker_name:
            pipeline.srem(self.worker_executions_key, self.composite_key)


class ExecutionRegistry(BaseRegistry):
    """The attempts at one job that run now, scored by when they count as dead."""

    def __init__(self, job_id: str, connection: Redis | None = None) -> None:
        self.job_id = self.name = job_id
        self.connection = resolve_connection(connection)
        self.serializer = resolve_serializer(None)
        self.key = keys.executions(job_id)

    def cleanup(
        self, timestamp: float | None = None, exception_handlers: Sequence[Callable[..., Any]] | None = None
    ) -> None:
        """Forget those that died before `timestamp`, by default before now."""
        self._cleanup(self.connection, timestamp)

    def _cleanup(self, client: Any, timestamp: float | None = None) -> None:
        client.zremrangebyscore(self.key, 0, current_timestamp() if timestamp is None else timestamp)

    def add(  # type: ignore[override]
        self, execution: Execution, ttl: int, pipeline: Pipeline, xx: bool = False
    ) -> None:
        """List an execution, for `ttl` seconds and a margin; with `xx` only if it is listed already."""
        pipeline.zadd(self.key, {execution.id: current_timestamp() + ttl + _MARGIN_SECONDS}, xx=xx)
        pipeline.expire(self.key, ttl + _MARGIN_SECONDS)

    def remove(self, execution: Execution, pipeline: Pipeline) -> Any:  # type: ignore[override]
        """Take an execution off the list."""
        return pipeline.zrem(self.key, execution.id)

    def get_execution_ids(self, start: int = 0, end: int = -1) -> list[str]:
        """Ids of those that are alive, the one that will be taken for dead first at the front."""
        with self.connection.pipeline() as pipeline:
            self._cleanup(pipeline)
            pipeline.zrange(self.key, start, end)
            return [as_text(execution_id) for execution_id in pipeline.execute()[-1]]

    def get_executions(self, start: int = 0, end: int = -1) -> list[Execution]:
        """Those that are alive, in the same order: two round trips, however many there are."""
        executions = [
            Execution(execution_id, self.job_id, self.connection) for execution_id in self.get_execution_ids(start, end)
        ]
        with self.connection.pipeline(transaction=False) as pipeline:
            for execution in executions:
                pipeline.hgetall(execution.key)
            hashes = pipeline.execute()
        found = [(execution, raw) for execution, raw in zip(executions, hashes, strict=True) if raw]
        for execution, raw in found:
            execution.restore(raw)
        return [execution for execution, _ in found]

    def delete(self, job: Job, pipeline: Pipeline) -> None:
        """Remove every trace of all of them."""
        for execution in self.get_executions():
            execution.delete(job, pipeline)
        pipeline.delete(self.key)
