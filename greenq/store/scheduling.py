"""The writes of schedulers: their locks and records, the promotion of due jobs, the ticks of cron jobs.

`client` is a connection or a pipeline; with a pipeline a call is queued and returns an empty value.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from redis.client import Pipeline

from greenq.store import keys
from greenq.store.script import script
from greenq.store.transitions import Submission, Value
from greenq.utils import as_text, now, utcformat


class Lock(IntEnum):
    """What became of a lock that a scheduler asked for."""

    TAKEN_BY_ANOTHER = 0
    ACQUIRED = 1
    KEPT = 2


class Promotion(NamedTuple):
    """The ids that were moved, whether the caller still held the lock, and whether more may be due."""

    job_ids: list[str]
    is_holder: bool
    is_more_due: bool


def hold_locks(
    client: Any,
    scheduler: str,
    queues: Sequence[str],
    *,
    ttl: int,
    lease: int,
    record: Mapping[str, Value] | None = None,
) -> dict[str, Lock]:
    """Takes, or keeps, the locks of queues for `ttl` seconds, and writes the scheduler's record if it is given.

    The record says that the scheduler answers for its locks for the next `lease` seconds, by Redis' clock; a greenq
    scheduler takes them over afterwards, an RQ scheduler when they expire.
    """
    flat = [item for pair in (record or {}).items() for item in pair]
    key_names = [keys.scheduler(scheduler), *map(keys.scheduler_lock, queues)]
    reply = script('hold_scheduler_locks')(client, key_names, [scheduler, ttl, lease, *flat])
    if isinstance(client, Pipeline):
        return {}
    return {queue: Lock(outcome) for queue, outcome in zip(queues, reply, strict=True)}


def release_locks(client: Any, scheduler: str, queues: Sequence[str]) -> None:
    """Gives back those of the locks that are still the scheduler's."""
    if queues:
        script('release_scheduler_locks')(client, [keys.scheduler_lock(queue) for queue in queues], [scheduler])


def promote_scheduled(client: Any, queue: str, scheduler: str = '', *, limit: int = 100) -> Promotion:
    """Moves the scheduled jobs whose time has come, by Redis' clock, into their queue, looking at `limit` at most.

    Does nothing if `scheduler` is given and does not hold the queue's lock: one that was stalled cannot interfere.
    """
    key_names = [keys.registry('scheduled', queue), keys.scheduler_lock(queue)]
    looked_at, moved = script('promote_scheduled')(client, key_names, [queue, scheduler, utcformat(now()), limit])
    return Promotion([as_text(job_id) for job_id in moved], looked_at >= 0, looked_at >= limit)


def enqueue_tick(
    client: Any,
    queue: str,
    submission: Submission,
    *,
    cron_job: str,
    enqueued_at: float,
    history_limit: int,
    history_ttl: int,
    tick_name: str = '',
    expected: str = '',
    tick: str = '',
    tick_ttl: int = 0,
) -> str:
    """Enqueues the job of one tick of a cron job, and adds it to the history; returns the last tick as it is then.

    If that is not `tick`, another scheduler has enqueued since `expected` was the last one, and nothing was done.
    Repeating the call, as redis-py does after a lost reply, does nothing either. Without `tick` it always enqueues.
    """
    key_names = [
        keys.tick(tick_name),
        keys.queues(),
        keys.queue(queue),
        keys.job(submission.id),
        keys.cron_job_history(cron_job),
        keys.cron_jobs(),
    ]
    args: list[Any] = [expected, tick, tick_ttl, submission.id, submission.ttl or '', repr(enqueued_at), cron_job]
    args += [history_limit, history_ttl]
    args += [item for pair in submission.fields.items() for item in pair]
    return as_text(script('enqueue_tick')(client, key_names, args))


def last_ticks(client: Any, tick_names: Sequence[str]) -> list[str]:
    """The last tick of each name; empty where there was none, or none of late."""
    if not tick_names:
        return []
    return [as_text(value or b'') for value in client.mget([keys.tick(name) for name in tick_names])]
