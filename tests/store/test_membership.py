"""join.lua, beat.lua, beat_idle.lua, extend.lua, depart.lua: a worker's lease and RQ's record of it."""

from __future__ import annotations

import pytest
import redis

from greenq.store import keys, membership, transitions
from tests.store.situations import (
    LIFETIME,
    QUEUE,
    WORKER,
    beat,
    claim,
    end_lease,
    enqueue,
    extend,
    finished,
    join,
    listed,
    places,
    recover,
    snapshot,
    start,
    waiting,
)


def lease_left(client: redis.Redis, worker: str = WORKER) -> float:
    """Milliseconds until the lease ends, by the server's clock."""
    seconds, micros = client.time()
    score = client.zscore(keys.leases(), worker)
    assert score is not None
    return float(score) - seconds * 1000 - micros / 1000


# ---- join ----


def test_joining_registers_for_rq_and_for_greenq(connection: redis.Redis) -> None:
    assert join(connection, on_lost='fail') == 'ok'
    found = snapshot(connection)
    assert set(found) == {keys.workers(), keys.workers(QUEUE), keys.worker(WORKER), keys.member(WORKER), keys.leases()}
    assert found[keys.workers()][2] == found[keys.workers(QUEUE)][2] == {keys.worker(WORKER).encode()}
    record = {b'queues': b'work', b'state': b'starting', b'greenq_token': b'token'}
    assert found[keys.worker(WORKER)] == ('hash', True, record)
    assert found[keys.member(WORKER)][2] == {b'token': b'token', b'on_lost': b'fail'}
    assert 14_000 < lease_left(connection) <= 15_000 and 475 < connection.ttl(keys.worker(WORKER)) <= 480


def test_a_name_is_taken_while_its_worker_lives(connection: redis.Redis) -> None:
    join(connection)
    before = snapshot(connection)
    assert join(connection, token='other') == 'taken'
    assert snapshot(connection) == before


def test_a_name_is_taken_while_an_rq_worker_has_it(connection: redis.Redis) -> None:
    connection.hset(keys.worker(WORKER), 'birth', 'x')
    assert join(connection) == 'taken'
    connection.hset(keys.worker(WORKER), 'death', 'x')
    assert join(connection) == 'ok'
    assert not connection.hexists(keys.worker(WORKER), 'death')


def test_joining_again_after_a_lost_reply(connection: redis.Redis) -> None:
    join(connection)
    before = snapshot(connection)
    assert join(connection) == 'ok'
    after = snapshot(connection)
    before.pop(keys.leases()), after.pop(keys.leases())
    assert after == before


def test_what_a_dead_namesake_held_is_the_callers(connection: redis.Redis) -> None:
    join(connection, token='old')
    start(connection, 'a')
    end_lease(connection)
    assert join(connection, token='new') == 'ok'
    assert recover(connection) == []
    assert connection.scard(keys.held(WORKER)) == 1
    assert beat(connection, token='old')[0] == 'superseded'


def test_rejoining_after_the_record_was_lost(connection: redis.Redis) -> None:
    join(connection)
    connection.flushall()
    assert beat(connection) == ('missing', [])
    assert join(connection, again=True) == 'ok'
    assert beat(connection) == ('ok', [])


def test_rejoining_is_refused_if_another_has_the_name_by_now(connection: redis.Redis) -> None:
    join(connection, token='other')
    assert join(connection, again=True) == 'taken'


# ---- beat ----


def test_a_beat_extends_everything(connection: redis.Redis) -> None:
    join(connection, worker_ttl=10, lease_ms=100)
    (claimed,) = start(connection, 'a')
    composite = f'a:{claimed.execution_id}'
    connection.zadd(keys.registry('started', QUEUE), {composite: 5})
    connection.hset(keys.job('a'), 'last_heartbeat', 'old')
    for key in (keys.execution(composite), keys.executions('a'), keys.worker_executions(WORKER)):
        connection.expire(key, 9)
    assert beat(connection, [claimed]) == ('ok', [])
    assert lease_left(connection) > 14_000 and connection.ttl(keys.worker(WORKER)) > 470
    seconds = connection.time()[0]
    assert abs(listed(connection, 'started')[composite] - seconds - LIFETIME) < 3
    for key in (keys.execution(composite), keys.executions('a'), keys.worker_executions(WORKER)):
        assert connection.ttl(key) >= LIFETIME - 3
    assert connection.hget(keys.job('a'), 'last_heartbeat') not in (b'old', None)


def test_what_is_not_recorded_at_its_claim_is_by_a_beat_until_it_ends(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'short', 'long', 'later')
    claimed = transitions.claim(connection, WORKER, [QUEUE], ['x', 'y', 'z'], lifetime=LIFETIME, record=False)
    assert claimed is not None
    short, long, later = claimed
    records = {'x': keys.execution('short:x'), 'y': keys.execution('long:y'), 'z': keys.execution('later:z')}
    index = keys.worker_executions(WORKER)
    assert not connection.exists(index, *records.values(), keys.executions('long'))

    assert beat(connection, [long, later]) == ('ok', [])
    assert connection.smembers(index) == {b'long:y', b'later:z'}
    assert connection.exists(records['x']) == 0 and connection.exists(records['y'], records['z']) == 2
    assert LIFETIME < connection.ttl(index) <= 480

    assert transitions.finish(connection, WORKER, [finished(short), finished(long)]) == [True, True]
    assert connection.smembers(index) == {b'later:z'}
    assert not connection.exists(records['y'], keys.executions('long'))
    assert connection.exists(records['z'], keys.executions('later')) == 2
    assert transitions.finish(connection, WORKER, [finished(later)]) == [True]
    assert not connection.exists(index, *records.values(), keys.executions('later'))


def test_a_beat_restores_an_evicted_execution(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    key = keys.execution(f'a:{claimed.execution_id}')
    before = connection.hgetall(key)
    connection.delete(key)
    beat(connection, [claimed])
    assert set(connection.hgetall(key)) == set(before)


def test_a_beat_brings_no_deleted_job_back(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    connection.delete(keys.job('a'))
    beat(connection, [claimed])
    assert not connection.exists(keys.job('a'))


@pytest.mark.parametrize('lost', ['worker', 'member'])
def test_a_lost_record_is_missing(connection: redis.Redis, lost: str) -> None:
    join(connection)
    connection.delete(getattr(keys, lost)(WORKER))
    before = snapshot(connection)
    assert beat(connection) == ('missing', [])
    assert snapshot(connection) == before


def test_a_claim_does_not_hide_a_lost_record(connection: redis.Redis) -> None:
    join(connection)
    connection.delete(keys.worker(WORKER))
    enqueue(connection, 'a')
    claimed = claim(connection)
    assert beat(connection, claimed)[0] == 'missing'


def test_a_superseded_worker_extends_nothing(connection: redis.Redis) -> None:
    join(connection, token='other', lease_ms=3000)
    before = snapshot(connection)
    assert beat(connection) == ('superseded', [])
    assert snapshot(connection) == before
    connection.delete(keys.worker(WORKER))
    assert beat(connection) == ('superseded', [])


# ---- extend ----


def test_a_supervisor_keeps_everything_of_a_worker_that_hangs(connection: redis.Redis) -> None:
    join(connection, worker_ttl=10, lease_ms=100)
    claimed = start(connection, 'a', 'b')
    composites = [f'{item.job_id}:{item.execution_id}' for item in claimed]
    connection.zadd(keys.registry('started', QUEUE), dict.fromkeys(composites, 5))
    connection.hset(keys.worker(WORKER), 'last_heartbeat', 'old')
    lasting = [keys.worker_executions(WORKER), keys.executions('b'), *map(keys.execution, composites)]
    for key in lasting:
        connection.expire(key, 9)
    assert extend(connection, lease_ms=9000) is True
    assert 8000 < lease_left(connection) <= 9000
    assert connection.ttl(keys.worker(WORKER)) > 470
    assert connection.hget(keys.worker(WORKER), 'last_heartbeat') not in (b'old', None)
    seconds = connection.time()[0]
    assert all(abs(score - seconds - LIFETIME) < 3 for score in listed(connection, 'started').values())
    assert all(connection.ttl(key) >= LIFETIME - 3 for key in lasting)
    (expiry,) = connection.zmscore(keys.executions('b'), [claimed[1].execution_id])
    assert expiry is not None and expiry > seconds + LIFETIME


def test_a_worker_without_a_lease_is_not_kept(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    connection.zrem(keys.leases(), WORKER)
    before = snapshot(connection)
    assert extend(connection) is False
    assert snapshot(connection) == before


def test_keeping_a_worker_brings_nothing_back(connection: redis.Redis) -> None:
    """Neither its own record nor what was taken from it meanwhile."""
    join(connection)
    (claimed,) = start(connection, 'a')
    connection.delete(keys.worker(WORKER), keys.execution(f'a:{claimed.execution_id}'), keys.executions('a'))
    transitions.cancel(connection, 'a')
    assert extend(connection) is True
    assert places(connection, 'a') == ['canceled']
    assert not connection.exists(keys.worker(WORKER), keys.execution(f'a:{claimed.execution_id}'), keys.executions('a'))


def test_a_damaged_job_does_not_keep_the_others_from_being_kept(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a', 'b')
    connection.set(keys.job('a'), 'damaged')
    assert extend(connection) is True


# ---- depart ----


def depart(client: redis.Redis, token: str = 'token') -> int:
    return membership.depart(client, WORKER, token, [QUEUE])


def test_departing_leaves_rqs_record_for_a_minute(connection: redis.Redis) -> None:
    join(connection)
    assert depart(connection) == 0
    found = snapshot(connection)
    assert set(found) == {keys.worker(WORKER)} and b'death' in found[keys.worker(WORKER)][2]
    assert 0 < connection.ttl(keys.worker(WORKER)) <= 60
    assert depart(connection) == 0
    assert join(connection, token='next') == 'ok'


def test_departing_unparks_in_order(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'a', 'b', 'c')
    for _ in range(2):
        connection.lmove(keys.queue(QUEUE), keys.parked(WORKER), 'LEFT', 'RIGHT')
    connection.rpush(keys.parked(WORKER), 'ghost')
    depart(connection)
    assert waiting(connection) == ['a', 'b', 'c'] and not connection.exists(keys.parked(WORKER))


def test_what_is_left_is_recoverable_at_once(connection: redis.Redis) -> None:
    join(connection, on_lost='fail')
    start(connection, 'a')
    assert depart(connection) == 1
    assert recover(connection) == [('a', 'adopted')]
    assert places(connection, 'a') == ['started']


def test_a_superseded_worker_does_not_end_its_successor(connection: redis.Redis) -> None:
    join(connection, token='other')
    before = snapshot(connection)
    assert depart(connection) == 0
    assert snapshot(connection) == before


# ---- beat_idle ----


def beat_idle(client: redis.Redis, token: str = 'token', *, look: bool = True) -> tuple[str, int]:
    return membership.beat_idle(client, WORKER, token, lease_ms=15_000, look=look)


def test_an_idle_beat_extends_the_lease_and_nothing_else(connection: redis.Redis) -> None:
    join(connection)
    end_lease(connection)
    before = snapshot(connection)
    verdict, left = beat_idle(connection)
    assert verdict == 'ok' and 14_900 < left <= 15_000 and 14_000 < lease_left(connection) <= 15_000
    after = snapshot(connection)
    before.pop(keys.leases()), after.pop(keys.leases())
    assert after == before


def test_an_idle_beat_sees_whose_lease_ends_first(connection: redis.Redis) -> None:
    join(connection)
    join(connection, 'other')
    seconds, micros = connection.time()
    connection.zadd(keys.leases(), {'other': seconds * 1000 + micros / 1000 + 5000})
    verdict, left = beat_idle(connection)
    assert verdict == 'ok' and 4500 < left <= 5000
    end_lease(connection, 'other')
    assert beat_idle(connection, look=False) == ('ok', 0)
    assert beat_idle(connection) == ('lost', 0)


def test_an_idle_beat_of_who_is_not_known(connection: redis.Redis) -> None:
    assert beat_idle(connection) == ('missing', 0)
    join(connection)
    before = snapshot(connection)
    assert beat_idle(connection, 'earlier') == ('superseded', 0)
    assert snapshot(connection) == before
    connection.delete(keys.worker(WORKER))
    assert beat_idle(connection) == ('missing', 0)
    assert not connection.exists(keys.worker(WORKER))
