"""The names of all cron jobs that have enqueued something, with when they did so last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_CRON_JOB_HISTORY_TTL
from greenq.store import keys
from greenq.utils import as_text

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


def get_registry_key() -> str:
    """The Redis key of the names."""
    return keys.cron_jobs()


def add(name: str, connection: Redis | Pipeline, enqueue_timestamp: float | None = None) -> None:
    """Note that a cron job has enqueued something, at a time in epoch seconds (default: now)."""
    connection.zadd(get_registry_key(), {name: time.time() if enqueue_timestamp is None else enqueue_timestamp})


def get_names(connection: Redis, cleanup: bool = True) -> list[str]:
    """All names, the one that enqueued longest ago first. `cleanup` forgets those that have no history any more."""
    if cleanup:
        remove_stale_entries(connection)
    names: Any = connection.zrange(get_registry_key(), 0, -1)
    return [as_text(name) for name in names]


def remove_stale_entries(connection: Redis, threshold: int = DEFAULT_CRON_JOB_HISTORY_TTL) -> int:
    """Forget the names that have enqueued nothing for `threshold` seconds; returns how many."""
    return int(connection.zremrangebyscore(get_registry_key(), 0, time.time() - threshold))
