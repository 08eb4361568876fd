"""enqueue.lua: what is stored, in which order, and that a repeat is harmless."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from greenq.store import job_hash, keys, transitions
from greenq.store.states import JobStatus
from tests.store.situations import (
    QUEUE,
    WORKER,
    bring_into,
    claim,
    end_lease,
    enqueue,
    finished,
    join,
    listed,
    places,
    recover,
    snapshot,
    start,
    status,
    submission,
    waiting,
)


def test_stores_hash_list_and_queue(connection: redis.Redis) -> None:
    assert transitions.enqueue(connection, QUEUE, [submission('a', ttl=30)], token='t') == ['queued']
    fields = {
        b'origin': b'work',
        b'data': b'\x00\xff',
        b'enqueued_at': b'2026-01-01T00:00:00.000000Z',
        b'status': b'queued',
        b'greenq_token': b't',
    }
    assert snapshot(connection) == {
        keys.queues(): ('set', False, {keys.queue(QUEUE).encode()}),
        keys.queue(QUEUE): ('list', False, [b'a']),
        keys.job('a'): ('hash', True, fields),
    }
    assert 0 < connection.ttl(keys.job('a')) <= 30


def test_order_and_front(connection: redis.Redis) -> None:
    transitions.enqueue(
        connection, QUEUE, [submission('a'), submission('b'), submission('c', at_front=True), submission('d')]
    )
    assert waiting(connection) == ['c', 'a', 'b', 'd']


def test_stores_without_pushing(connection: redis.Redis) -> None:
    assert transitions.enqueue(connection, QUEUE, [submission('a')], push=False) == ['queued']
    assert status(connection, 'a') == 'queued' and waiting(connection) == []


def test_a_hash_of_many_fields(connection: redis.Redis) -> None:
    more = {f'f{n}': n for n in range(5_000)}
    enqueue(connection, 'a', more=more)
    assert connection.hlen(keys.job('a')) == 5_000 + 5 and connection.hget(keys.job('a'), 'f4999') == b'4999'


@pytest.mark.parametrize('later', ['nothing', 'claimed', 'finished', 'deleted', 'emptied', 'expired'])
def test_a_repeat_with_the_same_token_changes_nothing(connection: redis.Redis, later: str) -> None:
    def call() -> list[str]:
        return transitions.enqueue(connection, QUEUE, [submission('a'), submission('b')], token='t')

    call()
    if later in ('claimed', 'finished', 'expired'):
        claimed = claim(connection, 2)
        if later != 'claimed':
            ttl = 5 if later == 'expired' else 500
            transitions.finish(connection, WORKER, [finished(item, result_ttl=ttl) for item in claimed])
        if later == 'expired':
            connection.delete(keys.job('a'), keys.job('b'))
    elif later == 'deleted':
        transitions.delete(connection, 'a')
        transitions.delete(connection, 'b')
    elif later == 'emptied':
        transitions.empty(connection, QUEUE)
    before = snapshot(connection)
    expected = {'claimed': 'started', 'finished': 'finished'}.get(later, 'queued')
    assert call() == [expected, expected]
    assert snapshot(connection) == before


def test_another_token_enqueues_again(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    claim(connection)
    enqueue(connection, 'a')
    assert waiting(connection) == ['a']


def test_unique_refuses_an_existing_job_only(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    before = snapshot(connection)
    assert enqueue(connection, 'a', unique=True, more={'data': 'other'}) == ['duplicate']
    assert snapshot(connection) == before
    assert enqueue(connection, 'b', unique=True) == ['queued']


@pytest.mark.parametrize(
    'state', [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.DEFERRED, JobStatus.SCHEDULED, JobStatus.CANCELED]
)
def test_takes_the_job_out_of_its_registry(connection: redis.Redis, state: JobStatus) -> None:
    bring_into(connection, 'a', state)
    enqueue(connection, 'a')
    assert places(connection, 'a') == ['queue']


def test_a_job_enqueued_again_does_not_expire_by_its_last_end(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    transitions.finish(connection, WORKER, [finished(claimed, result_ttl=100)])
    assert connection.ttl(keys.job('a')) > 0
    enqueue(connection, 'a')
    assert connection.ttl(keys.job('a')) == -1


def test_a_job_enqueued_again_starts_with_no_interruptions(connection: redis.Redis) -> None:
    join(connection)
    for _ in range(2):
        start(connection, 'a')
        end_lease(connection)
        recover(connection)
        connection.delete(keys.queue(QUEUE))
        join(connection)
    start(connection, 'a')
    end_lease(connection)
    assert recover(connection) == [('a', 'queued')]


# ---- dependencies ----


def test_defers_until_dependencies_are_met(connection: redis.Redis) -> None:
    bring_into(connection, 'parent', JobStatus.QUEUED)
    assert enqueue(connection, 'child', dependency_ids=['parent', 'other']) == ['deferred']
    assert places(connection, 'child') == ['deferred']
    assert connection.smembers(keys.dependents('parent')) == {b'child'}
    assert connection.smembers(keys.dependencies('child')) == {b'parent', b'other'}
    assert connection.hget(keys.job('child'), 'enqueued_at') is None


@pytest.mark.parametrize(
    ('state', 'allow_failure', 'expected'),
    [
        (None, False, 'queued'),
        (JobStatus.FINISHED, False, 'queued'),
        (JobStatus.FAILED, False, 'deferred'),
        (JobStatus.FAILED, True, 'queued'),
        (JobStatus.STOPPED, True, 'deferred'),
        (JobStatus.CANCELED, True, 'deferred'),
        (JobStatus.STARTED, True, 'deferred'),
        (JobStatus.SCHEDULED, False, 'deferred'),
    ],
)
def test_what_counts_as_met(
    connection: redis.Redis, state: JobStatus | None, allow_failure: bool, expected: str
) -> None:
    if state is not None:
        bring_into(connection, 'parent', state)
    assert enqueue(connection, 'child', dependency_ids=['parent'], allow_failure=allow_failure) == [expected]
    assert ('child' in listed(connection, 'deferred')) == (expected == 'deferred')


def test_a_repeat_leaves_a_deferred_job_alone(connection: redis.Redis) -> None:
    bring_into(connection, 'parent', JobStatus.QUEUED)
    item = submission('child', dependency_ids=['parent'])
    assert transitions.enqueue(connection, QUEUE, [item], token='t') == ['deferred']
    before = snapshot(connection)
    assert transitions.enqueue(connection, QUEUE, [item], token='t') == ['deferred']
    assert snapshot(connection) == before


def test_a_job_is_stored_the_same_by_each_path_of_the_script(connection: redis.Redis) -> None:
    """Alone under a new id, alone under a known one, and in a batch: fields that are empty are known to the script."""
    fields: dict[str, Any] = {**job_hash.EMPTY, 'origin': QUEUE, 'data': b'd'}
    known = transitions.Submission('known', fields)
    for _ in range(2):
        transitions.enqueue(connection, QUEUE, [known])
    transitions.enqueue(connection, QUEUE, [transitions.Submission('new', fields)])
    transitions.enqueue(connection, QUEUE, [transitions.Submission(job_id, fields) for job_id in 'ab'])
    hashes = [connection.hgetall(keys.job(job_id)) for job_id in ('known', 'new', 'a', 'b')]
    for stored in hashes:
        assert stored.pop(b'greenq_token')
        assert stored == {
            **{name.encode(): b'' for name in job_hash.EMPTY},
            b'status': b'queued',
            b'origin': b'work',
            b'data': b'd',
        }


def test_a_job_of_more_fields_than_lua_can_unpack_is_stored_whole(connection: redis.Redis) -> None:
    fields: dict[str, Any] = {**job_hash.EMPTY, **{f'field{number}': number for number in range(9000)}}
    assert transitions.enqueue(connection, QUEUE, [transitions.Submission('a', fields)]) == ['queued']
    assert connection.hlen(keys.job('a')) == len(fields) + 2
    assert waiting(connection) == ['a']
