"""arq. It polls; with its default of half a second latency would be that, so it is told 20 ms."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from arq import create_pool  # type: ignore[import-not-found, unused-ignore]
from arq.connections import RedisSettings  # type: ignore[import-not-found, unused-ignore]
from arq.worker import func  # type: ignore[import-not-found, unused-ignore]

from benchmarks import async_jobs, setting

logging.disable(logging.CRITICAL)

_settings = RedisSettings.from_dsn(setting.URL)


def _with_context(name: str) -> Callable[..., Awaitable[int]]:
    function = getattr(async_jobs, name)

    async def run(context: Any, *args: Any) -> int:
        result: int = await function(*args)
        return result

    return run


class WorkerSettings:
    """What the command `arq` reads."""

    functions = [func(_with_context(name), name=name) for name in async_jobs.NAMES]
    redis_settings = _settings
    queue_name = setting.QUEUE
    max_jobs = setting.SLOTS
    poll_delay = 0.02
    keep_result = 500


class Producer:
    """Enqueues by name."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def one(self, job: str, *args: Any) -> None:
        """A job."""
        await self._redis.enqueue_job(job, *args)


async def connect() -> Producer:
    """A producer."""
    return Producer(await create_pool(_settings, default_queue_name=setting.QUEUE))
