"""Where RQ workers of a single queue keep an id between dequeueing and starting it.

Greenq never puts anything there; it looks after what dead RQ workers have left.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError

from greenq.connections import resolve_connection
from greenq.store import keys
from greenq.utils import as_text, now

if TYPE_CHECKING:
    from redis import Redis

    from greenq.queue import Queue
    from greenq.worker import BaseWorker

_FIRST_SEEN_SECONDS = 24 * 60 * 60
_PATIENCE = timedelta(minutes=1)


class IntermediateQueue:
    """The intermediate list of the queue with this key."""

    def __init__(self, queue_key: str, connection: Redis | None = None) -> None:
        self.queue_key = queue_key
        self.key = self.get_intermediate_queue_key(queue_key)
        self.connection: Redis = resolve_connection(connection)

    @classmethod
    def get_intermediate_queue_key(cls, queue_key: str) -> str:
        """Redis key of the list, for the key of its queue."""
        return keys.intermediate(queue_key.removeprefix(keys.queue('')))

    def get_job_ids(self) -> list[str]:
        """The ids in it, the oldest first."""
        return [as_text(job_id) for job_id in self.connection.lrange(self.key, 0, -1)]

    def remove(self, job_id: str) -> None:
        """Take an id out."""
        self.connection.lrem(self.key, 1, job_id)

    # ---- how long an id has been there ----

    def get_first_seen_key(self, job_id: str) -> str:
        """Redis key of the moment at which somebody first saw an id here."""
        return f'{self.key}:first_seen:{job_id}'

    def set_first_seen(self, job_id: str) -> bool:
        """Note that an id was seen now; returns whether it is the first time."""
        key = self.get_first_seen_key(job_id)
        return bool(self.connection.set(key, now().timestamp(), nx=True, ex=_FIRST_SEEN_SECONDS))

    def get_first_seen(self, job_id: str) -> datetime | None:
        """When an id was first seen here."""
        timestamp: Any = self.connection.get(self.get_first_seen_key(job_id))
        return datetime.fromtimestamp(float(timestamp), UTC) if timestamp else None

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Whether an id was first seen more than a minute ago."""
        first_seen = self.get_first_seen(job_id)
        return first_seen is not None and now() - first_seen > _PATIENCE

    # ---- cleaning ----

    def cleanup(self, worker: BaseWorker | None, queue: Queue) -> None:
        """Put back what has been here for a minute though nobody runs it: it never began, so it has not failed.

        It goes to the front of its queue. Ids whose job has ended or is gone are dropped. `worker` is accepted for
        RQ's sake.
        """
        started = queue.started_job_registry
        for job_id in self.get_job_ids():
            if job_id in started:
                continue
            if queue.fetch_job(job_id) is None:
                self._forget(job_id)
            elif not self.set_first_seen(job_id) and self.should_be_cleaned_up(job_id):
                self._put_back(job_id)

    def _put_back(self, job_id: str) -> None:
        """Move an id to the front of its queue if its job still is to run, and else drop it; whoever is first does."""
        with self.connection.pipeline() as pipeline:
            pipeline.watch(self.key, keys.job(job_id))  # type: ignore[no-untyped-call]
            status: Any = pipeline.hget(keys.job(job_id), 'status')
            is_here = pipeline.lpos(self.key, job_id) is not None
            if status == b'started' or not is_here:
                return
            pipeline.multi()
            pipeline.lrem(self.key, 1, job_id)
            pipeline.delete(self.get_first_seen_key(job_id))
            if status == b'queued':
                pipeline.lpush(self.queue_key, job_id)
            try:
                pipeline.execute()
            except WatchError:
                # Its worker goes on with it after all, or somebody else puts it back.
                return

    def _forget(self, job_id: str) -> None:
        self.remove(job_id)
        self.connection.delete(self.get_first_seen_key(job_id))
