"""A queue as Redis has it: a list of ids under a name; what waits in it, and taking that out or deleting it.

Putting jobs in is not done here, but for a bare id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import total_ordering
from typing import TYPE_CHECKING, Any, Self

from greenq.connections import resolve_connection
from greenq.exceptions import NoSuchJobError
from greenq.intermediate_queue import IntermediateQueue
from greenq.job import Job
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import keys, transitions
from greenq.timeouts import BaseDeathPenalty, UnixSignalDeathPenalty
from greenq.utils import as_text, get_version, import_attribute, split_list

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_IDS_PER_READ = 1000


@total_ordering
class QueueRecord:
    """One list, and the classes and the serializer by which its jobs are read."""

    job_class: type[Job] = Job
    death_penalty_class: type[BaseDeathPenalty] = UnixSignalDeathPenalty
    redis_queue_namespace_prefix: str = keys.queue('')
    redis_queues_keys: str = keys.queues()
    log = logging.getLogger('greenq.queue')

    @classmethod
    def all(
        cls,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> list[Self]:
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
    ) -> Self:
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
        *,
        job_class: str | type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> None:
        self.connection: Redis = resolve_connection(connection)
        self.name = name
        self._key = f'{self.redis_queue_namespace_prefix}{name}'
        if job_class is not None:
            self.job_class = import_attribute(job_class) if isinstance(job_class, str) else job_class
        if death_penalty_class is not None:
            self.death_penalty_class = death_penalty_class
        self.serializer = resolve_serializer(serializer)

    # ---- what it is ----

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Self]:
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


def _name_of(other: object) -> str:
    if not isinstance(other, QueueRecord):
        raise TypeError(f'Cannot compare queues to other objects, such as {other!r}: compare names')
    return other.name


def _id_of(job_or_id: Job | str) -> str:
    return job_or_id if isinstance(job_or_id, str) else job_or_id.id
