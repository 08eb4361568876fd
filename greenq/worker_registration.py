"""The sets of worker keys by which workers are found: all of them, and those of each queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenq.store import keys
from greenq.utils import as_text, missing_keys, split_list

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.queue import Queue
    from greenq.worker import BaseWorker

WORKERS_BY_QUEUE_KEY = keys.workers('%s')
REDIS_WORKER_KEYS = keys.workers()
MAX_KEYS = 1000


def register(worker: BaseWorker, pipeline: Pipeline | None = None) -> None:
    """Add a worker to the sets of all workers and of its queues."""
    client = worker.connection if pipeline is None else pipeline
    client.sadd(worker.redis_workers_keys, worker.key)
    for name in worker.queue_names():
        client.sadd(keys.workers(name), worker.key)


def unregister(worker: BaseWorker, pipeline: Pipeline | None = None) -> None:
    """Take a worker out of them again."""
    if pipeline is None:
        with worker.connection.pipeline() as own:
            unregister(worker, own)
            own.execute()
        return
    pipeline.srem(worker.redis_workers_keys, worker.key)
    for name in worker.queue_names():
        pipeline.srem(keys.workers(name), worker.key)


def get_keys(queue: Queue | None = None, connection: Redis | None = None) -> set[str]:
    """The Redis keys of a queue's workers, or of all; ValueError without either argument."""
    if queue is not None:
        return {as_text(key) for key in queue.connection.smembers(keys.workers(queue.name))}
    if connection is None:
        raise ValueError('"queue" or "connection" argument is required: pass one of them')
    return {as_text(key) for key in connection.smembers(keys.workers())}


def clean_worker_registry(queue: Queue) -> None:
    """Forget those of a queue's workers whose record has expired."""
    gone = missing_keys(queue.connection, list(get_keys(queue)))
    if not gone:
        return
    with queue.connection.pipeline() as pipeline:
        for chunk in split_list(gone, MAX_KEYS):
            pipeline.srem(keys.workers(queue.name), *chunk)
            pipeline.srem(keys.workers(), *chunk)
            pipeline.execute()
