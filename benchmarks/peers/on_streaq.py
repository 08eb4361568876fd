"""streaQ."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from streaq import Worker  # type: ignore[import-not-found, unused-ignore]

from benchmarks import async_jobs, setting

logging.disable(logging.CRITICAL)

worker: Any = Worker(redis_url=setting.URL, queue_name=setting.QUEUE, concurrency=setting.SLOTS)

TASKS = {name: worker.task(name=name)(getattr(async_jobs, name)) for name in async_jobs.NAMES}


class Producer:
    """Enqueues the tasks."""

    async def one(self, job: str, *args: Any) -> None:
        """A job."""
        await TASKS[job].enqueue(*args)

    async def many(self, job: str, calls: Iterable[tuple[Any, ...]]) -> None:
        """A job for each tuple of arguments."""
        await worker.enqueue_many([TASKS[job].enqueue(*args) for args in calls])


async def connect() -> Producer:
    """A producer; its connections stay open to the end."""
    await worker.__aenter__()
    return Producer()
