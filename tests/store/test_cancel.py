"""cancel.lua, delete.lua, requeue.lua, release_dependents.lua: what producers do to single jobs."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.states import REGISTRY_OF_STATUS, JobStatus
from tests.store.situations import (
    QUEUE,
    WORKER,
    bring_into,
    enqueue,
    failed,
    finished,
    listed,
    places,
    snapshot,
    start,
    status,
    waiting,
)

IN_A_REGISTRY = [state for state in REGISTRY_OF_STATUS if state is not JobStatus.CANCELED]


def deferred(client: redis.Redis, child: str, *parents: str, **options: Any) -> None:
    assert enqueue(client, child, dependency_ids=parents, **options) == ['deferred']


@pytest.mark.parametrize('state', [state for state in JobStatus if state is not JobStatus.CANCELED])
def test_cancels_wherever_the_job_is(connection: redis.Redis, state: JobStatus) -> None:
    bring_into(connection, 'a', state)
    assert transitions.cancel(connection, 'a') == {}
    assert places(connection, 'a') == ['canceled'] and status(connection, 'a') == 'canceled'
    before = snapshot(connection)
    assert transitions.cancel(connection, 'a') is None
    assert snapshot(connection) == before


def test_there_is_nothing_to_cancel(connection: redis.Redis) -> None:
    assert transitions.cancel(connection, 'unknown') is None
    assert snapshot(connection) == {}


def test_canceling_enqueues_dependents_only_if_so_asked(connection: redis.Redis) -> None:
    enqueue(connection, 'p1', 'p2')
    deferred(connection, 'c1', 'p1')
    deferred(connection, 'c2', 'p2')
    transitions.cancel(connection, 'p1')
    assert places(connection, 'c1') == ['deferred']
    assert transitions.cancel(connection, 'p2', enqueue_dependents=True) == {QUEUE: ['c2']}
    assert waiting(connection) == ['c2']


def test_canceling_removes_from_dependencies_only_if_so_asked(connection: redis.Redis) -> None:
    enqueue(connection, 'parent')
    for child in ('c1', 'c2'):
        deferred(connection, child, 'parent', more={'dependency_ids': '["parent"]'})
    transitions.cancel(connection, 'c1')
    transitions.cancel(connection, 'c2', remove_from_dependencies=True)
    assert connection.smembers(keys.dependents('parent')) == {b'c1'}


def test_canceling_does_not_stop_half_way_at_a_damaged_field(connection: redis.Redis) -> None:
    enqueue(connection, 'a', more={'dependency_ids': '[damaged'})
    transitions.cancel(connection, 'a', remove_from_dependencies=True)
    assert places(connection, 'a') == ['canceled']


# ---- delete ----


@pytest.mark.parametrize('state', JobStatus)
def test_deletes_wherever_the_job_is(connection: redis.Redis, state: JobStatus) -> None:
    bring_into(connection, 'a', state)
    connection.xadd(keys.results('a'), {'type': 1})
    connection.sadd(keys.dependencies('a'), 'x')
    assert transitions.delete(connection, 'a') is True
    assert places(connection, 'a') == []
    assert not connection.exists(keys.job('a'), keys.results('a'), keys.dependencies('a'), keys.dependents('a'))
    assert state is not JobStatus.STARTED or not connection.exists(keys.executions('a'))
    assert transitions.delete(connection, 'a') is False


def test_deletes_dependents_only_if_so_asked(connection: redis.Redis) -> None:
    enqueue(connection, 'p1', 'p2')
    deferred(connection, 'c1', 'p1')
    deferred(connection, 'c2', 'p2')
    transitions.delete(connection, 'p1')
    transitions.delete(connection, 'p2', delete_dependents=True)
    assert status(connection, 'c1') == 'deferred' and status(connection, 'c2') is None
    assert list(listed(connection, 'deferred')) == ['c1']


def test_deletes_from_the_queue_unless_told_otherwise(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b')
    transitions.delete(connection, 'a')
    transitions.delete(connection, 'b', remove_from_queue=False)
    assert waiting(connection) == ['b']


def test_deleting_leaves_the_group(connection: redis.Redis) -> None:
    enqueue(connection, 'a', more={'group_id': 'g'})
    connection.sadd(keys.group('g'), 'a', 'b')
    transitions.delete(connection, 'a')
    assert connection.smembers(keys.group('g')) == {b'b'}


# ---- requeue ----


@pytest.mark.parametrize('state', IN_A_REGISTRY)
def test_requeues_from_every_registry(connection: redis.Redis, state: JobStatus) -> None:
    bring_into(connection, 'a', state)
    connection.hset(keys.job('a'), mapping={'exc_info': 'old', 'greenq_interruptions': '[]', 'ended_at': 'x'})
    connection.expire(keys.job('a'), 100)
    registry = keys.registry(REGISTRY_OF_STATUS[state], QUEUE)
    assert transitions.requeue(connection, 'a', registry, QUEUE) == 'queued'
    assert places(connection, 'a') == ['queue'] and connection.ttl(keys.job('a')) == -1
    assert connection.hmget(keys.job('a'), 'ended_at', 'exc_info', 'greenq_interruptions') == [b'', None, None]


def test_requeues_to_the_front_and_with_the_ttl_of_the_job(connection: redis.Redis) -> None:
    enqueue(connection, 'first')
    bring_into(connection, 'a', JobStatus.FAILED)
    connection.hset(keys.job('a'), 'ttl', 50)
    transitions.requeue(connection, 'a', keys.registry('failed', QUEUE), QUEUE, at_front=True)
    assert waiting(connection) == ['a', 'first'] and 0 < connection.ttl(keys.job('a')) <= 50


def test_requeues_once(connection: redis.Redis) -> None:
    bring_into(connection, 'a', JobStatus.FAILED)
    registry = keys.registry('failed', QUEUE)
    transitions.requeue(connection, 'a', registry, QUEUE)
    before = snapshot(connection)
    assert transitions.requeue(connection, 'a', registry, QUEUE) is None
    assert snapshot(connection) == before


def test_requeues_no_ghost(connection: redis.Redis) -> None:
    connection.zadd(keys.registry('failed', QUEUE), {'ghost': 1})
    assert transitions.requeue(connection, 'ghost', keys.registry('failed', QUEUE), QUEUE) == 'gone'
    assert snapshot(connection) == {}


# ---- dependents, on request ----


@pytest.mark.parametrize(('parent_status', 'released'), [('', []), ('failed', []), ('finished', ['child'])])
def test_releases_dependents_by_the_status_given(
    connection: redis.Redis, parent_status: str, released: list[str]
) -> None:
    (claimed,) = start(connection, 'parent')
    deferred(connection, 'child', 'parent')
    transitions.fail(connection, WORKER, [failed(claimed)])
    transitions.enqueue_dependents(connection, 'parent', parent_status=parent_status)
    assert waiting(connection) == released


def test_releases_dependents_but_one(connection: redis.Redis) -> None:
    enqueue(connection, 'parent', queue='other')
    deferred(connection, 'c1', 'parent')
    deferred(connection, 'c2', 'parent')
    released = transitions.enqueue_dependents(connection, 'parent', exclude_job_id='c1', parent_status='finished')
    assert released == {QUEUE: ['c2']}
    before = snapshot(connection)
    again = transitions.enqueue_dependents(connection, 'parent', exclude_job_id='c1', parent_status='finished')
    assert again == {} and snapshot(connection) == before


# ---- queues ----


@pytest.mark.parametrize('count', [0, 1, 1000, 2500])
def test_empties_in_chunks(connection: redis.Redis, count: int) -> None:
    if count:
        enqueue(connection, *(f'job{n}' for n in range(count)))
    connection.rpush(keys.queue('other'), 'x')
    assert transitions.empty(connection, QUEUE) == count
    assert not connection.exists(keys.queue(QUEUE), keys.job('job0')) and waiting(connection, 'other') == ['x']
    tombstones = connection.keys(keys.tombstone('*'))
    assert connection.dbsize() == len(tombstones) + (2 if count else 1)


def test_compacts_in_order(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'gone1', 'b', 'gone2', 'c')
    connection.delete(keys.job('gone1'), keys.job('gone2'))
    assert transitions.compact(connection, QUEUE) == 2
    assert waiting(connection) == ['a', 'b', 'c']
    assert transitions.compact(connection, QUEUE) == 0


def test_forgets_a_queue_and_not_its_jobs(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    transitions.delete_queue(connection, QUEUE)
    assert list(snapshot(connection)) == [keys.job('a')]


def test_a_finished_job_may_be_canceled_and_requeued(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    transitions.finish(connection, WORKER, [finished(claimed)])
    transitions.cancel(connection, 'a')
    assert transitions.requeue(connection, 'a', keys.registry('canceled', QUEUE), QUEUE) == 'queued'
    assert places(connection, 'a') == ['queue']
