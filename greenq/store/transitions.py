"""One typed function per transition of a job: with those of workers in `membership` the only writes that change where a
job is.

`client` is a connection or a pipeline. With a pipeline the call is queued and returns an empty value; the replies
come from the pipeline. No function needs more than ids, so none of them reads before it writes. `docs/store.md` draws
the states; `states.TRANSITIONS` is the table.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.client import Pipeline

from greenq.defaults import DEFAULT_FAILURE_TTL, LEASE_SECONDS, MAX_INNOCENT_INTERRUPTIONS, MAX_INTERRUPTIONS
from greenq.store import job_hash, keys
from greenq.store.script import script
from greenq.utils import as_text, now, utcformat

#: What a hash field may hold.
Value = str | bytes | int | float

#: The script knows them, so that they need not be sent.
_USUALLY_EMPTY = list(job_hash.EMPTY)
_EMPTY_CHUNK = 1000
LEASE_MS = LEASE_SECONDS * 1000
LONGEST_CAUSE = 300

#: The reason of a poison job; the script fills in how often it was interrupted, and by what.
POISON_REASON = (
    'greenq.exceptions.PoisonJobError: interrupted {count} times in a row without finishing ({causes}). '
    'See job.interruptions; requeue it once the cause is mended.'
)


class Submission(NamedTuple):
    """One job to store. `fields` is its hash without `status`, in RQ's names; `ttl` is in seconds."""

    id: str
    fields: Mapping[str, Value]
    at_front: bool = False
    ttl: int | None = None
    unique: bool = False
    dependency_ids: Sequence[str] = ()
    allow_failure: bool = False
    rate_limit: tuple[str, int] | None = None


class Claimed(NamedTuple):
    """A job that was taken: its hash is as it was before the claim, without the fields that are empty, which for a
    thousand jobs in flight would take half a megabyte."""

    job_id: str
    execution_id: str
    queue: str
    hash: dict[bytes, bytes]


class Finished(NamedTuple):
    """An execution that succeeded. Times are epoch seconds, `result_ttl` seconds (-1 forever, 0 delete at once)."""

    job_id: str
    execution_id: str
    queue: str
    result_ttl: int
    started_at: float
    ended_at: float
    ended_iso: str
    return_value: bytes
    options: Mapping[str, Any] | None = None


class Failed(NamedTuple):
    """An execution that failed for good (`status` failed) or was stopped on request (`status` stopped)."""

    job_id: str
    execution_id: str
    queue: str
    status: str
    result_type: int
    failure_ttl: int
    register: bool
    started_at: float
    ended_at: float
    ended_iso: str
    exc_string: bytes
    return_value: bytes = b''
    rate_limit: str = ''


class Retried(NamedTuple):
    """An execution whose job is to run again: at once, or at `due` (epoch seconds)."""

    job_id: str
    execution_id: str
    queue: str
    due: int | None
    at_front: bool
    started_at: float
    ended_at: float
    ended_iso: str
    fields: Mapping[str, Value]
    return_value: bytes = b''
    result_ttl: int = DEFAULT_FAILURE_TTL
    rate_limit: str = ''


class Refused(str):
    """Why Redis refused to write an outcome, whose execution is still the worker's."""


#: What became of an outcome: written; dropped, because the execution was no longer the worker's; or refused.
Verdict = bool | Refused


def new_token() -> str:
    """A fresh idempotence token."""
    return os.urandom(8).hex()


def iso_now() -> str:
    return utcformat(now())


def texts(reply: Any) -> list[str]:
    return [as_text(item) for item in reply]


def _grouped(flat: Sequence[Any]) -> dict[str, list[str]]:
    return {as_text(flat[i]): texts(flat[i + 1]) for i in range(0, len(flat), 2)}


def flat(fields: Mapping[str, Value]) -> list[Value]:
    return [item for pair in fields.items() for item in pair]


def enqueue(
    client: Any,
    queue: str,
    submissions: Iterable[Submission],
    *,
    push: bool = True,
    token: str | None = None,
) -> list[str]:
    """Stores jobs and queues, defers or holds back each; returns their statuses, or `duplicate` for a refused one.

    `push=False` leaves the job out of the list, for a queue that runs its jobs in place. Repeating the very same
    call, as redis-py does after a lost reply, changes nothing.
    """
    submissions = list(submissions)
    args = _enqueue_arguments(queue, submissions, push, token or new_token())
    is_queued = isinstance(client, Pipeline)
    key_names = [keys.queues(), keys.queue(queue)]
    if len(submissions) == 1 and not is_queued:
        job_id = submissions[0].id
        key_names += (keys.job(job_id), keys.tombstone(job_id))
    reply = script('enqueue').at_once(client, key_names, args)
    if isinstance(reply, bytes | str):
        return [as_text(reply)]
    return [] if is_queued else texts(reply)


def enqueue_ahead(client: Any, queue: str, submissions: Sequence[Submission]) -> Callable[[], list[str]]:
    """The same, without waiting for the reply: it is sent, and what is returned here waits and returns the statuses."""
    args = _enqueue_arguments(queue, submissions, True, new_token())
    finish = script('enqueue').ahead(client, [keys.queues(), keys.queue(queue)], args)
    return lambda: texts(finish())


def _enqueue_arguments(queue: str, submissions: Sequence[Submission], push: bool, token: str) -> list[Any]:
    empty, shared = _common_fields(submissions)
    names = '*' if empty == _USUALLY_EMPTY else ' '.join(empty)
    args: list[Any] = [queue, iso_now(), token, '1' if push else '0', names, 2 * len(shared), *flat(shared)]
    known = {*empty, *shared}
    for item in submissions:
        own = [part for field, value in item.fields.items() if field not in known for part in (field, value)]
        ttl = item.ttl or ''
        args += (item.id, '1' if item.at_front else '0', ttl, _submission_options(item), len(own), *own)
    return args


def _common_fields(submissions: Sequence[Submission]) -> tuple[list[str], dict[str, Value]]:
    """The fields that are empty in all hashes, and what all hashes else have in common, so that it is sent once. Of one
    job there is nothing to gain by the latter."""
    if not submissions:
        return [], {}
    common = dict(submissions[0].fields)
    for item in submissions[1:]:
        fields = item.fields
        for field in [field for field, value in common.items() if fields.get(field) != value]:
            del common[field]
    empty = [field for field, value in common.items() if type(value) is str and not value and field.isidentifier()]
    if len(submissions) == 1:
        return empty, {}
    for field in empty:
        del common[field]
    return empty, common


def _submission_options(item: Submission) -> str:
    if not (item.unique or item.dependency_ids or item.rate_limit):
        return ''
    options: dict[str, Any] = {'unique': item.unique}
    if item.dependency_ids:
        options['dependencies'] = list(item.dependency_ids)
        options['allow_failure'] = item.allow_failure
    if item.rate_limit:
        options['rate_limit'] = item.rate_limit
    return json.dumps(options)


def schedule(client: Any, queue: str, submission: Submission, due: int, *, token: str | None = None) -> str:
    """Stores a job that is to be queued at `due` (epoch seconds): `scheduled`, or `duplicate` if it was refused."""
    args = [queue, submission.id, due, token or new_token(), '1' if submission.unique else '0', submission.ttl or '']
    key_names = [
        keys.queues(),
        keys.queue(queue),
        keys.job(submission.id),
        keys.registry('scheduled', queue),
    ]
    reply = script('schedule')(client, key_names, args + flat(submission.fields))
    return '' if isinstance(client, Pipeline) else as_text(reply)


def claim(
    client: Any,
    worker: str,
    queues: Sequence[str],
    execution_ids: Sequence[str],
    *,
    lifetime: int,
    count: int | None = None,
    repeat: bool = False,
    record: bool = True,
) -> list[Claimed] | None:
    """Takes at most `count` jobs for a worker, by default as many as `execution_ids` are given, in the order of its
    queues; None if work is suspended. Fewer, though there are more, if the jobs are large.

    `lifetime` is how long (seconds) RQ's readers take the execution for alive without a beat. `repeat` says that an
    earlier call with the same execution ids may have been carried out though its reply was lost. `record=False`
    leaves RQ's record of the execution to a beat, which spares short jobs its cost; the lease does not depend on it.
    """
    moment = now()
    most = len(execution_ids) if count is None else min(count, len(execution_ids))
    args = [worker, utcformat(moment), moment.timestamp(), lifetime, LEASE_MS, most]
    args += ['1' if repeat else '0', '1' if record else '0', ' '.join(execution_ids), *queues]
    reply = script('claim')(client, _claim_keys(worker), args)
    return None if isinstance(reply, bytes) else _claimed(reply, execution_ids)


def standing_claim(
    worker: str, queues: Sequence[str], execution_ids: Sequence[str], *, lifetime: int, record: bool, ahead: float
) -> tuple[Any, ...]:
    """The command of a claim as above that is sent before there is anything to claim: it takes something only if it
    then finds that something is parked for the worker. `ahead` is how far (s) the caller's clock is ahead of Redis'."""
    args = [worker, '', ahead, lifetime, LEASE_MS, len(execution_ids)]
    args += ['0', '1' if record else '0', ' '.join(execution_ids), *queues]
    return script('claim').command(_claim_keys(worker), args)


class StandingReply(NamedTuple):
    """What a standing claim took, how many of that were parked (those that were no jobs count, too), and, if it took
    something, when (epoch seconds, by Redis' clock)."""

    claimed: list[Claimed]
    unparked: int
    time: float | None


def read_standing_claim(reply: Any, execution_ids: Sequence[str]) -> StandingReply:
    """The reply to the command of `standing_claim`."""
    if isinstance(reply, bytes) or not reply:
        return StandingReply([], 0, None)
    moment, unparked, claimed = reply
    return StandingReply(_claimed(claimed, execution_ids), unparked, float(moment))


def _claim_keys(worker: str) -> list[str]:
    return [keys.suspended(), keys.parked(worker), keys.worker(worker)]


def _claimed(reply: Any, execution_ids: Sequence[str]) -> list[Claimed]:
    claimed = []
    for job_id, place, queue, flat in reply:
        items = iter(flat)
        fields = {field: value for field, value in zip(items, items, strict=True) if value}
        claimed.append(Claimed(job_id.decode(), execution_ids[place - 1], queue.decode(), fields))
    return claimed


def begin(client: Any, worker: str, job_id: str, execution_id: str, queue: str, *, lifetime: int) -> None:
    """Begins an execution of a job that the caller has in hand, without taking it from a queue."""
    moment = now()
    args = [worker, utcformat(moment), moment.timestamp(), lifetime, job_id, execution_id, queue, LEASE_MS]
    script('begin')(client, [keys.job(job_id), keys.worker(worker)], args)


def finish(
    client: Any, worker: str, outcomes: Iterable[Finished], *, state: str = '', repeat: bool = False
) -> list[Verdict]:
    """Records executions that succeeded: result, registry, counters, dependents, next repeat, all or nothing.

    Returns for each whether it was still the worker's; a loser's outcome is not written.
    """
    args: list[Any] = [worker, iso_now(), '1' if repeat else '0', state]
    for job_id, execution_id, queue, ttl, started_at, ended_at, ended_iso, return_value, options in outcomes:
        # As few arguments as can be: each costs client and server more than the bytes in it.
        args += (
            f'{job_id}:{execution_id}',
            f'{ttl} {started_at} {ended_at} {ended_iso} {queue}',
            return_value,
            json.dumps(options) if options else '',
        )
    return _verdicts(client, script('finish')(client, [keys.worker(worker)], args))


def fail(
    client: Any, worker: str, outcomes: Iterable[Failed], *, state: str = '', repeat: bool = False
) -> list[Verdict]:
    """Records executions that failed for good or were stopped; returns for each whether it was still the worker's."""
    args: list[Any] = [worker, iso_now(), '1' if repeat else '0', state]
    for item in outcomes:
        args += item
        args[-7] = '1' if item.register else '0'
    return _verdicts(client, script('fail')(client, [keys.worker(worker)], args))


def retry(
    client: Any, worker: str, outcomes: Iterable[Retried], *, state: str = '', repeat: bool = False
) -> list[Verdict]:
    """Sends executions round again, using a retry; returns for each whether it was still the worker's."""
    args: list[Any] = [worker, iso_now(), '1' if repeat else '0', state]
    for item in outcomes:
        fields = flat(item.fields)
        args += (
            item.job_id,
            item.execution_id,
            item.queue,
            '' if item.due is None else item.due,
            '1' if item.at_front else '0',
            item.started_at,
            item.ended_at,
            item.ended_iso,
            item.return_value,
            item.result_ttl,
            item.rate_limit,
            len(fields),
            *fields,
        )
    return _verdicts(client, script('retry')(client, [keys.worker(worker)], args))


def _verdicts(client: Any, reply: Any) -> list[Verdict]:
    if isinstance(client, Pipeline):
        return []
    return [Refused(as_text(item)) if isinstance(item, bytes) else item == 1 for item in reply]


def release(
    client: Any,
    worker: str,
    executions: Sequence[tuple[str, str, str]],
    *,
    interruption_limit: int = MAX_INTERRUPTIONS,
    cause: str = '',
    state: str = '',
    innocent: bool = False,
) -> list[str]:
    """Gives (job id, execution id, queue) back to the front of their queues, in the order given, using no retry.

    Each counts as an interruption by `cause`; the `interruption_limit`-th in a row fails the job as poison. A limit of
    0 says that the jobs never began; `innocent`, that another job is to blame. Returns each job's status, or `gone` or
    `lost`.
    """
    args: list[Any] = [worker, iso_now(), *poison_rules(interruption_limit), cause[:LONGEST_CAUSE], state]
    args.append('1' if innocent else '0')
    for execution in reversed(executions):
        args += execution
    return texts(script('release')(client, [keys.held(worker)], args))[::-1]


def poison_rules(interruption_limit: int) -> tuple[Value, ...]:
    return interruption_limit, MAX_INNOCENT_INTERRUPTIONS, POISON_REASON, DEFAULT_FAILURE_TTL


def cancel(
    client: Any, job_id: str, *, enqueue_dependents: bool = False, remove_from_dependencies: bool = False
) -> dict[str, list[str]] | None:
    """Cancels a job wherever it is; returns the dependents that this enqueued, by queue.

    None: it has no hash or was canceled already. A running job runs on, but its outcome will be dropped.
    """
    flags = ['1' if enqueue_dependents else '0', '1' if remove_from_dependencies else '0']
    reply = script('cancel')(client, [keys.job(job_id)], [job_id, iso_now(), *flags])
    if isinstance(client, Pipeline):
        return {}
    if not reply or as_text(reply[0]) == 'canceled':
        return None
    return _grouped(reply[1])


def delete(client: Any, job_id: str, *, remove_from_queue: bool = True, delete_dependents: bool = False) -> bool:
    """Deletes a job with all that hangs on it; returns whether there was one."""
    flags = ['1' if remove_from_queue else '0', '1' if delete_dependents else '0']
    return bool(script('delete')(client, [keys.job(job_id)], [job_id, iso_now(), *flags]) == 1)


def requeue(client: Any, job_id: str, registry_key: str, queue: str, *, at_front: bool = False) -> str | None:
    """Moves a job from a registry back into its queue; returns its status then, None if it was not in the registry."""
    args = [job_id, queue, '1' if at_front else '0', iso_now()]
    reply = script('requeue')(client, [registry_key, keys.job(job_id)], args)
    return None if isinstance(client, Pipeline) else as_text(reply) or None


def enqueue_dependents(
    client: Any, job_id: str, *, exclude_job_id: str = '', parent_status: str = ''
) -> dict[str, list[str]]:
    """Enqueues the dependents of a job that has ended, as far as all they wait for has; returns them by queue."""
    args = [job_id, iso_now(), parent_status, exclude_job_id]
    reply = script('release_dependents')(client, [keys.job(job_id)], args)
    return {} if isinstance(client, Pipeline) else _grouped(reply)


def empty(client: Any, queue: str) -> int:
    """Deletes every job of a queue, a chunk at a time; returns how many."""
    total = 0
    while True:
        removed = int(script('empty')(client, [keys.queue(queue)], [_EMPTY_CHUNK]))
        total += removed
        if removed < _EMPTY_CHUNK:
            return total


def delete_queue(client: Any, queue: str) -> None:
    """Forgets a queue: its list and its entry among the queues, not its jobs."""
    client.execute_command('DEL', keys.queue(queue))
    client.execute_command('SREM', keys.queues(), keys.queue(queue))


def compact(client: Any, queue: str) -> int:
    """Removes the ids of jobs that no longer exist from a queue; returns how many."""
    return int(script('compact')(client, [keys.queue(queue)], []))


def promote_ready(client: Any, queue: str, job_ids: Sequence[str]) -> list[str]:
    """Moves jobs that an RQ worker marked ready into their queue; returns the ids moved."""
    if not job_ids:
        return []
    return texts(script('promote_ready')(client, [keys.registry('ready', queue)], [queue, iso_now(), *job_ids]))


def free_rate_slot(client: Any, rate_limit: str, job_id: str = '', *, only_stale: bool = False) -> list[str]:
    """Gives a job's slot back and lets waiting jobs through; returns their ids. Without a job it only fills slots."""
    args = [rate_limit, job_id, iso_now(), '1' if only_stale else '0']
    reply = script('free_rate_slot')(client, [keys.rate_allowed(rate_limit)], args)
    return [] if isinstance(client, Pipeline) else texts(reply)


def clean_rate_limit(client: Any, rate_limit: str) -> bool:
    """Forgets a rate limit that no job uses; returns whether it did."""
    key_names = [
        keys.rate_allowed(rate_limit),
        keys.rate_limited(rate_limit),
        keys.rate_limit(rate_limit),
        keys.rate_limits(),
    ]
    return bool(script('clean_rate_limit')(client, key_names, [rate_limit]) == 1)
