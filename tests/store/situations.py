"""What the tests of the scripts share: jobs brought into a state, outcomes with plausible values, and what is where."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from greenq.store import keys, membership, transitions
from greenq.store.states import REGISTRY_OF_STATUS, JobStatus
from greenq.store.transitions import Claimed, Failed, Finished, Retried, Submission
from greenq.utils import as_text

QUEUE = 'work'
WORKER = 'anna'
LIFETIME = 180
FAR_FUTURE = 4_000_000_000
STARTED, ENDED, ENDED_ISO = 1_000.0, 1_002.5, '1970-01-01T00:16:42.500000Z'

_execution_numbers = itertools.count()

#: key -> its type, whether it expires, and its content.
Snapshot = dict[str, tuple[str, bool, Any]]


def submission(job_id: str, *, queue: str = QUEUE, more: Mapping[str, Any] | None = None, **options: Any) -> Submission:
    """A job; `more` are further fields of its hash, `options` those of Submission."""
    fields = {'origin': queue, 'data': b'\x00\xff', 'enqueued_at': '2026-01-01T00:00:00.000000Z', **(more or {})}
    return Submission(job_id, fields, **options)


def enqueue(client: Any, *job_ids: str, queue: str = QUEUE, **options: Any) -> list[str]:
    """Enqueues jobs that share their options; the statuses."""
    return transitions.enqueue(client, queue, [submission(job_id, queue=queue, **options) for job_id in job_ids])


def execution_ids(count: int) -> list[str]:
    """Fresh ids."""
    return [f'e{next(_execution_numbers)}' for _ in range(count)]


def claim(
    client: Any,
    count: int = 1,
    *,
    worker: str = WORKER,
    queues: Sequence[str] = (QUEUE,),
    ids: Sequence[str] = (),
    repeat: bool = False,
) -> list[Claimed]:
    """Claims jobs; workers must not be suspended."""
    ids = ids or execution_ids(count)
    claimed = transitions.claim(client, worker, queues, ids, lifetime=LIFETIME, repeat=repeat)
    assert claimed is not None
    return claimed


def start(client: Any, *job_ids: str, worker: str = WORKER, **options: Any) -> list[Claimed]:
    """Enqueues jobs into an otherwise empty queue and has a worker claim them."""
    enqueue(client, *job_ids, **options)
    claimed = claim(client, len(job_ids), worker=worker, queues=(options.get('queue', QUEUE),))
    assert [item.job_id for item in claimed] == list(job_ids)
    return claimed


def join(client: Any, worker: str = WORKER, *, token: str = 'token', **options: Any) -> str:
    """Registers a worker of `QUEUE`."""
    options = {'lease_ms': 15_000, 'worker_ttl': 480, **options}
    return membership.join(client, worker, token, [QUEUE], {'queues': QUEUE, 'state': 'starting'}, **options)


def beat(
    client: Any, executions: Sequence[Claimed] = (), *, worker: str = WORKER, token: str = 'token'
) -> tuple[str, list[str]]:
    """One beat for some executions."""
    begun = [(item.job_id, item.execution_id, item.queue, 1.5) for item in executions]
    return membership.beat(client, worker, token, begun, lease_ms=15_000, worker_ttl=480, lifetime=LIFETIME)


def end_lease(client: redis.Redis, worker: str = WORKER) -> None:
    """As if the worker had not beaten for long."""
    client.zadd(keys.leases(), {worker: 1})


def extend(client: Any, worker: str = WORKER, *, lease_ms: int = 20_000) -> bool:
    """As a supervisor does for a worker that hangs."""
    return membership.extend(client, worker, lease_ms=lease_ms, lifetime=LIFETIME, worker_ttl=480)


def recover(
    client: Any, *, worker: str = 'rescuer', limit: int = 100, interruptions: int = 3, lost_worker: str = ''
) -> list[tuple[str, str]]:
    """What a recovery did: (job id, status)."""
    recovered = membership.recover_lost(
        client, worker, interruption_limit=interruptions, limit=limit, lost_worker=lost_worker
    )
    return [(item.job_id, item.status) for item in recovered]


def release(client: Any, *executions: Claimed, interruptions: int = 3, worker: str = WORKER) -> list[str]:
    """Gives executions back."""
    triples = [(item.job_id, item.execution_id, item.queue) for item in executions]
    return transitions.release(client, worker, triples, interruption_limit=interruptions, cause='shutdown')


def finished(claimed: Claimed, *, result_ttl: int = 500, options: Mapping[str, Any] | None = None) -> Finished:
    """A success."""
    return Finished(*claimed[:3], result_ttl, STARTED, ENDED, ENDED_ISO, b'value' if result_ttl else b'', options)


def failed(
    claimed: Claimed, *, status: str = 'failed', failure_ttl: int = 600, register: bool = True, rate_limit: str = ''
) -> Failed:
    """A failure."""
    return Failed(
        *claimed[:3], status, 2, failure_ttl, register, STARTED, ENDED, ENDED_ISO, b'trace', rate_limit=rate_limit
    )


def retried(claimed: Claimed, *, due: int | None = None, at_front: bool = False, rate_limit: str = '') -> Retried:
    """Another try."""
    return Retried(*claimed[:3], due, at_front, STARTED, ENDED, ENDED_ISO, {'retries_left': 1}, rate_limit=rate_limit)


def held(client: redis.Redis, worker: str) -> list[str]:
    """The ids of the jobs that a worker holds."""
    return sorted(as_text(composite).rpartition(':')[0] for composite in client.smembers(keys.held(worker)))


def status(client: redis.Redis, job_id: str) -> str | None:
    """The stored status."""
    stored = client.hget(keys.job(job_id), 'status')
    return None if stored is None else as_text(stored)


def waiting(client: redis.Redis, queue: str = QUEUE) -> list[str]:
    """The ids in a queue, the next first."""
    return [as_text(item) for item in client.lrange(keys.queue(queue), 0, -1)]


def listed(client: redis.Redis, kind: str, queue: str = QUEUE) -> dict[str, float]:
    """A registry: id (or composite key) -> score."""
    entries: Any = client.zrange(keys.registry(kind, queue), 0, -1, withscores=True)
    return {as_text(item): score for item, score in entries}


def results(client: redis.Redis, job_id: str) -> list[dict[str, str]]:
    """The entries of a job's stream, the oldest first."""
    entries = client.xrange(keys.results(job_id))
    return [{as_text(name): as_text(value) for name, value in fields.items()} for _, fields in entries]  # type: ignore[union-attr]


def places(client: redis.Redis, job_id: str, queue: str = QUEUE) -> list[str]:
    """Everywhere that holds the job: `queue` once for each time it is in there, and the names of registries."""
    found = ['queue'] * waiting(client, queue).count(job_id)
    found += ['started' for composite in listed(client, 'started', queue) if composite.rpartition(':')[0] == job_id]
    return found + [kind for kind in sorted(set(REGISTRY_OF_STATUS.values())) if job_id in listed(client, kind, queue)]


def snapshot(client: redis.Redis) -> Snapshot:
    """The whole database."""
    return {as_text(key): _content(client, key) for key in sorted(client.scan_iter())}


def _content(client: Any, key: bytes) -> tuple[str, bool, Any]:
    kind = as_text(client.type(key))
    read = {
        'string': lambda: client.get(key),
        'list': lambda: client.lrange(key, 0, -1),
        'set': lambda: client.smembers(key),
        'hash': lambda: client.hgetall(key),
        'zset': lambda: client.zrange(key, 0, -1, withscores=True),
        'stream': lambda: client.xrange(key),
    }
    return kind, client.pttl(key) >= 0, read[kind]()


def bring_into(client: redis.Redis, job_id: str, state: JobStatus) -> Claimed:
    """Stores a job that is in a state, in the place that goes with it; returns an execution as if it had run once."""
    claimed = Claimed(job_id, execution_ids(1)[0], QUEUE, {})
    if state is JobStatus.STARTED:
        return start(client, job_id)[0]
    if state is JobStatus.QUEUED:
        enqueue(client, job_id)
        return claimed
    client.hset(keys.job(job_id), mapping={'status': state.value, 'origin': QUEUE, 'data': b'\x00'})
    if state is JobStatus.RATE_LIMITED:
        client.hset(keys.job(job_id), mapping={'rate_limit_key': 'narrow', 'rate_limit_concurrency': 1})
        client.hset(keys.rate_limit('narrow'), 'concurrency', 1)
        client.zadd(keys.rate_allowed('narrow'), {'other': 1})
        client.zadd(keys.rate_limited('narrow'), {job_id: 1})
    elif state in REGISTRY_OF_STATUS:
        client.zadd(keys.registry(REGISTRY_OF_STATUS[state], QUEUE), {job_id: 5})
    return claimed
