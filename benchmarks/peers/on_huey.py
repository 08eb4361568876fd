"""Huey: `python -m benchmarks.peers.on_huey` runs its consumer, patched first, as its documentation asks."""

from __future__ import annotations

if __name__ == '__main__':
    from gevent import monkey

    monkey.patch_all()

import logging
from typing import Any

from huey import RedisHuey  # type: ignore[import-not-found, unused-ignore]
from huey.bin.huey_consumer import consumer_main  # type: ignore[import-not-found, unused-ignore]
from redis import ConnectionPool

from benchmarks import jobs, setting

logging.disable(logging.CRITICAL)

# A connection for each slot; and redis-py's socket timeout must not end a blocking read.
_pool = ConnectionPool.from_url(setting.URL, max_connections=20_000, socket_timeout=None)
huey = RedisHuey(setting.QUEUE, connection_pool=_pool)

TASKS = {name: huey.task(name=name)(getattr(jobs, name)) for name in jobs.NAMES}


class Producer:
    """Calls the tasks."""

    def one(self, job: str, *args: Any) -> None:
        """A job."""
        TASKS[job](*args)


def connect() -> Producer:
    """A producer."""
    return Producer()


if __name__ == '__main__':
    consumer_main()
