"""Dramatiq, as it comes: its results middleware is off."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq  # type: ignore[import-not-found, unused-ignore]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found, unused-ignore]
from redis import ConnectionPool, Redis

from benchmarks import jobs, setting

logging.disable(logging.CRITICAL)

# redis-py's default of 100 connections is less than the slots.
_pool = ConnectionPool.from_url(setting.URL, max_connections=20_000)
dramatiq.set_broker(RedisBroker(client=Redis(connection_pool=_pool)))

ACTORS = {name: dramatiq.actor(queue_name=setting.QUEUE)(getattr(jobs, name)) for name in jobs.NAMES}


class Producer:
    """Sends messages."""

    def one(self, job: str, *args: Any) -> None:
        """A job."""
        ACTORS[job].send(*args)


def connect() -> Producer:
    """A producer."""
    return Producer()
