"""claim.lua and begin.lua: taking jobs."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.script import _read, script
from greenq.store.states import JobStatus
from greenq.store.transitions import StandingReply
from greenq.utils import utcformat
from tests.store.situations import (
    LIFETIME,
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
    waiting,
)


def server_time(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return seconds + micros / 1e6


def test_moves_status_execution_and_lease_in_one_step(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'a', ttl=1000, more={'ttl': 1000})
    (claimed,) = claim(connection, ids=['x'])
    assert claimed[:3] == ('a', 'x', QUEUE)
    assert claimed.hash[b'status'] == b'queued' and claimed.hash[b'data'] == b'\x00\xff'
    job = connection.hgetall(keys.job('a'))
    assert job[b'status'] == b'started' and job[b'worker_name'] == WORKER.encode()
    assert job[b'started_at'] == job[b'last_heartbeat'] != b''
    assert connection.ttl(keys.job('a')) == -1
    assert not connection.exists(keys.queue(QUEUE))
    (entry,) = listed(connection, 'started').items()
    assert entry[0] == 'a:x' and abs(entry[1] - server_time(connection) - LIFETIME) < 3
    assert connection.hget(keys.execution('a:x'), 'worker_name') == WORKER.encode()
    assert LIFETIME - 3 < connection.ttl(keys.execution('a:x')) <= LIFETIME
    assert connection.zrange(keys.executions('a'), 0, -1) == [b'x']
    assert connection.smembers(keys.held(WORKER)) == connection.smembers(keys.worker_executions(WORKER)) == {b'a:x'}
    assert connection.ttl(keys.held(WORKER)) == -1
    assert connection.hget(keys.worker(WORKER), 'state') == b'busy'


def test_takes_no_more_than_asked_in_the_order_of_queues(connection: redis.Redis) -> None:
    enqueue(connection, 'low1', 'low2', queue='low')
    enqueue(connection, 'high1', 'high2', queue='high')
    claimed = claim(connection, 3, queues=['high', 'low'])
    assert [(item.job_id, item.queue) for item in claimed] == [('high1', 'high'), ('high2', 'high'), ('low1', 'low')]
    assert waiting(connection, 'low') == ['low2']
    assert len({item.execution_id for item in claimed}) == 3


def test_takes_fewer_when_they_are_large(connection: redis.Redis) -> None:
    """A server sends a long reply in pieces, between which others have their turn."""
    names = [f'job{number}' for number in range(60)]
    enqueue(connection, *names, more={'data': b'x' * 2000})
    taken: list[str] = []
    for _ in range(3):
        claimed = claim(connection, 60 - len(taken))
        assert 20 <= len(claimed) <= 40 or len(taken) + len(claimed) == 60
        taken += [item.job_id for item in claimed]
    assert taken == names and waiting(connection) == []
    enqueue(connection, 'huge', 'next', more={'data': b'x' * 1_000_000})
    assert [item.job_id for item in claim(connection)] == ['huge']
    assert waiting(connection) == ['next']


def test_takes_what_was_parked_first(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b')
    enqueue(connection, 'c', queue='other')
    connection.lmove(keys.queue('other'), keys.parked(WORKER), 'LEFT', 'RIGHT')
    claimed = claim(connection, 2, queues=[QUEUE, 'other'])
    assert [(item.job_id, item.queue) for item in claimed] == [('c', 'other'), ('a', QUEUE)]
    assert not connection.exists(keys.parked(WORKER))


def test_drops_what_cannot_run_and_fills_up_with_others(connection: redis.Redis) -> None:
    bring_into(connection, 'canceled', JobStatus.CANCELED)
    connection.rpush(keys.queue(QUEUE), 'no-hash', 'canceled')
    connection.set(keys.job('no-job'), 'a string')
    connection.rpush(keys.queue(QUEUE), 'no-job')
    enqueue(connection, 'a', 'b')
    assert [item.job_id for item in claim(connection, 2)] == ['a', 'b']
    assert waiting(connection) == [] and status(connection, 'canceled') == 'canceled'
    connection.delete(keys.job('no-job'))


def test_an_empty_queue_gives_nothing_and_writes_nothing(connection: redis.Redis) -> None:
    join(connection)
    before = snapshot(connection)
    assert claim(connection, 5) == []
    assert snapshot(connection) == before


def test_suspended(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    connection.set(keys.suspended(), 1)
    assert transitions.claim(connection, WORKER, [QUEUE], ['x'], lifetime=LIFETIME) is None
    assert places(connection, 'a') == ['queue']


def test_a_repeat_returns_what_the_first_try_took(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b', 'c')
    ids = ['x', 'y']
    first = claim(connection, ids=ids)
    before = snapshot(connection)
    again = claim(connection, ids=ids, repeat=True)
    assert sorted(item[:3] for item in again) == sorted(item[:3] for item in first)
    assert snapshot(connection) == before


def test_a_repeat_takes_more_if_the_first_try_came_short(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    claim(connection, ids=['x', 'y'])
    enqueue(connection, 'b')
    again = claim(connection, ids=['x', 'y'], repeat=True)
    assert [(item.job_id, item.execution_id) for item in again] == [('a', 'x'), ('b', 'y')]


def test_a_repeat_after_a_try_that_never_arrived(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    assert [item.job_id for item in claim(connection, ids=['x'], repeat=True)] == ['a']


def test_a_repeat_while_suspended_still_returns_what_was_taken(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b')
    claim(connection, ids=['x'])
    connection.set(keys.suspended(), 1)
    assert [item.job_id for item in claim(connection, ids=['x', 'y'], repeat=True)] == ['a']


def test_a_repeat_does_not_return_what_was_taken_away_meanwhile(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b', 'c')
    claim(connection, ids=['x', 'y', 'z'])
    transitions.cancel(connection, 'a')
    transitions.delete(connection, 'b')
    assert [item.job_id for item in claim(connection, ids=['x', 'y', 'z'], repeat=True)] == ['c']


def test_uses_the_registries_of_the_origin(connection: redis.Redis) -> None:
    """An id may stand in another queue than its hash says; whoever recovers it only knows the hash."""
    join(connection)
    enqueue(connection, 'a')
    connection.lmove(keys.queue(QUEUE), keys.queue('other'))
    (claimed,) = claim(connection, queues=['other'])
    assert claimed.queue == QUEUE and len(listed(connection, 'started')) == 1
    assert transitions.finish(connection, WORKER, [finished(claimed)]) == [True]


def test_a_hash_without_origin_gets_the_queue(connection: redis.Redis) -> None:
    connection.hset(keys.job('b'), 'origin', '')
    for job_id in 'ab':
        connection.hset(keys.job(job_id), 'status', 'queued')
        connection.rpush(keys.queue(QUEUE), job_id)
    assert [item.queue for item in claim(connection, 2)] == [QUEUE, QUEUE]
    assert connection.hget(keys.job('a'), 'origin') == connection.hget(keys.job('b'), 'origin') == QUEUE.encode()


def test_does_not_make_a_record_of_a_worker_that_has_none(connection: redis.Redis) -> None:
    """A record of one field would hide from the next beat that the worker has to register again."""
    start(connection, 'a')
    assert not connection.exists(keys.worker(WORKER))


def test_begins_a_job_that_is_in_hand(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'a')
    connection.lmove(keys.queue(QUEUE), keys.intermediate(QUEUE))
    transitions.begin(connection, WORKER, 'a', 'x', QUEUE, lifetime=LIFETIME)
    by_hand = snapshot(connection)
    connection.flushall()
    join(connection)
    enqueue(connection, 'a')
    claim(connection, ids=['x'])
    assert by_hand.keys() == snapshot(connection).keys()
    assert status(connection, 'a') == 'started' and list(listed(connection, 'started')) == ['a:x']


def test_a_worker_without_a_lease_gets_one(connection: redis.Redis) -> None:
    """One that was stalled and given up for dead takes jobs before it knows; it must not hold them for ever."""
    join(connection)
    claimed = start(connection, 'a')
    end_lease(connection)
    assert recover(connection) == [('a', 'queued')]
    claim(connection)
    assert recover(connection) == [], 'it has a while to find out'
    end_lease(connection)
    assert recover(connection) == [('a', 'queued')]
    transitions.begin(connection, WORKER, 'a', claimed[0].execution_id, QUEUE, lifetime=LIFETIME)
    assert connection.zscore(keys.leases(), WORKER) is not None


def test_a_lease_that_runs_is_not_changed(connection: redis.Redis) -> None:
    join(connection, lease_ms=5_000_000)
    lease = connection.zscore(keys.leases(), WORKER)
    start(connection, 'a')
    assert connection.zscore(keys.leases(), WORKER) == lease


def test_a_job_that_rq_requeued_does_not_expire_while_it_runs(connection: redis.Redis) -> None:
    """RQ leaves the hash the ttl of its failure."""
    enqueue(connection, 'a', more={'worker_name': 'earlier'})
    connection.expire(keys.job('a'), 100)
    claim(connection)
    assert connection.ttl(keys.job('a')) == -1


def standing(
    connection: Any, count: int = 3, *, queues: Sequence[str] = (QUEUE,), ahead: float = 0.0, record: bool = False
) -> StandingReply:
    """Carries out a standing claim now."""
    ids = [f's{number}' for number in range(count)]
    command = transitions.standing_claim(WORKER, queues, ids, lifetime=LIFETIME, record=record, ahead=ahead)
    connection.script_load(script('claim').source)
    return transitions.read_standing_claim(connection.execute_command(*command), ids)


def test_a_standing_claim_takes_nothing_unless_something_is_parked(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'a', 'b')
    before = snapshot(connection)
    assert standing(connection) == ([], 0, None)
    assert snapshot(connection) == before


def test_a_standing_claim_takes_what_is_parked_and_then_from_the_queues(connection: redis.Redis) -> None:
    join(connection)
    enqueue(connection, 'low1', 'low2', queue='low')
    enqueue(connection, 'high1', queue='high')
    connection.lmove(keys.queue('low'), keys.parked(WORKER))

    claimed, unparked, claimed_at = standing(connection, 5, queues=['high', 'low'])

    assert [(item.job_id, item.queue) for item in claimed] == [('low1', 'low'), ('high1', 'high'), ('low2', 'low')]
    assert len({item.execution_id for item in claimed}) == 3
    assert unparked == 1
    assert claimed_at is not None and abs(claimed_at - server_time(connection)) < 1
    assert not connection.exists(keys.parked(WORKER))
    assert connection.hget(keys.worker(WORKER), 'state') == b'busy'


def test_a_standing_claim_takes_no_more_than_was_said(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b', 'c')
    connection.lmove(keys.queue(QUEUE), keys.parked(WORKER))
    claimed, _, _ = standing(connection, 2)
    assert [item.job_id for item in claimed] == ['a', 'b']
    assert waiting(connection) == ['c']


def test_a_standing_claim_of_a_suspended_worker(connection: Any) -> None:
    enqueue(connection, 'a')
    connection.lmove(keys.queue(QUEUE), keys.parked(WORKER))
    connection.set(keys.suspended(), 1)
    ids = ['x']
    command = transitions.standing_claim(WORKER, [QUEUE], ids, lifetime=LIFETIME, record=False, ahead=0)
    connection.script_load(script('claim').source)
    assert transitions.read_standing_claim(connection.execute_command(*command), ids) == ([], 0, None)
    assert connection.lrange(keys.parked(WORKER), 0, -1) == [b'a']


@pytest.mark.parametrize('ahead', [0.0, 3600.5, -86400.25])
@pytest.mark.parametrize('record', [False, True])
def test_a_standing_claim_tells_the_time_by_the_clock_of_the_worker(
    connection: Any, ahead: float, record: bool
) -> None:
    enqueue(connection, 'a')
    connection.lmove(keys.queue(QUEUE), keys.parked(WORKER))
    [item], _, claimed_at = standing(connection, 1, ahead=ahead, record=record)
    assert claimed_at is not None
    job = connection.hgetall(keys.job('a'))
    assert job[b'started_at'] == job[b'last_heartbeat']
    assert job[b'started_at'].decode() == utcformat(datetime.fromtimestamp(claimed_at + ahead, UTC))
    (score,) = listed(connection, 'started').values()
    assert abs(score - server_time(connection) - LIFETIME) < 3, 'leases go by the clock of Redis'
    created_at = connection.hget(keys.execution(f'a:{item.execution_id}'), 'created_at')
    assert (created_at is not None) is record
    assert created_at is None or abs(float(created_at) - claimed_at - ahead) < 1e-5


def test_what_a_standing_claim_took_is_found_by_a_repeat_and_by_whoever_recovers(connection: redis.Redis) -> None:
    enqueue(connection, 'a', 'b')
    connection.lmove(keys.queue(QUEUE), keys.parked(WORKER))
    standing(connection, 2)
    assert sorted(item.job_id for item in claim(connection, ids=['s0', 's1', 's2'], repeat=True)) == ['a', 'b']
    assert connection.zscore(keys.leases(), WORKER) is not None, 'it never joined, but must not hold it for ever'
    end_lease(connection)
    assert sorted(item[0] for item in recover(connection)) == ['a', 'b']


def test_times_are_written_as_python_writes_them(connection: redis.Redis) -> None:
    numbers = random.Random(20260101)
    moments = [0.0, 951_782_399.999999, 951_782_400.0, 1_709_164_800.5, 4_107_542_399.9999996, time.time()]
    moments += [numbers.uniform(0, 4_200_000_000) for _ in range(2000)]
    told = connection.eval(
        _read('include/iso.lua') + 'local t = {} for i, x in ipairs(ARGV) do t[i] = iso_of(tonumber(x)) end return t',
        0,
        *[repr(moment) for moment in moments],
    )
    for moment, text in zip(moments, told, strict=True):
        seconds, micros = divmod(round(moment * 1e6), 1_000_000)
        expected = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
        assert abs(datetime.fromisoformat(text.decode()) - expected).total_seconds() <= 1e-6, moment
        assert text.decode()[:20] == utcformat(expected)[:20] or micros in (0, 999_999)
