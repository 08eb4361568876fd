"""recover_lost.lua and release.lua: what was interrupted goes back to the front, or is poison."""

from __future__ import annotations

import json

import pytest
import redis

from greenq.results import decode_exc_string
from greenq.store import keys, queries, transitions
from greenq.store.states import JobStatus
from tests.store.situations import (
    QUEUE,
    WORKER,
    beat,
    claim,
    end_lease,
    enqueue,
    failed,
    finished,
    held,
    join,
    listed,
    places,
    recover,
    release,
    results,
    snapshot,
    start,
    status,
    waiting,
)


def enqueue_in_order(client: redis.Redis, *job_ids: str) -> None:
    for n, job_id in enumerate(job_ids):
        enqueue(client, job_id, more={'enqueued_at': f'2026-01-01T00:00:00.{n:06}Z'})


def adopted_by(client: redis.Redis, worker: str) -> list[tuple[str, str, str]]:
    """What a worker holds though another one began it."""
    return [item[:3] for item in queries.held_executions(client, worker) if item.beginner != worker]


def interruptions(client: redis.Redis, job_id: str) -> list[dict[str, str]]:
    history: list[dict[str, str]] = json.loads(client.hget(keys.job(job_id), 'greenq_interruptions') or '[]')
    return history


def test_leaves_a_live_worker_alone(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    before = snapshot(connection)
    assert recover(connection) == []
    assert snapshot(connection) == before


@pytest.mark.parametrize('limit', [100, 3])
def test_jobs_of_a_dead_worker_return_to_the_front_in_order(connection: redis.Redis, limit: int) -> None:
    join(connection)
    ids = [f'job{n}' for n in range(8)]
    enqueue_in_order(connection, *ids, 'waiting')
    claim(connection, 8)
    end_lease(connection)
    recovered = []
    while chunk := recover(connection, limit=limit):
        assert len(chunk) <= limit
        recovered += chunk
    assert sorted(recovered) == [(job_id, 'queued') for job_id in ids]
    assert waiting(connection) == [*ids, 'waiting']
    assert status(connection, 'job0') == 'queued'
    assert connection.hmget(keys.job('job0'), 'worker_name', 'started_at') == [b'', b'']
    (note,) = interruptions(connection, 'job0')
    assert (note['worker'], note['cause']) == (WORKER, 'its worker was lost') and 'innocent' not in note


def test_nothing_is_left_of_a_dead_worker(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    end_lease(connection)
    recover(connection)
    assert set(snapshot(connection)) == {keys.queues(), keys.queue(QUEUE), keys.job('a')}


def test_what_was_parked_returns_behind_what_was_held(connection: redis.Redis) -> None:
    join(connection)
    enqueue_in_order(connection, 'held', 'parked1', 'parked2', 'waiting')
    claim(connection)
    for _ in range(2):
        connection.lmove(keys.queue(QUEUE), keys.parked(WORKER), 'LEFT', 'RIGHT')
    end_lease(connection)
    recover(connection)
    assert waiting(connection) == ['held', 'parked1', 'parked2', 'waiting']
    assert interruptions(connection, 'parked1') == []


def test_one_worker_may_be_recovered_alone(connection: redis.Redis) -> None:
    for worker in ('dead', 'dead too', 'alive'):
        join(connection, worker)
        start(connection, f'job-of-{worker[:4]}{len(worker)}', worker=worker)
    for worker in ('dead', 'dead too'):
        end_lease(connection, worker)
    assert recover(connection, lost_worker='dead') == [('job-of-dead4', 'queued')]
    assert recover(connection, lost_worker='dead') == []
    assert recover(connection, lost_worker='alive') == []
    assert status(connection, 'job-of-dead8') == status(connection, 'job-of-aliv5') == 'started'


def test_nobody_recovers_itself(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    end_lease(connection)
    assert recover(connection, worker=WORKER) == []
    assert places(connection, 'a') == ['started']


def test_a_worker_that_comes_back_in_time_keeps_what_is_left(connection: redis.Redis) -> None:
    join(connection)
    claimed = start(connection, 'a', 'b')
    end_lease(connection)
    recover(connection, limit=1)
    verdict, lost = beat(connection, claimed)
    assert verdict == 'ok' and len(lost) == 1
    assert recover(connection) == []
    accepted = transitions.finish(connection, WORKER, [finished(item) for item in claimed])
    assert sorted(accepted) == [False, True]


# ---- poison ----


def test_the_third_interruption_in_a_row_is_poison(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    for worker in ('w1', 'w2', 'w3'):
        join(connection, worker)
        claim(connection, worker=worker)
        end_lease(connection, worker)
        last = recover(connection)
    assert last == [('a', 'failed')] and places(connection, 'a') == ['failed']
    assert status(connection, 'a') == 'failed'
    assert [note['worker'] for note in interruptions(connection, 'a')] == ['w1', 'w2', 'w3']
    (result,) = results(connection, 'a')
    assert result['type'] == '2' and result['worker_name'] == 'w3'
    reason = decode_exc_string(result['exc_string'])
    assert 'PoisonJobError: interrupted 3 times in a row' in reason and '(3x its worker was lost)' in reason
    assert connection.ttl(keys.job('a')) > 3_000_000


@pytest.mark.parametrize('cause', ['', 'a', 'ab', 'abc', 'größer {count} %1 \\ "x"', 'x' * 10_000])
def test_the_reason_of_poison_names_the_cause(connection: redis.Redis, cause: str) -> None:
    """Also where base64 pads, and however long the text is."""
    (claimed,) = start(connection, 'a')
    transitions.release(connection, WORKER, [claimed[:3]], interruption_limit=1, cause=cause)
    (result,) = results(connection, 'a')
    assert f'(1x {cause[:300]}).' in decode_exc_string(result['exc_string'])


def test_a_job_that_rq_requeued_after_it_was_poison_starts_anew(connection: redis.Redis) -> None:
    """RQ does not know of the notes, so it leaves them."""
    enqueue(connection, 'a')
    for _ in range(2):
        lives = [release(connection, *claim(connection)) for _ in range(3)]
        assert lives == [['queued'], ['queued'], ['failed']]
        assert len(interruptions(connection, 'a')) == 3
        connection.zrem(keys.registry('failed', QUEUE), 'a')
        connection.hset(keys.job('a'), 'status', 'queued')
        connection.rpush(keys.queue(QUEUE), 'a')


@pytest.mark.parametrize('notes', ['no json', '7', '[1, "x"]', '{"at": "x"}', ''])
def test_notes_that_cannot_be_read_do_not_keep_a_job_from_being_recovered(connection: redis.Redis, notes: str) -> None:
    join(connection)
    start(connection, 'a', more={'greenq_interruptions': notes})
    end_lease(connection)
    assert recover(connection) == [('a', 'queued')]
    assert len(interruptions(connection, 'a')) == 1


def test_a_key_that_is_no_job_does_not_keep_others_from_being_recovered(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a', 'b', 'c')
    connection.delete(keys.job('a'))
    connection.set(keys.job('a'), 'damaged')
    connection.delete(keys.job('c'))
    end_lease(connection)
    assert recover(connection) == [('b', 'queued')]
    assert not connection.exists(keys.leases(), keys.held(WORKER))


@pytest.mark.parametrize(('failure_ttl', 'score', 'expires'), [(-1, -1, False), (0, None, True), (100, None, True)])
def test_poison_heeds_the_failure_ttl(
    connection: redis.Redis, failure_ttl: int, score: int | None, expires: bool
) -> None:
    (claimed,) = start(connection, 'a', more={'failure_ttl': failure_ttl})
    assert release(connection, claimed, interruptions=1) == ['failed']
    assert (connection.ttl(keys.job('a')) > 0) is (connection.ttl(keys.results('a')) > 0) is expires
    assert score is None or listed(connection, 'failed') == {'a': score}


def test_poison_releases_dependents_that_allow_failure(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'parent')
    more = {'allow_dependency_failures': 1}
    enqueue(connection, 'patient', dependency_ids=['parent'], allow_failure=True, more=more)
    enqueue(connection, 'strict', dependency_ids=['parent'])
    release(connection, claimed, interruptions=1)
    assert places(connection, 'patient') == ['queue'] and places(connection, 'strict') == ['deferred']


# ---- on_lost=fail ----


def test_what_is_to_fail_is_adopted(connection: redis.Redis) -> None:
    join(connection, on_lost='fail')
    join(connection, 'rescuer')
    (claimed,) = start(connection, 'a')
    end_lease(connection)
    assert recover(connection) == [('a', 'adopted')]
    assert held(connection, 'rescuer') == ['a']
    assert adopted_by(connection, 'rescuer') == [('a', claimed.execution_id, QUEUE)]
    assert places(connection, 'a') == ['started'] and not connection.exists(keys.held(WORKER), keys.member(WORKER))
    assert recover(connection) == []
    assert transitions.fail(connection, 'rescuer', [failed(claimed)]) == [True]
    assert places(connection, 'a') == ['failed'] and not connection.exists(keys.held('rescuer'))


def test_an_adopter_that_dies_is_recovered_itself(connection: redis.Redis) -> None:
    join(connection, on_lost='fail')
    join(connection, 'rescuer')
    start(connection, 'a')
    end_lease(connection)
    recover(connection)
    end_lease(connection, 'rescuer')
    assert recover(connection, worker='third') == [('a', 'queued')]


@pytest.mark.parametrize(
    ('of_worker', 'of_job', 'expected'), [('requeue', 'fail', 'adopted'), ('fail', 'requeue', 'queued')]
)
def test_the_job_decides_before_the_worker(connection: redis.Redis, of_worker: str, of_job: str, expected: str) -> None:
    join(connection, on_lost=of_worker)
    start(connection, 'a', more={'greenq_on_lost': of_job})
    end_lease(connection)
    assert recover(connection) == [('a', expected)]


@pytest.mark.parametrize(
    ('rules', 'expected'),
    [
        ({None: 'fail', 'mail': 'requeue'}, {'default': 'adopted', 'mail': 'queued'}),
        ({None: 'requeue', 'mail': 'fail'}, {'default': 'queued', 'mail': 'adopted'}),
        ({'mail': 'fail'}, {'default': 'queued', 'mail': 'adopted'}),
    ],
)
def test_a_worker_may_have_a_rule_for_each_queue(
    connection: redis.Redis, rules: dict[str | None, str], expected: dict[str, str]
) -> None:
    join(connection, on_lost={None: 'fail', 'forgotten': 'fail', 'mail': 'fail', 'default': 'fail'})
    join(connection, on_lost=rules)
    for queue in ('default', 'mail'):
        start(connection, f'to-{queue}', queue=queue)
    start(connection, 'own-rule', queue='mail', more={'greenq_on_lost': 'requeue'})
    end_lease(connection)
    assert dict(recover(connection)) == {
        **{f'to-{queue}': status for queue, status in expected.items()},
        'own-rule': 'queued',
    }


# ---- supervisors, which adopt nothing ----


def test_a_supervisor_leaves_what_is_to_fail_to_the_next_worker(connection: redis.Redis) -> None:
    join(connection)
    start(connection, *(f'fails{n}' for n in range(5)), more={'greenq_on_lost': 'fail'})
    start(connection, *(f'runs{n}' for n in range(5)))
    end_lease(connection)
    recovered: list[tuple[str, str]] = []
    while chunk := recover(connection, worker='', limit=2):
        recovered += chunk
    assert sorted(recovered) == [(f'runs{n}', 'queued') for n in range(5)]
    assert held(connection, WORKER) == [f'fails{n}' for n in range(5)]
    assert {status for _, status in recover(connection)} == {'adopted'}
    assert len(held(connection, 'rescuer')) == 5
    assert connection.zscore(keys.leases(), WORKER) is None


# ---- a successor of the same name ----


def test_a_successor_recovers_what_its_namesake_left(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a', 'b')
    start(connection, 'c', more={'greenq_on_lost': 'fail'})
    end_lease(connection)
    join(connection, token='next')
    assert sorted(recover(connection, worker=WORKER, lost_worker=WORKER)) == [
        ('a', 'queued'),
        ('b', 'queued'),
        ('c', 'adopted'),
    ]
    assert held(connection, WORKER) == ['c']
    assert connection.hget(keys.member(WORKER), 'token') == b'next'
    assert connection.zscore(keys.leases(), WORKER) is not None


# ---- release ----


def test_gives_back_to_the_front_in_the_order_given(connection: redis.Redis) -> None:
    join(connection)
    claimed = start(connection, 'a', 'b', 'c')
    enqueue(connection, 'waiting')
    triples = [item[:3] for item in claimed]
    assert transitions.release(connection, WORKER, triples, interruption_limit=3, state='idle') == ['queued'] * 3
    assert waiting(connection) == ['a', 'b', 'c', 'waiting']
    assert len(interruptions(connection, 'a')) == 1
    assert not connection.exists(keys.held(WORKER), keys.executions('a'))
    assert connection.hget(keys.worker(WORKER), 'state') == b'idle'


def test_an_innocent_one_is_not_poison_for_long(connection: redis.Redis) -> None:
    """A neighbour did it: noted, but three in a row do not count."""
    enqueue(connection, 'a')
    for _ in range(4):
        (claimed,) = claim(connection)
        released = transitions.release(connection, WORKER, [claimed[:3]], cause='job b does not end', innocent=True)
        assert released == ['queued']
    notes = json.loads(connection.hget(keys.job('a'), 'greenq_interruptions') or b'')
    assert [note['innocent'] for note in notes] == [True] * 4
    assert {note['cause'] for note in notes} == {'job b does not end'}


def test_what_never_began_was_not_interrupted(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    assert release(connection, claimed, interruptions=0) == ['queued']
    assert interruptions(connection, 'a') == []


def test_giving_back_twice(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    release(connection, claimed)
    before = snapshot(connection)
    assert release(connection, claimed) == ['lost']
    assert snapshot(connection) == before


def test_a_hash_that_is_gone(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    connection.delete(keys.job('a'))
    assert release(connection, claimed) == ['gone']
    assert waiting(connection) == []


def test_a_job_enqueued_again_while_it_ran_is_not_queued_twice(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    enqueue(connection, 'a')
    assert release(connection, claimed) == ['queued']
    assert places(connection, 'a') == ['queue'] and interruptions(connection, 'a') == []


@pytest.mark.parametrize('state', ['queued', 'created', 'finished', 'scheduled'])
def test_a_status_that_a_producer_saved_over_a_running_job_does_not_lose_it(
    connection: redis.Redis, state: str
) -> None:
    """Job.save() by whoever holds an older copy writes that copy's status."""
    join(connection)
    start(connection, 'a')
    connection.hset(keys.job('a'), 'status', state)
    end_lease(connection)
    assert recover(connection) == [('a', 'queued')]
    assert places(connection, 'a') == ['queue']


def test_a_job_scheduled_again_while_it_ran_stays_scheduled(connection: redis.Redis) -> None:
    (claimed,) = start(connection, 'a')
    connection.hset(keys.job('a'), 'status', JobStatus.SCHEDULED.value)
    connection.zadd(keys.registry('scheduled', QUEUE), {'a': 5})
    assert release(connection, claimed) == ['scheduled']
    assert places(connection, 'a') == ['scheduled']


def test_what_a_worker_holds_that_another_one_began(connection: redis.Redis) -> None:
    assert adopted_by(connection, 'rescuer') == []
    join(connection, on_lost='fail')
    start(connection, 'a', 'b')
    own = start(connection, 'own', worker='rescuer')
    end_lease(connection)
    recover(connection)
    connection.delete(keys.job('b'))
    adopted = adopted_by(connection, 'rescuer')
    assert sorted((job_id, queue) for job_id, _, queue in adopted) == [('a', QUEUE), ('b', '')]
    assert held(connection, 'rescuer') == ['a', 'b', own[0].job_id]
