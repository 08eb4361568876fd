"""schedule.lua and promote_scheduled.lua: jobs that wait for a time."""

from __future__ import annotations

import redis

from greenq.store import keys, transitions
from greenq.store.scheduling import promote_scheduled
from greenq.store.states import JobStatus
from tests.store.situations import FAR_FUTURE, QUEUE, bring_into, listed, places, snapshot, status, submission, waiting


def schedule(client: redis.Redis, job_id: str, due: int = 1, **options: object) -> str:
    return transitions.schedule(client, QUEUE, submission(job_id, **options), due)  # type: ignore[arg-type]


def promote(client: redis.Redis) -> list[str]:
    return promote_scheduled(client, QUEUE).job_ids


def _promote_in_chunks(client: redis.Redis, limit: int) -> list[str]:
    moved: list[str] = []
    while True:
        promotion = promote_scheduled(client, QUEUE, limit=limit)
        moved += promotion.job_ids
        if not promotion.is_more_due:
            return moved


def test_stores_hash_registry_and_queue(connection: redis.Redis) -> None:
    assert transitions.schedule(connection, QUEUE, submission('a'), 77, token='t') == 'scheduled'
    found = snapshot(connection)
    assert set(found) == {keys.queues(), keys.job('a'), keys.registry('scheduled', QUEUE)}
    assert found[keys.registry('scheduled', QUEUE)] == ('zset', False, [(b'a', 77.0)])
    assert found[keys.job('a')][2][b'status'] == b'scheduled'


def test_a_repeat_changes_nothing_even_after_the_job_has_gone_on(connection: redis.Redis) -> None:
    for step in (lambda: None, lambda: promote(connection)):
        transitions.schedule(connection, QUEUE, submission('a'), 1, token='t')
        step()
        before = snapshot(connection)
        transitions.schedule(connection, QUEUE, submission('a'), 1, token='t')
        assert snapshot(connection) == before


def test_unique_refuses_an_existing_job(connection: redis.Redis) -> None:
    schedule(connection, 'a')
    before = snapshot(connection)
    assert schedule(connection, 'a', due=9, unique=True) == 'duplicate'
    assert snapshot(connection) == before


def test_leaves_the_registry_of_its_last_life(connection: redis.Redis) -> None:
    bring_into(connection, 'a', JobStatus.FAILED)
    connection.expire(keys.job('a'), 100)
    schedule(connection, 'a')
    assert places(connection, 'a') == ['scheduled'] and connection.ttl(keys.job('a')) == -1


def test_promotes_what_is_due_and_only_that(connection: redis.Redis) -> None:
    schedule(connection, 'late', due=2)
    schedule(connection, 'later', due=3)
    schedule(connection, 'future', due=FAR_FUTURE)
    assert promote(connection) == ['late', 'later']
    assert waiting(connection) == ['late', 'later']
    assert status(connection, 'late') == 'queued' and connection.hexists(keys.job('late'), 'enqueued_at')
    assert list(listed(connection, 'scheduled')) == ['future']
    assert promote(connection) == []


def test_a_chunk_of_dead_entries_does_not_hide_what_follows(connection: redis.Redis) -> None:
    for n in range(7):
        schedule(connection, f'job{n}', due=10 + n)
    connection.zadd(keys.registry('scheduled', QUEUE), {f'ghost{n}': n for n in range(10)})
    assert _promote_in_chunks(connection, 4) == [f'job{n}' for n in range(7)]
    assert listed(connection, 'scheduled') == {}


def test_promotes_to_the_front_if_so_asked(connection: redis.Redis) -> None:
    schedule(connection, 'a', due=1)
    schedule(connection, 'b', due=2, more={'enqueue_at_front': 1})
    schedule(connection, 'c', due=3, more={'enqueue_at_front_on_retry': 1, 'ended_at': 'x'})
    schedule(connection, 'd', due=4, more={'enqueue_at_front_on_retry': 1, 'ended_at': ''})
    promote(connection)
    assert waiting(connection) == ['c', 'b', 'a', 'd']


def test_a_job_put_into_the_registry_by_hand_is_not_lost(connection: redis.Redis) -> None:
    bring_into(connection, 'a', JobStatus.CREATED)
    connection.zadd(keys.registry('scheduled', QUEUE), {'a': 1})
    assert promote(connection) == ['a']
    assert places(connection, 'a') == ['queue']


def test_promotes_behind_a_rate_limit(connection: redis.Redis) -> None:
    for n in range(2):
        schedule(connection, f'job{n}', due=n, more={'rate_limit_key': 'narrow', 'rate_limit_concurrency': 1})
    promote(connection)
    assert waiting(connection) == ['job0']
    assert [status(connection, f'job{n}') for n in range(2)] == ['queued', 'rate_limited']


def test_promotes_what_an_rq_worker_marked_ready(connection: redis.Redis) -> None:
    bring_into(connection, 'a', JobStatus.READY_TO_ENQUEUE)
    bring_into(connection, 'b', JobStatus.CANCELED)
    connection.zadd(keys.registry('ready', QUEUE), {'b': 1})
    assert transitions.promote_ready(connection, QUEUE, ['a', 'b', 'unknown']) == ['a']
    assert places(connection, 'a') == ['queue'] and places(connection, 'b') == ['canceled']
    assert transitions.promote_ready(connection, QUEUE, ['a']) == []
    assert transitions.promote_ready(connection, QUEUE, []) == []
