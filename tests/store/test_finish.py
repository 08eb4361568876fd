"""finish.lua: recording a success, all or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.states import JobStatus
from tests.store.situations import (
    ENDED_ISO,
    FAR_FUTURE,
    QUEUE,
    WORKER,
    bring_into,
    claim,
    enqueue,
    finished,
    join,
    listed,
    places,
    results,
    snapshot,
    start,
    status,
    waiting,
)


def repeat_plan(due: int = 0) -> dict[str, object]:
    return {'repeat': {'left': 1, 'intervals': json.dumps([5]), 'due': due}}


def test_records_everything_at_once(connection: redis.Redis) -> None:
    join(connection)
    claimed = start(connection, 'a', 'b')
    outcomes = [finished(item) for item in claimed]
    assert transitions.finish(connection, WORKER, outcomes, state='idle') == [True, True]
    assert set(snapshot(connection)) == {
        *(keys.job(job_id) for job_id in 'ab'),
        *(keys.results(job_id) for job_id in 'ab'),
        keys.queues(),
        keys.registry('finished', QUEUE),
        keys.workers(),
        keys.workers(QUEUE),
        keys.worker(WORKER),
        keys.member(WORKER),
        keys.leases(),
    }
    job = connection.hgetall(keys.job('a'))
    assert job[b'status'] == b'finished' and job[b'ended_at'] == job[b'last_heartbeat'] == ENDED_ISO.encode()
    assert 497 < connection.ttl(keys.job('a')) <= 500 and 497 < connection.ttl(keys.results('a')) <= 500
    assert results(connection, 'a') == [
        {
            'type': '1',
            'worker_name': WORKER,
            'return_value': 'value',
            'execution_id': claimed[0].execution_id,
            'execution_started_at': '1000.0',
            'execution_ended_at': '1002.5',
        }
    ]
    worker = connection.hgetall(keys.worker(WORKER))
    assert worker[b'successful_job_count'] == b'2' and float(worker[b'total_working_time']) == 5.0
    assert worker[b'state'] == b'idle'


def test_a_result_for_ever(connection: redis.Redis) -> None:
    transitions.finish(connection, WORKER, [finished(start(connection, 'a')[0], result_ttl=-1)])
    assert connection.ttl(keys.job('a')) == connection.ttl(keys.results('a')) == -1
    assert listed(connection, 'finished') == {'a': float('inf')}


def test_no_result_leaves_only_a_token_that_expires(connection: redis.Redis) -> None:
    transitions.finish(connection, WORKER, [finished(start(connection, 'a')[0], result_ttl=0)])
    assert set(snapshot(connection)) == {keys.queues(), keys.leases(), keys.tombstone('a')}
    assert 0 < connection.ttl(keys.tombstone('a')) <= 60


def test_a_repeat_says_the_same_and_writes_nothing(connection: redis.Redis) -> None:
    join(connection)
    outcomes = [finished(item) for item in start(connection, 'a', 'b')]
    transitions.finish(connection, WORKER, outcomes)
    before = snapshot(connection)
    assert transitions.finish(connection, WORKER, outcomes, repeat=True) == [True, True]
    assert transitions.finish(connection, WORKER, outcomes) == [False, False]
    assert snapshot(connection) == before


def test_a_repeat_of_a_call_that_never_arrived(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    assert transitions.finish(connection, WORKER, [finished(claimed)], repeat=True) == [True]
    assert places(connection, 'a') == ['finished']


def test_loser_and_winner_in_one_batch(connection: redis.Redis) -> None:
    claimed = start(connection, 'a', 'b', 'c')
    transitions.cancel(connection, 'b')
    assert transitions.finish(connection, WORKER, [finished(item) for item in claimed]) == [True, False, True]
    assert [status(connection, job_id) for job_id in 'abc'] == ['finished', 'canceled', 'finished']
    assert places(connection, 'b') == ['canceled']


@pytest.mark.parametrize(('result_ttl', 'kept'), [(500, ['value']), (0, [])])
def test_a_canceled_job_keeps_what_it_returned(connection: redis.Redis, result_ttl: int, kept: list[str]) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    transitions.cancel(connection, 'a')
    for repeat in (False, True):
        transitions.finish(connection, WORKER, [finished(claimed, result_ttl=result_ttl)], repeat=repeat)
        assert [result['return_value'] for result in results(connection, 'a')] == kept
    assert places(connection, 'a') == ['canceled'] and not connection.exists(keys.held(WORKER))
    assert connection.ttl(keys.results('a')) != -1


def test_runs_without_a_lease(connection: redis.Redis) -> None:
    enqueue(connection, 'a', more={}, ttl=None)
    connection.delete(keys.queue(QUEUE))
    outcome = finished(bring_into(connection, 'b', JobStatus.CREATED))._replace(job_id='a', execution_id='')
    assert transitions.finish(connection, '', [outcome]) == [True]
    assert places(connection, 'a') == ['finished'] and not connection.exists(keys.worker(''))


# ---- repeats ----


def test_repeats_at_once(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    connection.hset(keys.job('a'), 'greenq_interruptions', '[]')
    outcome = finished(claimed, options=repeat_plan())
    assert transitions.finish(connection, WORKER, [outcome]) == [True]
    assert places(connection, 'a') == ['queue'] and status(connection, 'a') == 'queued'
    assert connection.hmget(keys.job('a'), 'repeats_left', 'repeat_intervals', 'greenq_interruptions') == [
        b'1',
        b'[5]',
        None,
    ]
    assert len(results(connection, 'a')) == 1 and connection.ttl(keys.job('a')) == -1


@pytest.mark.parametrize('due', [0, FAR_FUTURE])
@pytest.mark.parametrize('result_ttl', [0, 500])
def test_a_repeated_call_does_not_repeat_the_job_twice(connection: redis.Redis, due: int, result_ttl: int) -> None:
    (claimed,) = start(connection, 'a')
    outcome = finished(claimed, result_ttl=result_ttl, options=repeat_plan(due))
    transitions.finish(connection, WORKER, [outcome])
    before = snapshot(connection)
    transitions.finish(connection, WORKER, [outcome], repeat=True)
    assert snapshot(connection) == before
    assert places(connection, 'a') == ['scheduled' if due else 'queue']


# ---- dependents ----


def deferred(client: redis.Redis, child: str, *parents: str, **options: Any) -> None:
    assert enqueue(client, child, dependency_ids=parents, **options) == ['deferred']


def test_releases_a_dependent_when_the_last_parent_has_finished(connection: redis.Redis) -> None:
    claimed = start(connection, 'p1', 'p2')
    deferred(connection, 'child', 'p1', 'p2')
    transitions.finish(connection, WORKER, [finished(claimed[0])])
    assert places(connection, 'child') == ['deferred']
    transitions.finish(connection, WORKER, [finished(claimed[1])])
    assert places(connection, 'child') == ['queue'] and status(connection, 'child') == 'queued'
    assert connection.hexists(keys.job('child'), 'enqueued_at')


def test_parents_that_finish_in_one_batch_release_a_dependent_once(connection: redis.Redis) -> None:
    claimed = start(connection, 'p1', 'p2', 'p3')
    deferred(connection, 'child', 'p1', 'p2', 'p3')
    transitions.finish(connection, WORKER, [finished(item, result_ttl=0) for item in claimed])
    assert waiting(connection) == ['child']


def test_a_missing_parent_counts_as_met(connection: redis.Redis) -> None:
    claimed = start(connection, 'p1', 'p2')
    deferred(connection, 'child', 'p1', 'p2')
    transitions.delete(connection, 'p1')
    transitions.finish(connection, WORKER, [finished(claimed[1])])
    assert waiting(connection) == ['child']


def test_a_dependent_goes_to_its_own_queue_and_place(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'parent')
    enqueue(connection, 'before', queue='other')
    deferred(connection, 'child', 'parent', queue='other', more={'enqueue_at_front': 1})
    transitions.finish(connection, WORKER, [finished(claimed)])
    assert waiting(connection, 'other') == ['child', 'before']


def test_dependents_that_no_longer_wait_are_left_alone(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'parent')
    for child in ('canceled', 'deleted', 'enqueued'):
        deferred(connection, child, 'parent')
    transitions.cancel(connection, 'canceled')
    transitions.delete(connection, 'deleted')
    enqueue(connection, 'enqueued')
    transitions.finish(connection, WORKER, [finished(claimed)])
    assert [places(connection, child) for child in ('canceled', 'deleted', 'enqueued')] == [['canceled'], [], ['queue']]


def test_a_loser_releases_nobody(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'parent')
    deferred(connection, 'child', 'parent')
    transitions.cancel(connection, 'parent')
    transitions.finish(connection, WORKER, [finished(claimed)])
    assert places(connection, 'child') == ['deferred']


def test_a_dependent_goes_behind_its_rate_limit(connection: redis.Redis) -> None:
    bring_into(connection, 'holder', JobStatus.RATE_LIMITED)
    (claimed,) = start(connection, 'parent')
    deferred(connection, 'child', 'parent', more={'rate_limit_key': 'narrow', 'rate_limit_concurrency': 1})
    transitions.finish(connection, WORKER, [finished(claimed)])
    assert status(connection, 'child') == 'rate_limited' and places(connection, 'child') == []


def test_a_parent_finished_while_its_dependent_was_on_its_way(connection: redis.Redis) -> None:
    """Whichever script comes first: the dependent sees a finished parent, or the parent sees its dependent."""
    enqueue(connection, 'parent')
    (claimed,) = claim(connection)
    transitions.finish(connection, WORKER, [finished(claimed)])
    assert enqueue(connection, 'child', dependency_ids=['parent']) == ['queued']
