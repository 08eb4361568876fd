"""The switch that makes every worker on a server pause; workers look at it, nothing here stops one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenq.store import keys

if TYPE_CHECKING:
    from redis import Redis

    from greenq.worker import BaseWorker

WORKERS_SUSPENDED = keys.suspended()


def is_suspended(connection: Redis, worker: BaseWorker | None = None) -> bool:
    """Whether workers are to pause. With `worker`, its heartbeat goes along in the same round trip."""
    if worker is None:
        return bool(connection.exists(WORKERS_SUSPENDED))
    with connection.pipeline() as pipeline:
        worker.heartbeat(pipeline=pipeline)
        pipeline.exists(WORKERS_SUSPENDED)
        return bool(pipeline.execute()[-1])


def suspend(connection: Redis, ttl: int | None = None) -> None:
    """Pause all workers: until `resume`, or for `ttl` seconds. A `ttl` of 0 or less ends a pause at once."""
    if ttl is not None and ttl <= 0:
        resume(connection)
        return
    # One command: a process that dies between SET and EXPIRE would suspend everybody for good.
    connection.set(WORKERS_SUSPENDED, 1, ex=ttl)


def resume(connection: Redis) -> int:
    """Let workers go on. Returns 1 if they were suspended, else 0."""
    return int(connection.delete(WORKERS_SUSPENDED))
