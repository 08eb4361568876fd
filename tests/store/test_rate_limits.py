"""include/rate.lua and the scripts around it: a job holds a slot of its key while it is queued or started."""

from __future__ import annotations

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.transitions import Claimed
from tests.store.situations import (
    FAR_FUTURE,
    QUEUE,
    WORKER,
    claim,
    end_lease,
    enqueue,
    failed,
    finished,
    join,
    recover,
    retried,
    snapshot,
    status,
    waiting,
)

KEY = 'narrow'
FIELDS = {'rate_limit_key': KEY, 'rate_limit_concurrency': 1}


def limited(client: redis.Redis, *job_ids: str, concurrency: int = 1) -> list[str]:
    return enqueue(client, *job_ids, rate_limit=(KEY, concurrency), more=FIELDS)


def slots(client: redis.Redis) -> tuple[list[bytes], list[bytes]]:
    allowed, held_back = keys.rate_allowed(KEY), keys.rate_limited(KEY)
    return client.zrange(allowed, 0, -1), client.zrange(held_back, 0, -1)  # type: ignore[return-value]


def run(client: redis.Redis) -> Claimed:
    (claimed,) = claim(client)
    return claimed


def test_holds_back_what_is_over_the_limit(connection: redis.Redis) -> None:
    assert limited(connection, 'a', 'b', 'c', concurrency=2) == ['queued', 'queued', 'rate_limited']
    assert slots(connection) == ([b'a', b'b'], [b'c']) and waiting(connection) == ['a', 'b']
    assert connection.smembers(keys.rate_limits()) == {KEY.encode()}
    assert connection.hget(keys.rate_limit(KEY), 'concurrency') == b'2'
    assert connection.hexists(keys.job('a'), 'enqueued_at') and not connection.hexists(keys.job('c'), 'enqueued_at')


@pytest.mark.parametrize('in_one_call', [True, False])
def test_who_waits_is_let_through_in_order(connection: redis.Redis, in_one_call: bool) -> None:
    """Also within one second, and whatever the ids."""
    ids = [f'{n * 7 % 30:02}' for n in range(30)]
    if in_one_call:
        limited(connection, *ids)
    else:
        for job_id in ids:
            limited(connection, job_id)
    assert slots(connection)[1] == [job_id.encode() for job_id in ids[1:]]
    for job_id in ids:
        claimed = run(connection)
        assert claimed.job_id == job_id
        end_by_finish(connection, claimed)


def test_nobody_overtakes_who_waits_by_a_clock_that_is_ahead(connection: redis.Redis) -> None:
    limited(connection, 'runs', 'z')
    connection.zadd(keys.rate_limited(KEY), {'z': FAR_FUTURE})
    limited(connection, 'b')
    assert slots(connection)[1] == [b'z', b'b']


def test_a_repeat_holds_nothing_twice(connection: redis.Redis) -> None:
    from tests.store.situations import submission

    items = [submission(job_id, rate_limit=(KEY, 1), more=FIELDS) for job_id in 'ab']
    first = transitions.enqueue(connection, QUEUE, items, token='t')
    before = snapshot(connection)
    assert transitions.enqueue(connection, QUEUE, items, token='t') == first == ['queued', 'rate_limited']
    assert snapshot(connection) == before


def end_by_finish(client: redis.Redis, claimed: Claimed) -> None:
    transitions.finish(client, WORKER, [finished(claimed, options={'rate_limit': KEY})])


def end_by_failure(client: redis.Redis, claimed: Claimed) -> None:
    transitions.fail(client, WORKER, [failed(claimed, rate_limit=KEY)])


def end_by_later_retry(client: redis.Redis, claimed: Claimed) -> None:
    transitions.retry(client, WORKER, [retried(claimed, due=FAR_FUTURE, rate_limit=KEY)])


def end_by_cancel(client: redis.Redis, claimed: Claimed) -> None:
    transitions.cancel(client, claimed.job_id)
    assert slots(client) == ([b'a'], [b'b']), 'a canceled job that still runs keeps its slot'
    end_by_finish(client, claimed)


def end_by_delete(client: redis.Redis, claimed: Claimed) -> None:
    transitions.delete(client, claimed.job_id)
    assert slots(client) == ([b'a'], [b'b']), 'a deleted job that still runs keeps its slot'
    end_by_failure(client, claimed)


def end_by_cancel_and_retry(client: redis.Redis, claimed: Claimed) -> None:
    transitions.cancel(client, claimed.job_id)
    end_by_later_retry(client, claimed)


def end_by_poison(client: redis.Redis, claimed: Claimed) -> None:
    end_lease(client)
    recover(client, interruptions=1)


@pytest.mark.parametrize(
    'end',
    [
        end_by_finish,
        end_by_failure,
        end_by_later_retry,
        end_by_cancel,
        end_by_delete,
        end_by_cancel_and_retry,
        end_by_poison,
    ],
)
def test_the_end_of_a_job_lets_the_next_through(connection: redis.Redis, end: object) -> None:
    join(connection)
    limited(connection, 'a', 'b')
    end(connection, run(connection))  # type: ignore[operator]
    assert slots(connection) == ([b'b'], [])
    assert waiting(connection) == ['b'] and status(connection, 'b') == 'queued'


def test_a_retry_at_once_and_an_interruption_keep_the_slot(connection: redis.Redis) -> None:
    join(connection)
    limited(connection, 'a', 'b')
    transitions.retry(connection, WORKER, [retried(run(connection), rate_limit=KEY)])
    assert slots(connection) == ([b'a'], [b'b']) and waiting(connection) == ['a']
    run(connection)
    end_lease(connection)
    recover(connection)
    assert slots(connection) == ([b'a'], [b'b']) and waiting(connection) == ['a']


@pytest.mark.parametrize('how', ['cancel', 'delete'])
@pytest.mark.parametrize('job_id', ['a', 'b'])
def test_a_waiting_job_that_goes_away_gives_its_place_back(connection: redis.Redis, how: str, job_id: str) -> None:
    limited(connection, 'a', 'b')
    getattr(transitions, how)(connection, job_id)
    left = b'b' if job_id == 'a' else b'a'
    assert slots(connection) == ([left], []) and waiting(connection) == [left.decode()]


def test_what_no_longer_waits_is_passed_over(connection: redis.Redis) -> None:
    limited(connection, 'a', 'b', 'c')
    connection.delete(keys.job('b'))
    end_by_finish(connection, run(connection))
    assert slots(connection) == ([b'c'], []) and waiting(connection) == ['c']


def test_a_slot_is_stale_only_if_nobody_runs_the_job(connection: redis.Redis) -> None:
    limited(connection, 'a', 'b')
    run(connection)
    assert transitions.free_rate_slot(connection, KEY, 'a', only_stale=True) == []
    transitions.cancel(connection, 'a')
    assert transitions.free_rate_slot(connection, KEY, 'a', only_stale=True) == []
    connection.delete(keys.executions('a'))
    assert transitions.free_rate_slot(connection, KEY, 'a', only_stale=True) == ['b']


def test_forgets_a_limit_that_nobody_uses(connection: redis.Redis) -> None:
    limited(connection, 'a')
    assert transitions.clean_rate_limit(connection, KEY) is False
    end_by_finish(connection, run(connection))
    assert transitions.clean_rate_limit(connection, KEY) is True
    assert not connection.exists(keys.rate_limits(), keys.rate_limit(KEY))
