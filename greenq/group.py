"""A named set of jobs that are looked at together; the jobs themselves know no more of it than its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import uuid4

from greenq.connections import resolve_connection
from greenq.exceptions import NoSuchGroupError
from greenq.job import Job
from greenq.queue import EnqueueData, Queue
from greenq.serializers import Serializer
from greenq.store import keys
from greenq.utils import as_text, missing_keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


class Group:
    """Jobs under one name; a job leaves when it is deleted or expires, and the group goes with its last job.

    `serializer` is that of the jobs.
    """

    REDIS_GROUP_NAME_PREFIX = keys.group('')
    REDIS_GROUP_KEY = keys.groups()
    REDIS_GROUP_CLEANING_KEY = keys.clean_groups()

    def __init__(
        self, connection: Redis | None = None, name: str | None = None, serializer: Serializer | str | None = None
    ) -> None:
        self.name = name or uuid4().hex
        self.connection: Redis = resolve_connection(connection)
        self.serializer = serializer
        self.key = keys.group(self.name)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(id={self.name})'

    @classmethod
    def create(cls, connection: Redis | None = None, name: str | None = None) -> Group:
        """A group, with a name of its own unless told one. It exists once it has a job."""
        return cls(connection, name)

    @classmethod
    def fetch(cls, name: str, connection: Redis | None = None) -> Group:
        """The group of that name; NoSuchGroupError if it has no jobs."""
        group = cls(connection, name)
        if not group.connection.exists(group.key):
            raise NoSuchGroupError(f'No such group: {name}')
        return group

    @classmethod
    def all(cls, connection: Redis | None = None) -> list[Group]:
        """Every group that has jobs."""
        connection = resolve_connection(connection)
        groups = [cls(connection, as_text(name)) for name in connection.smembers(cls.REDIS_GROUP_KEY)]
        return cls._drop_empty(groups, connection)

    @classmethod
    def _drop_empty(cls, groups: list[Group], connection: Redis) -> list[Group]:
        gone = set(missing_keys(connection, [group.key for group in groups]))
        names = [group.name for group in groups if group.key in gone]
        if names:
            connection.srem(cls.REDIS_GROUP_KEY, *names)
        return [group for group in groups if group.key not in gone]

    @classmethod
    def get_key(cls, name: str) -> str:
        """Redis key of the ids of a group's jobs."""
        return keys.group(name)

    def enqueue_many(
        self, queue: Queue, job_datas: Iterable[EnqueueData], pipeline: Pipeline | None = None
    ) -> list[Job]:
        """Enqueue jobs as members of this group; as `Queue.enqueue_many`."""
        return queue.enqueue_many(job_datas, pipeline=pipeline, group_id=self.name)

    def get_jobs(self) -> list[Job]:
        """The jobs that still exist, in no particular order."""
        job_ids = self._job_ids()
        jobs = Job.fetch_many(job_ids, connection=self.connection, serializer=self.serializer)
        self._forget([job_id for job_id, job in zip(job_ids, jobs, strict=True) if job is None])
        return [job for job in jobs if job is not None]

    def delete_job(self, job_id: str, pipeline: Pipeline | None = None) -> None:
        """Take a job out of the group, without touching the job."""
        client = self.connection if pipeline is None else pipeline
        client.srem(self.key, job_id)

    def cleanup(self) -> None:
        """Drop the ids of jobs that no longer exist."""
        by_key = {Job.key_for(job_id): job_id for job_id in self._job_ids()}
        self._forget([by_key[key] for key in missing_keys(self.connection, list(by_key))])

    def _job_ids(self) -> list[str]:
        return [as_text(job_id) for job_id in self.connection.smembers(self.key)]

    def _forget(self, job_ids: list[str]) -> None:
        if job_ids:
            self.connection.srem(self.key, *job_ids)

    # ---- maintenance ----

    @classmethod
    def acquire_maintenance_lock(cls, connection: Redis, timeout: int) -> bool:
        """Whether the caller is the one to clean all groups, for the next `timeout` seconds."""
        return bool(connection.set(cls.REDIS_GROUP_CLEANING_KEY, 1, nx=True, ex=timeout))

    @classmethod
    def clean_registries(cls, connection: Redis | None = None) -> None:
        """Clean every group and forget those that are empty."""
        connection = resolve_connection(connection)
        groups = cls.all(connection)
        for group in groups:
            group.cleanup()
        cls._drop_empty(groups, connection)
