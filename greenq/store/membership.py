"""One typed function per transition of a worker: it joins, beats, departs, or is lost, and others take its jobs.

`client` is a connection. As in `transitions`, no function reads before it writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from greenq.defaults import MAX_INTERRUPTIONS
from greenq.store import keys
from greenq.store.script import script
from greenq.store.transitions import LEASE_MS, LONGEST_CAUSE, Value, flat, iso_now, poison_rules, texts
from greenq.utils import as_text, now, utcformat

#: Why a job was interrupted whose worker's lease ended without anybody's word on it.
LOST = 'its worker was lost'


class Recovered(NamedTuple):
    """A job that a dead worker held, and what became of it: queued, failed, gone or adopted.

    `cause` says what its worker died of; `is_overdue`: the worker was killed because this job hung past its deadline.
    """

    job_id: str
    execution_id: str
    queue: str
    status: str
    is_overdue: bool = False
    cause: str = ''


def join(
    client: Any,
    worker: str,
    token: str,
    queues: Sequence[str],
    record: Mapping[str, Value],
    *,
    lease_ms: int,
    worker_ttl: int,
    on_lost: str | Mapping[str | None, str] = 'requeue',
    again: bool = False,
) -> str:
    """Registers a worker: `ok`, or `taken` if a live one has the name. What a dead namesake held is then the caller's.

    `on_lost` is what becomes of jobs that it loses, `requeue` or `fail`; a mapping says it for queues, and by None for
    all others. `again` is for an incarnation whose record was lost (evicted, flushed).
    """
    rules = {None: on_lost} if isinstance(on_lost, str) else on_lost
    on_lost_items = flat({'on_lost' if queue is None else f'on_lost:{queue}': rule for queue, rule in rules.items()})
    args: list[Any] = [worker, token, lease_ms, worker_ttl, '1' if again else '0', len(queues), *queues]
    args += [len(on_lost_items), *on_lost_items, *flat(record)]
    return as_text(script('join')(client, [keys.worker(worker), keys.member(worker), keys.leases()], args))


def beat(
    client: Any,
    worker: str,
    token: str,
    executions: Iterable[tuple[str, str, str, float]],
    *,
    lease_ms: int,
    worker_ttl: int,
    lifetime: int,
) -> tuple[str, list[str]]:
    """Extends a worker's lease, and RQ's records of the (job id, execution id, queue, begun (epoch)) given.

    Returns the verdict (`ok`; `missing`: join again; `superseded`: another incarnation has the name) and the
    composite keys that are no longer the worker's.
    """
    moment = now()
    args: list[Any] = [worker, token, lease_ms, worker_ttl, utcformat(moment), moment.timestamp(), lifetime]
    for execution in executions:
        args += execution
    key_names = [keys.worker(worker), keys.member(worker), keys.leases(), keys.worker_executions(worker)]
    verdict, *lost = texts(script('beat')(client, key_names, args))
    return verdict, lost


def beat_idle(client: Any, worker: str, token: str, *, lease_ms: int, look: bool) -> tuple[str, int]:
    """The beat of a worker that runs nothing, which leaves RQ's record of it alone.

    Returns a verdict as `beat` does, or, with `look`, `lost` if another worker's lease has ended; and with `look` how
    long it is (ms) until the first of all leases ends, unless it is extended.
    """
    args = [worker, token, lease_ms, '1' if look else '0']
    verdict, left_ms = script('beat_idle')(client, [keys.worker(worker), keys.leases()], args)
    return as_text(verdict), left_ms


def extend(client: Any, worker: str, *, lease_ms: int, lifetime: int, worker_ttl: int) -> bool:
    """For a supervisor whose worker hangs: keeps its lease, and RQ's records of it and of all that it holds.

    `lifetime` and `worker_ttl` (s) as for a beat. Returns whether the worker has a lease; else nothing is written.
    """
    key_names = [keys.leases(), keys.worker(worker), keys.held(worker), keys.worker_executions(worker)]
    return bool(script('extend')(client, key_names, [worker, lease_ms, worker_ttl, lifetime, iso_now()]) == 1)


def report_death(client: Any, worker: str, *, culprit: str = '', verdict: str = '', cause: str = '') -> bool:
    """Ends the lease of a worker that is known to be dead; whoever recovers its jobs goes by what is said here.

    `culprit` is the execution to blame, whose neighbours are then innocent. `verdict` on it: `suspect` (it was running
    when the worker died) or `overdue` (the worker was killed because it hung past its deadline). `cause` is a text such
    as `its worker was killed by SIGSEGV`. Returns whether there was such a worker; else nothing is written.
    """
    args = [worker, culprit, verdict, cause[:LONGEST_CAUSE]]
    return bool(script('report_death')(client, [keys.member(worker), keys.leases()], args) == 1)


def unpark(client: Any, worker: str) -> int:
    """Returns what a worker was handed while it waited to the front of its queues; returns how many ids that were."""
    return int(script('unpark')(client, [keys.parked(worker)], [worker]))


def depart(client: Any, worker: str, token: str, queues: Sequence[str], *, linger_ms: int = 0) -> int:
    """Ends a worker's registration; returns how many executions it left for others to recover.

    `linger_ms` keeps the lease for so long, if the server may still park something for the worker until then.
    """
    key_names = [keys.worker(worker), keys.member(worker), keys.leases(), keys.parked(worker), keys.held(worker)]
    return int(script('depart')(client, key_names, [worker, token, iso_now(), linger_ms, *queues]))


def recover_lost(
    client: Any,
    worker: str,
    *,
    interruption_limit: int = MAX_INTERRUPTIONS,
    limit: int = 100,
    lost_worker: str = '',
) -> list[Recovered]:
    """Takes at most `limit` jobs back from workers whose lease has ended; with `lost_worker` from that one only.

    Any number of workers may call it at once. An `adopted` job is to fail: because it was overdue, or because it or its
    worker asked for that. Its execution is now `worker`'s, who has to end it. A supervisor calls with `worker` '': what
    it would adopt is left for the next worker. A `worker` that names itself as lost takes over what a dead namesake
    left; it may run nothing yet.
    """
    args = [worker, iso_now(), limit, *poison_rules(interruption_limit), LOST, lost_worker, LEASE_MS]
    reply = script('recover_lost')(client, [keys.leases()], args)
    return [
        Recovered(job_id, execution_id, queue, status, kind == 'overdue', cause)
        for job_id, execution_id, queue, status, kind, cause in map(texts, reply)
    ]
