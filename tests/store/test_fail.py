"""fail.lua: recording a failure for good, or a stop."""

from __future__ import annotations

import pytest
import redis

from greenq.store import keys, transitions
from tests.store.situations import (
    ENDED_ISO,
    QUEUE,
    WORKER,
    enqueue,
    failed,
    join,
    listed,
    places,
    results,
    snapshot,
    start,
    status,
)


def test_records_everything_at_once(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    assert transitions.fail(connection, WORKER, [failed(claimed)], state='idle') == [True]
    assert places(connection, 'a') == ['failed']
    assert connection.hmget(keys.job('a'), 'status', 'ended_at') == [b'failed', ENDED_ISO.encode()]
    assert 597 < connection.ttl(keys.job('a')) <= 600 and 597 < connection.ttl(keys.results('a')) <= 600
    assert results(connection, 'a') == [
        {
            'type': '2',
            'worker_name': WORKER,
            'exc_string': 'trace',
            'execution_id': claimed.execution_id,
            'execution_started_at': '1000.0',
            'execution_ended_at': '1002.5',
        }
    ]
    assert connection.hmget(keys.worker(WORKER), 'failed_job_count', 'total_working_time', 'state') == [
        b'1',
        b'2.5',
        b'idle',
    ]


def test_a_failure_for_ever(connection: redis.Redis) -> None:
    transitions.fail(connection, WORKER, [failed(start(connection, 'a')[0], failure_ttl=-1)])
    assert listed(connection, 'failed') == {'a': -1.0}
    assert connection.ttl(keys.job('a')) == connection.ttl(keys.results('a')) == -1


def test_a_failure_that_is_not_kept(connection: redis.Redis) -> None:
    transitions.fail(connection, WORKER, [failed(start(connection, 'a')[0], failure_ttl=0)])
    assert set(snapshot(connection)) == {keys.queues(), keys.leases(), keys.tombstone('a')}


def test_without_registering(connection: redis.Redis) -> None:
    transitions.fail(connection, WORKER, [failed(start(connection, 'a')[0], register=False)])
    assert places(connection, 'a') == [] and status(connection, 'a') == 'failed' and results(connection, 'a') == []


def test_a_repeat_says_the_same_and_writes_nothing(connection: redis.Redis) -> None:
    join(connection)
    outcomes = [failed(item) for item in start(connection, 'a', 'b')]
    transitions.fail(connection, WORKER, outcomes)
    before = snapshot(connection)
    assert transitions.fail(connection, WORKER, outcomes, repeat=True) == [True, True]
    assert transitions.fail(connection, WORKER, outcomes) == [False, False]
    assert snapshot(connection) == before


@pytest.mark.parametrize(
    ('how', 'allow_failure', 'expected'),
    [('failed', False, 'deferred'), ('failed', True, 'queue'), ('stopped', True, 'deferred')],
)
def test_dependents_of_a_failed_parent(connection: redis.Redis, how: str, allow_failure: bool, expected: str) -> None:
    (claimed,) = start(connection, 'parent')
    more = {'allow_dependency_failures': int(allow_failure)}
    enqueue(connection, 'child', dependency_ids=['parent'], allow_failure=allow_failure, more=more)
    transitions.fail(connection, WORKER, [failed(claimed, status=how)])
    assert places(connection, 'child') == [expected]
    assert places(connection, 'parent') == ['failed'] and status(connection, 'parent') == how


def test_failed_parents_in_one_batch_release_a_dependent_once(connection: redis.Redis) -> None:
    claimed = start(connection, 'p1', 'p2')
    more = {'allow_dependency_failures': 1}
    enqueue(connection, 'child', dependency_ids=['p1', 'p2'], allow_failure=True, more=more)
    transitions.fail(connection, WORKER, [failed(item) for item in claimed])
    assert connection.lrange(keys.queue(QUEUE), 0, -1) == [b'child']
