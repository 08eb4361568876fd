"""The fence: whoever has lost an execution writes nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.transitions import Claimed
from tests.store.situations import (
    QUEUE,
    WORKER,
    beat,
    claim,
    end_lease,
    failed,
    finished,
    join,
    places,
    recover,
    release,
    retried,
    snapshot,
    start,
)


def _by_recovery(client: redis.Redis, claimed: Claimed) -> None:
    end_lease(client)
    recover(client)


def _by_recovery_and_the_next_worker(client: redis.Redis, claimed: Claimed) -> None:
    _by_recovery(client, claimed)
    claim(client, worker='ben')


TAKEN_AWAY: dict[str, Callable[[redis.Redis, Claimed], Any]] = {
    'cancel': lambda client, claimed: transitions.cancel(client, claimed.job_id),
    'delete': lambda client, claimed: transitions.delete(client, claimed.job_id),
    'recovery': _by_recovery,
    'recovery and next worker': _by_recovery_and_the_next_worker,
    'cleaning by RQ': lambda client, claimed: client.zrem(
        keys.registry('started', QUEUE), f'{claimed.job_id}:{claimed.execution_id}'
    ),
}
OUTCOMES: dict[str, Callable[[redis.Redis, Claimed, bool], Any]] = {
    'finish': lambda client, claimed, repeat: transitions.finish(client, WORKER, [finished(claimed)], repeat=repeat),
    'finish and forget': lambda client, claimed, repeat: transitions.finish(
        client, WORKER, [finished(claimed, result_ttl=0)], repeat=repeat
    ),
    'fail': lambda client, claimed, repeat: transitions.fail(client, WORKER, [failed(claimed)], repeat=repeat),
    'retry': lambda client, claimed, repeat: transitions.retry(client, WORKER, [retried(claimed)], repeat=repeat),
}
#: What a canceled job returns is kept, for which see `test_finish.py`.
PAIRS = [(how, outcome) for how in TAKEN_AWAY for outcome in OUTCOMES if (how, outcome[:6]) != ('cancel', 'finish')]


@pytest.mark.parametrize('repeat', [False, True])
@pytest.mark.parametrize(('how', 'outcome'), PAIRS)
def test_the_outcome_of_a_loser_is_not_written(connection: redis.Redis, how: str, outcome: str, repeat: bool) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    TAKEN_AWAY[how](connection, claimed)
    before = snapshot(connection)
    accepted = OUTCOMES[outcome](connection, claimed, repeat)
    # All that changes is what the worker is said to run.
    for index in (keys.held(WORKER), keys.worker_executions(WORKER)):
        before.pop(index, None)
    assert snapshot(connection) == before
    if not (repeat and outcome == 'retry'):
        # A repeated retry cannot tell "sent round by my first try" from "by a rescuer"; both leave nothing to do.
        assert accepted == [False]


@pytest.mark.parametrize('how', TAKEN_AWAY)
def test_a_loser_gives_nothing_back(connection: redis.Redis, how: str) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    TAKEN_AWAY[how](connection, claimed)
    before = places(connection, 'a')
    assert release(connection, claimed) == ['lost']
    assert places(connection, 'a') == before
    assert not connection.exists(keys.held(WORKER))


@pytest.mark.parametrize('how', ['cancel', 'delete', 'cleaning by RQ'])
def test_a_loser_hears_of_it_by_its_beat(connection: redis.Redis, how: str) -> None:
    join(connection)
    claimed = start(connection, 'a', 'b')
    TAKEN_AWAY[how](connection, claimed[0])
    assert beat(connection, claimed) == ('ok', [f'a:{claimed[0].execution_id}'])
    assert connection.smembers(keys.held(WORKER)) == {f'b:{claimed[1].execution_id}'.encode()}


def test_a_loser_is_not_recovered(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    TAKEN_AWAY['cleaning by RQ'](connection, claimed)
    end_lease(connection)
    assert recover(connection) == []
    assert places(connection, 'a') == [] and not connection.exists(keys.held(WORKER), keys.leases())
