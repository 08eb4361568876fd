"""A server that is full: work that is there can be taken, finished and given back; new work is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from redis.exceptions import OutOfMemoryError

from greenq.store import keys, membership, transitions
from greenq.store.scheduling import promote_scheduled
from greenq.store.states import JobStatus
from tests.store.situations import (
    LIFETIME,
    QUEUE,
    WORKER,
    beat,
    bring_into,
    claim,
    end_lease,
    enqueue,
    extend,
    failed,
    finished,
    join,
    places,
    recover,
    release,
    retried,
    snapshot,
    start,
    submission,
)


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    """During the block the server is above its limit and evicts nothing."""
    client.config_set('maxmemory', 1)
    try:
        with pytest.raises(OutOfMemoryError):
            client.set('any', 'thing')
        yield
    finally:
        client.config_set('maxmemory', 0)


def _claim(client: redis.Redis) -> None:
    enqueue(client, 'a')
    with full(client):
        assert len(claim(client)) == 1


def _claim_parked(client: redis.Redis) -> None:
    enqueue(client, 'a')
    client.lmove(keys.queue(QUEUE), keys.parked(WORKER))
    with full(client):
        assert len(claim(client)) == 1


def _begin(client: redis.Redis) -> None:
    enqueue(client, 'a')
    client.delete(keys.queue(QUEUE))
    with full(client):
        transitions.begin(client, WORKER, 'a', 'x', QUEUE, lifetime=LIFETIME)


def _finish(client: redis.Redis) -> None:
    (claimed,) = start(client, 'a')
    enqueue(client, 'child', dependency_ids=['a'])
    with full(client):
        assert transitions.finish(client, WORKER, [finished(claimed)]) == [True]
    assert places(client, 'child') == ['queue']


def _fail(client: redis.Redis) -> None:
    (claimed,) = start(client, 'a')
    with full(client):
        assert transitions.fail(client, WORKER, [failed(claimed)]) == [True]


def _retry(client: redis.Redis) -> None:
    (claimed,) = start(client, 'a')
    with full(client):
        assert transitions.retry(client, WORKER, [retried(claimed)]) == [True]


def _release(client: redis.Redis) -> None:
    (claimed,) = start(client, 'a')
    with full(client):
        assert release(client, claimed) == ['queued']


def _recover(client: redis.Redis) -> None:
    join(client)
    start(client, 'a')
    end_lease(client)
    with full(client):
        assert recover(client) == [('a', 'queued')]


def _recover_for_adoption(client: redis.Redis) -> None:
    join(client, on_lost='fail')
    start(client, 'a')
    end_lease(client)
    with full(client):
        assert recover(client) == [('a', 'adopted')]


def _recover_after_a_report(client: redis.Redis) -> None:
    join(client)
    start(client, 'a')
    with full(client):
        assert membership.report_death(client, WORKER, culprit='x', verdict='suspect', cause='SIGKILL') is True
        assert recover(client, worker='') == [('a', 'queued')]


def _cancel(client: redis.Redis) -> None:
    enqueue(client, 'a')
    with full(client):
        assert transitions.cancel(client, 'a') == {}


def _requeue(client: redis.Redis) -> None:
    bring_into(client, 'a', JobStatus.FAILED)
    with full(client):
        assert transitions.requeue(client, 'a', keys.registry('failed', QUEUE), QUEUE) == 'queued'


def _promote_scheduled(client: redis.Redis) -> None:
    transitions.schedule(client, QUEUE, submission('a'), 1)
    with full(client):
        assert promote_scheduled(client, QUEUE).job_ids == ['a']


@pytest.mark.parametrize(
    ('scenario', 'place'),
    [
        (_claim, 'started'),
        (_claim_parked, 'started'),
        (_begin, 'started'),
        (_finish, 'finished'),
        (_fail, 'failed'),
        (_retry, 'queue'),
        (_release, 'queue'),
        (_recover, 'queue'),
        (_recover_for_adoption, 'started'),
        (_recover_after_a_report, 'queue'),
        (_cancel, 'canceled'),
        (_requeue, 'queue'),
        (_promote_scheduled, 'queue'),
    ],
)
def test_work_that_is_there_goes_on(
    connection: redis.Redis, scenario: Callable[[redis.Redis], Any], place: str
) -> None:
    scenario(connection)
    assert places(connection, 'a') == [place]


def test_memory_can_be_freed(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b', 'c')
    with full(connection):
        assert transitions.delete(connection, 'a') is True
        assert transitions.empty(connection, QUEUE) == 2
    assert places(connection, 'b') == []


def test_a_worker_keeps_its_lease(connection: redis.Redis) -> None:
    """Else its jobs would be taken away, and run twice, by whoever still can."""
    join(connection, lease_ms=0)
    claimed = start(connection, 'a')
    with full(connection):
        assert beat(connection, claimed) == ('ok', [])
        assert recover(connection) == []
        assert extend(connection) is True
        assert join(connection, 'another') == 'ok'
        membership.depart(connection, 'another', 'token', [QUEUE])


@pytest.mark.parametrize('how', ['enqueue', 'schedule', 'pipeline'])
def test_new_work_is_refused_and_leaves_nothing(connection: redis.Redis, how: str) -> None:
    enqueue(connection, 'warm')
    transitions.schedule(connection, QUEUE, submission('warm'), 1)
    before = snapshot(connection)
    with full(connection), pytest.raises(OutOfMemoryError):
        if how == 'enqueue':
            enqueue(connection, 'a')
        elif how == 'schedule':
            transitions.schedule(connection, QUEUE, submission('a'), 1)
        else:
            with connection.pipeline(transaction=False) as pipeline:
                transitions.enqueue(pipeline, QUEUE, [submission('a')])
                pipeline.execute()
    assert snapshot(connection) == before
