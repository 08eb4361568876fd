"""The names of all cron schedulers that run, with when they gave a sign of life last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_CRON_SCHEDULER_TTL
from greenq.exceptions import DuplicateSchedulerError, SchedulerNotFound
from greenq.store import keys
from greenq.utils import as_text

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.cron import CronScheduler


def get_registry_key() -> str:
    """The Redis key of the names."""
    return keys.cron_schedulers()


def register(cron_scheduler: CronScheduler, pipeline: Pipeline | None = None) -> None:
    """Add a scheduler. DuplicateSchedulerError if it is there already, which a pipeline cannot tell."""
    client = cron_scheduler.connection if pipeline is None else pipeline
    if client.zadd(get_registry_key(), {cron_scheduler.name: time.time()}, nx=True) == 0:
        raise DuplicateSchedulerError(
            f"CronScheduler '{cron_scheduler.name}' is already registered: stop it, or choose another name"
        )


def unregister(cron_scheduler: CronScheduler, pipeline: Pipeline | None = None) -> None:
    """Remove a scheduler. SchedulerNotFound if it is not there, which a pipeline cannot tell."""
    client = cron_scheduler.connection if pipeline is None else pipeline
    if client.zrem(get_registry_key(), cron_scheduler.name) == 0:
        raise SchedulerNotFound(f"CronScheduler '{cron_scheduler.name}' is not registered: it has ended, or never was")


def get_keys(connection: Redis) -> list[str]:
    """The names of all schedulers, the one that was silent longest first."""
    names: Any = connection.zrange(get_registry_key(), 0, -1)
    return [as_text(name) for name in names]


def cleanup(connection: Redis, threshold: int = DEFAULT_CRON_SCHEDULER_TTL) -> int:
    """Forget the schedulers that gave no sign of life for `threshold` seconds; returns how many."""
    return int(connection.zremrangebyscore(get_registry_key(), 0, time.time() - threshold))
