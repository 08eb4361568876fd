"""retry.lua: sending executions round again."""

from __future__ import annotations

import pytest
import redis

from greenq.store import keys, transitions
from tests.store.situations import (
    FAR_FUTURE,
    WORKER,
    claim,
    end_lease,
    enqueue,
    join,
    listed,
    places,
    recover,
    results,
    retried,
    snapshot,
    start,
    status,
    waiting,
)


@pytest.mark.parametrize(('at_front', 'order'), [(False, ['other', 'a']), (True, ['a', 'other'])])
def test_at_once(connection: redis.Redis, at_front: bool, order: list[str]) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    enqueue(connection, 'other')
    outcome = retried(claimed, at_front=at_front)
    assert transitions.retry(connection, WORKER, [outcome], state='idle') == [True]
    assert waiting(connection) == order and places(connection, 'a') == ['queue']
    assert connection.hmget(keys.job('a'), 'status', 'retries_left') == [b'queued', b'1']
    assert results(connection, 'a') == []
    assert connection.hmget(keys.worker(WORKER), 'failed_job_count', 'state') == [b'1', b'idle']


def test_at_a_time(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    transitions.retry(connection, WORKER, [retried(claimed, due=FAR_FUTURE)])
    assert places(connection, 'a') == ['scheduled'] and status(connection, 'a') == 'scheduled'
    assert listed(connection, 'scheduled') == {'a': FAR_FUTURE}


def test_a_returned_retry_is_a_result(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    transitions.retry(connection, WORKER, [retried(claimed)._replace(return_value=b'again', result_ttl=77)])
    (result,) = results(connection, 'a')
    assert result['type'] == '4' and result['return_value'] == 'again'
    assert 70 < connection.ttl(keys.results('a')) <= 77


def test_interruptions_in_a_row_end_with_a_try_that_ran_to_its_end(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    end_lease(connection)
    recover(connection)
    assert connection.hexists(keys.job('a'), 'greenq_interruptions')
    transitions.retry(connection, WORKER, [retried(claim(connection)[0])])
    assert not connection.hexists(keys.job('a'), 'greenq_interruptions')


@pytest.mark.parametrize('due', [None, FAR_FUTURE])
@pytest.mark.parametrize('return_value', [b'', b'again'])
def test_a_repeat_says_the_same_and_writes_nothing(
    connection: redis.Redis, due: int | None, return_value: bytes
) -> None:
    join(connection)
    outcomes = [retried(item, due=due)._replace(return_value=return_value) for item in start(connection, 'a', 'b')]
    transitions.retry(connection, WORKER, outcomes)
    before = snapshot(connection)
    assert transitions.retry(connection, WORKER, outcomes, repeat=True) == [True, True]
    assert transitions.retry(connection, WORKER, outcomes) == [False, False]
    assert snapshot(connection) == before


def test_a_repeat_after_the_next_try_has_begun(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    transitions.retry(connection, WORKER, [retried(claimed)])
    claim(connection, worker='ben')
    before = snapshot(connection)
    transitions.retry(connection, WORKER, [retried(claimed)], repeat=True)
    assert snapshot(connection) == before
