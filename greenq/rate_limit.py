"""Rate limits: how many jobs of one key may be queued or running at the same time. Slots are moved by the store."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from greenq.connections import resolve_connection
from greenq.store import keys, transitions
from greenq.store.states import JobStatus
from greenq.utils import as_text, current_timestamp

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.job import Job


class RateLimit:
    """At most `concurrency` jobs enqueued with the same `key` are queued or running at once; the others wait.

    ValueError for an empty key or a concurrency that is no integer of at least 1.
    """

    def __init__(self, key: str, concurrency: int) -> None:
        if not key:
            raise ValueError(f'key must not be empty, got {key!r}: name what is limited')
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f'concurrency must be an integer of at least 1, got {concurrency!r}')
        self.key = key
        self.concurrency = concurrency

    def __repr__(self) -> str:
        return f'{type(self).__name__}(key={self.key!r}, concurrency={self.concurrency!r})'


class RateLimitRegistry:
    """The jobs that a rate limit has let through, and those that it holds back, oldest first."""

    rl_keys_key = keys.rate_limits()

    def __init__(self, key: str, connection: Redis | None = None) -> None:
        self.key = key
        self.connection: Redis = resolve_connection(connection)

    @classmethod
    def all(cls, connection: Redis | None = None) -> list[RateLimitRegistry]:
        """Every rate limit that is in use."""
        connection = resolve_connection(connection)
        return [cls(as_text(key), connection) for key in connection.smembers(cls.rl_keys_key)]

    @classmethod
    def from_job(cls, job: Job) -> RateLimitRegistry:
        """The registry of the job's rate limit; ValueError if it has none."""
        if not job.rate_limit_key:
            raise ValueError(f'Job {job.id} has no rate limit: enqueue it with rate_limit=')
        return cls(job.rate_limit_key, job.connection)

    @property
    def config_key(self) -> str:
        """Redis key of the settings."""
        return keys.rate_limit(self.key)

    @property
    def allowed_key(self) -> str:
        """Redis key of the jobs that were let through."""
        return keys.rate_allowed(self.key)

    @property
    def rate_limited_key(self) -> str:
        """Redis key of the jobs that are held back."""
        return keys.rate_limited(self.key)

    @property
    def concurrency(self) -> int:
        """How many jobs it lets through; 0 if it is not registered. The newest job's setting holds."""
        return int(self.connection.hget(self.config_key, 'concurrency') or 0)

    def get_allowed_job_ids(self) -> list[str]:
        """The ids that were let through, oldest first."""
        return self._ids(self.allowed_key)

    def get_rate_limited_job_ids(self) -> list[str]:
        """The ids that are held back, oldest first."""
        return self._ids(self.rate_limited_key)

    def _ids(self, key: str) -> list[str]:
        members: Any = self.connection.zrange(key, 0, -1)
        return [as_text(job_id) for job_id in members]

    def get_allowed_job_count(self) -> int:
        """How many were let through."""
        return int(self.connection.zcard(self.allowed_key))

    def get_rate_limited_job_count(self) -> int:
        """How many are held back."""
        return int(self.connection.zcard(self.rate_limited_key))

    def register(self, concurrency: int, pipeline: Pipeline) -> None:
        """Store the settings."""
        pipeline.sadd(self.rl_keys_key, self.key)
        pipeline.hset(self.config_key, 'concurrency', concurrency)

    def add_to_rate_limited(self, job_id: str, pipeline: Pipeline, timestamp: float | None = None) -> None:
        """Hold a job back, as of `timestamp` (epoch seconds; default: now)."""
        pipeline.zadd(self.rate_limited_key, {job_id: current_timestamp() if timestamp is None else timestamp})

    def acquire_and_enqueue(
        self, concurrency: int, enqueued_at: datetime | None = None, pipeline: Pipeline | None = None
    ) -> list[str]:
        """Let waiting jobs through up to a concurrency, which is stored; returns their ids, with a pipeline [].

        `enqueued_at` is accepted for RQ's sake: the jobs are enqueued now.
        """
        if pipeline is not None:
            self._fill(concurrency, pipeline)
            return []
        with self.connection.pipeline() as own:
            self._fill(concurrency, own)
            return [as_text(job_id) for job_id in own.execute()[-1]]

    def _fill(self, concurrency: int, pipeline: Pipeline) -> None:
        self.register(concurrency, pipeline)
        transitions.free_rate_slot(pipeline, self.key)

    def release_and_enqueue(self, job_id: str) -> list[str]:
        """Give a job's slot back and let waiting jobs through; returns their ids."""
        return transitions.free_rate_slot(self.connection, self.key, job_id)

    def release_stale_and_enqueue(self, job_id: str) -> list[str]:
        """The same if the job is neither queued nor started, and nobody runs it; else nothing."""
        return transitions.free_rate_slot(self.connection, self.key, job_id, only_stale=True)

    def cancel(self, job_id: str, pipeline: Pipeline | None = None) -> list[str]:
        """Forget a job that was canceled or deleted; returns the ids let through in its place.

        With a pipeline it only leaves those held back: its slot is given back at its end, or at the next cleanup.
        """
        if pipeline is not None:
            pipeline.zrem(self.rate_limited_key, job_id)
            return []
        self.connection.zrem(self.rate_limited_key, job_id)
        return self.release_stale_and_enqueue(job_id)

    def cleanup(self) -> None:
        """Take back the slots of jobs that have ended, hand them on, and forget the limit if no job uses it."""
        job_ids = self.get_allowed_job_ids()
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(keys.job(job_id), 'status')
            statuses: list[Any] = pipeline.execute()
            for job_id, status in zip(job_ids, statuses, strict=True):
                if status not in (b'queued', b'started'):
                    # The script looks again, because the job may have come back by now.
                    transitions.free_rate_slot(pipeline, self.key, job_id, only_stale=True)
            transitions.free_rate_slot(pipeline, self.key)
            transitions.clean_rate_limit(pipeline, self.key)
            pipeline.execute()


def release_slot(job: Job) -> list[str]:
    """Give the slot of a job back unless it is queued or started as far as `job` knows; returns the ids let through."""
    if not job.has_rate_limit or job.get_status(refresh=False) in (JobStatus.QUEUED, JobStatus.STARTED):
        return []
    return RateLimitRegistry.from_job(job).release_and_enqueue(job.id)
