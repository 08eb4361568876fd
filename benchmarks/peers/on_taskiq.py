"""taskiq with the Redis stream broker, the one that does not lose what a crashed worker held."""

from __future__ import annotations

import logging
from typing import Any

from taskiq_redis import (  # type: ignore[import-not-found, unused-ignore]
    RedisAsyncResultBackend,
    RedisStreamBroker,
)

from benchmarks import async_jobs, setting

logging.disable(logging.CRITICAL)

# redis-py's socket timeout must not end a blocking read.
broker = RedisStreamBroker(
    setting.URL, queue_name=setting.QUEUE, consumer_id='0', max_connection_pool_size=1000, socket_timeout=None
).with_result_backend(
    RedisAsyncResultBackend(setting.URL, result_ex_time=500, max_connection_pool_size=1000, socket_timeout=None)
)

TASKS = {name: broker.register_task(getattr(async_jobs, name), task_name=name) for name in async_jobs.NAMES}


class Producer:
    """Kicks the tasks."""

    async def one(self, job: str, *args: Any) -> None:
        """A job."""
        await TASKS[job].kiq(*args)


async def connect() -> Producer:
    """A producer."""
    await broker.startup()
    return Producer()
