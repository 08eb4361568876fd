"""SAQ."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from saq import Queue  # type: ignore[import-not-found, unused-ignore]
from saq.queue.redis import RedisQueue  # type: ignore[import-not-found, unused-ignore]

from benchmarks import async_jobs, setting

logging.disable(logging.CRITICAL)

# redis-py's default of 100 connections may be less than the slots, and its socket timeout must not end a blocking read.
_pool = ConnectionPool.from_url(setting.URL, max_connections=20_000, socket_timeout=None)
queue: Queue = RedisQueue(Redis(connection_pool=_pool), name=setting.QUEUE)


def _with_context(name: str) -> Callable[..., Awaitable[int]]:
    function = getattr(async_jobs, name)

    async def run(context: Any, *, args: list[Any]) -> int:
        result: int = await function(*args)
        return result

    run.__name__ = run.__qualname__ = name
    return run


settings = {
    'queue': queue,
    'functions': [(name, _with_context(name)) for name in async_jobs.NAMES],
    'concurrency': setting.SLOTS,
}


class Producer:
    """Enqueues by name; arguments are JSON, results are kept ten minutes by default."""

    async def one(self, job: str, *args: Any) -> None:
        """A job; its default timeout of 10 s is too short for `hold`."""
        await queue.enqueue(job, args=list(args), timeout=180)


async def connect() -> Producer:
    """A producer."""
    await queue.connect()
    return Producer()
