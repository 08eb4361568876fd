"""How greenq's users enqueue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis

from benchmarks import jobs, setting
from greenq import Queue


class Producer:
    """Enqueues functions of `benchmarks.jobs`."""

    def __init__(self) -> None:
        self._queue = Queue(setting.QUEUE, connection=Redis.from_url(setting.URL))

    def one(self, job: str, *args: Any) -> None:
        """A job."""
        self._queue.enqueue(getattr(jobs, job), *args)

    def many(self, job: str, calls: Iterable[tuple[Any, ...]]) -> None:
        """A job for each tuple of arguments."""
        function = getattr(jobs, job)
        self._queue.enqueue_many(Queue.prepare_data(function, args) for args in calls)


def connect() -> Producer:
    """A producer."""
    return Producer()
