"""Reads that need more than one key."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from greenq.store import keys
from greenq.store.script import script
from greenq.utils import as_text, split_list, utcparse

#: Queues that are counted by one call, so that it holds up the server for some milliseconds at most.
_QUEUES_PER_CALL = 500


class QueueCounts(NamedTuple):
    """How many jobs of a queue wait, run, have finished, have failed."""

    waiting: int
    executing: int
    finished: int
    failed: int


def queue_counts(client: Any, queues: Sequence[str]) -> list[QueueCounts]:
    """The counts of many queues, in few round trips; nothing is cleaned for it."""
    return [
        QueueCounts(*counts)
        for chunk in split_list(queues, _QUEUES_PER_CALL)
        for counts in script('count_jobs')(client, [], list(chunk))
    ]


class Held(NamedTuple):
    """An execution under a worker's lease. `beginner` is the worker that its job's hash names."""

    job_id: str
    execution_id: str
    queue: str
    beginner: str


def held_count(client: Any, worker: str) -> int:
    """How many executions a worker has under its lease."""
    return int(client.execute_command('SCARD', keys.held(worker)))


def held_executions(client: Any, worker: str) -> list[Held]:
    """All that a worker has under its lease, in two round trips."""
    composites = [as_text(item) for item in client.execute_command('SMEMBERS', keys.held(worker))]
    with client.pipeline(transaction=False) as pipeline:
        for composite in composites:
            pipeline.execute_command('HMGET', keys.job(composite.rpartition(':')[0]), 'origin', 'worker_name')
        jobs = pipeline.execute()
    return [
        Held(*_parted(composite), as_text(origin or b''), as_text(beginner or b''))
        for composite, (origin, beginner) in zip(composites, jobs, strict=True)
    ]


def deadline_of(client: Any, worker: str, execution_id: str) -> float | None:
    """When (epoch s) the job of an execution that a worker holds has to be done; None if it need not."""
    for composite in map(as_text, client.execute_command('SMEMBERS', keys.held(worker))):
        job_id, found_id = _parted(composite)
        if found_id == execution_id:
            started_at, timeout = client.execute_command('HMGET', keys.job(job_id), 'started_at', 'timeout')
            return _deadline(as_text(started_at or b''), as_text(timeout or b''))
    return None


def _deadline(started_at: str, timeout: str) -> float | None:
    try:
        seconds = float(timeout)
        return utcparse(started_at).timestamp() + seconds if seconds > 0 else None
    except ValueError:
        return None


def _parted(composite: str) -> tuple[str, str]:
    job_id, _, execution_id = composite.rpartition(':')
    return job_id, execution_id
