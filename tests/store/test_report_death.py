"""report_death.lua, and how recover_lost.lua goes by it: who is to blame is not treated like who was merely there."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import redis

from greenq.defaults import MAX_INNOCENT_INTERRUPTIONS, MAX_INTERRUPTIONS
from greenq.results import decode_exc_string
from greenq.store import keys, membership, transitions
from greenq.store.membership import Recovered
from greenq.store.transitions import Claimed
from tests.store.situations import (
    QUEUE,
    WORKER,
    claim,
    end_lease,
    enqueue,
    finished,
    held,
    join,
    places,
    recover,
    results,
    snapshot,
    start,
    status,
    waiting,
)

KILLED = 'its worker was killed by SIGSEGV'


def die(client: redis.Redis, culprit: Claimed | None = None, verdict: str = 'suspect', worker: str = WORKER) -> bool:
    """A supervisor reports a death."""
    execution_id = culprit.execution_id if culprit else ''
    return membership.report_death(client, worker, culprit=execution_id, verdict=verdict, cause=KILLED)


def notes(client: redis.Redis, job_id: str) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads(client.hget(keys.job(job_id), 'greenq_interruptions') or '[]')
    return history


# ---- the report ----


def test_a_report_ends_the_lease_at_once(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    assert recover(connection) == []
    assert die(connection, claimed) is True
    assert recover(connection) == [('a', 'queued')]
    assert not connection.exists(keys.leases(), keys.member(WORKER), keys.held(WORKER), keys.worker(WORKER))


def test_a_report_may_be_repeated(connection: redis.Redis) -> None:
    join(connection)
    (claimed,) = start(connection, 'a')
    die(connection, claimed)
    before = snapshot(connection)
    assert die(connection, claimed) is True
    assert snapshot(connection) == before
    recover(connection)
    before = snapshot(connection)
    assert die(connection, claimed) is False
    assert snapshot(connection) == before


def test_a_report_on_a_worker_that_nobody_knows_changes_nothing(connection: redis.Redis) -> None:
    assert die(connection) is False
    join(connection)
    membership.depart(connection, WORKER, 'token', [QUEUE])
    before = snapshot(connection)
    assert die(connection) is False
    assert snapshot(connection) == before


@pytest.mark.parametrize('lost', ['lease', 'member'])
def test_a_worker_of_which_only_half_is_left(connection: redis.Redis, lost: str) -> None:
    """Evicted, or flushed and claimed for since: what it holds comes back nevertheless."""
    join(connection)
    (claimed,) = start(connection, 'a')
    connection.delete(keys.leases() if lost == 'lease' else keys.member(WORKER))
    assert die(connection, claimed) is True
    assert recover(connection) == [('a', 'queued')]
    assert [note['cause'] for note in notes(connection, 'a')] == [KILLED]


def test_a_cause_is_cut_short(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a')
    membership.report_death(connection, WORKER, cause='x' * 5000)
    recover(connection)
    assert len(notes(connection, 'a')[0]['cause']) == 300


# ---- suspects and innocents ----


def test_a_suspect_goes_to_the_back_and_the_innocent_to_the_front(connection: redis.Redis) -> None:
    join(connection)
    claimed = start(connection, 'a', 'culprit', 'c')
    enqueue(connection, 'waiting')
    die(connection, claimed[1])
    assert sorted(recover(connection, worker='')) == [('a', 'queued'), ('c', 'queued'), ('culprit', 'queued')]
    assert waiting(connection) == ['a', 'c', 'waiting', 'culprit']
    (blamed,), (innocent,) = notes(connection, 'culprit'), notes(connection, 'a')
    assert (blamed['worker'], blamed['execution']) == (WORKER, claimed[1].execution_id)
    assert blamed['cause'] == innocent['cause'] == KILLED
    assert innocent['innocent'] is True and 'innocent' not in blamed


def test_without_a_culprit_everybody_counts(connection: redis.Redis) -> None:
    join(connection)
    start(connection, 'a', 'b')
    enqueue(connection, 'waiting')
    die(connection, None, '')
    recover(connection)
    assert waiting(connection) == ['a', 'b', 'waiting']
    assert ['innocent' in note for job_id in 'ab' for note in notes(connection, job_id)] == [False, False]


def test_a_culprit_whose_outcome_was_written_leaves_innocents(connection: redis.Redis) -> None:
    join(connection)
    claimed = start(connection, 'a', 'culprit')
    transitions.finish(connection, WORKER, [finished(claimed[1])])
    die(connection, claimed[1])
    assert recover(connection) == [('a', 'queued')]
    assert notes(connection, 'a')[0]['innocent'] is True and places(connection, 'culprit') == ['finished']


def interrupt(client: redis.Redis, job_id: str, is_culprit: bool) -> str:
    """One life of a worker that holds the job and a bystander; the status of the job afterwards."""
    join(client)
    enqueue(client, 'bystander')
    claimed = {item.job_id: item for item in claim(client, 10)}
    die(client, claimed[job_id if is_culprit else 'bystander'])
    recovered = dict(recover(client))
    transitions.delete(client, 'bystander')
    return recovered[job_id]


def test_a_suspect_is_poison_the_third_time(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    assert [interrupt(connection, 'a', True) for _ in range(MAX_INTERRUPTIONS)] == ['queued', 'queued', 'failed']
    assert places(connection, 'a') == ['failed'] and len(notes(connection, 'a')) == 3
    reason = decode_exc_string(results(connection, 'a')[0]['exc_string'])
    assert f'interrupted 3 times in a row without finishing (3x {KILLED}).' in reason


def test_the_innocent_are_spared_for_long_and_not_for_ever(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    lives = [interrupt(connection, 'a', False) for _ in range(MAX_INNOCENT_INTERRUPTIONS)]
    assert lives == ['queued'] * (MAX_INNOCENT_INTERRUPTIONS - 1) + ['failed']
    assert 'interrupted 20 times in a row' in decode_exc_string(results(connection, 'a')[0]['exc_string'])


def test_innocence_neither_adds_to_guilt_nor_wipes_it_out(connection: redis.Redis) -> None:
    enqueue(connection, 'a')
    guilty = [True, False, False, True, False, False, True]
    assert [interrupt(connection, 'a', is_culprit) for is_culprit in guilty] == ['queued'] * 6 + ['failed']


# ---- overdue ----


def overdue(client: redis.Redis, *, worker: str = 'rescuer') -> list[Recovered]:
    return [item for item in membership.recover_lost(client, worker) if item.status == 'adopted']


def test_what_was_overdue_is_adopted_by_the_next_worker(connection: redis.Redis) -> None:
    join(connection)
    join(connection, 'rescuer')
    culprit, _ = start(connection, 'culprit', 'b')
    die(connection, culprit, 'overdue')
    assert recover(connection, worker='', lost_worker=WORKER) == [('b', 'queued')]
    assert places(connection, 'culprit') == ['started'], 'a supervisor adopts nothing'
    assert recover(connection, worker='', lost_worker=WORKER) == []
    assert overdue(connection) == [Recovered('culprit', culprit.execution_id, QUEUE, 'adopted', True, KILLED)]
    assert overdue(connection) == []
    assert held(connection, 'rescuer') == ['culprit']
    assert notes(connection, 'b')[0]['innocent'] is True and notes(connection, 'culprit') == []


@pytest.mark.parametrize('rule', ['requeue', 'fail'])
def test_an_overdue_job_fails_whatever_the_rule(connection: redis.Redis, rule: str) -> None:
    join(connection, on_lost=rule)
    (culprit,) = start(connection, 'culprit', more={'greenq_on_lost': rule})
    die(connection, culprit, 'overdue')
    (item,) = overdue(connection)
    assert item.is_overdue


def test_what_asked_to_be_failed_is_lost_and_not_overdue(connection: redis.Redis) -> None:
    join(connection, on_lost='fail')
    culprit, _ = start(connection, 'culprit', 'b')
    die(connection, culprit, 'overdue')
    assert {item.job_id: item.is_overdue for item in overdue(connection)} == {'culprit': True, 'b': False}


# ---- the same name again ----


def test_a_successor_goes_by_the_report_on_its_namesake_once(connection: redis.Redis) -> None:
    join(connection)
    culprit, _ = start(connection, 'culprit', 'b')
    die(connection, culprit)
    assert join(connection, token='next') == 'ok'
    assert len(recover(connection, worker=WORKER, lost_worker=WORKER)) == 2
    assert waiting(connection) == ['b', 'culprit']
    assert notes(connection, 'b')[0]['innocent'] is True
    claim(connection, 2)
    end_lease(connection)
    recover(connection)
    assert [note.get('innocent') for note in notes(connection, 'b')] == [True, None]


def test_a_successor_that_lives_is_not_recovered_for_its_namesakes_death(connection: redis.Redis) -> None:
    join(connection)
    (culprit,) = start(connection, 'a')
    die(connection, culprit)
    join(connection, token='next')
    assert recover(connection, worker='', lost_worker=WORKER) == []
    assert places(connection, 'a') == ['started'] and connection.exists(keys.worker(WORKER))


# ---- a recovery that is itself cut off ----


@pytest.mark.parametrize('seed', range(8))
def test_a_recovery_may_end_after_any_chunk_and_be_taken_up_by_another(connection: redis.Redis, seed: int) -> None:
    """Supervisors and workers take turns, each for some chunks; adopters may die with what they adopted."""
    chance = random.Random(seed)
    join(connection)
    names = [f'job{n:02}' for n in range(40)]
    failing = set(chance.sample(names, 10))
    for n, name in enumerate(names):
        rule = {'greenq_on_lost': 'fail'} if name in failing else {}
        enqueue(connection, name, more={'enqueued_at': f'2026-01-01T00:00:00.{n:06}Z', **rule})
    claimed = claim(connection, len(names))
    culprit = chance.choice([item for item in claimed if item.job_id not in failing])
    die(connection, culprit)
    adopted: list[str] = []
    queued: list[str] = []
    rescuer = 0
    while connection.zscore(keys.leases(), WORKER) is not None:
        rescuer += 1
        name = chance.choice(['', f'rescuer{rescuer}'])
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.3:
                die(connection, culprit)
            for job_id, state in recover(connection, worker=name, limit=chance.randint(1, 5)):
                (adopted if state == 'adopted' else queued).append(job_id)
    assert sorted(adopted) == sorted(failing) and sorted(queued) == sorted(set(names) - failing)
    innocents = [name for name in names if name not in failing and name != culprit.job_id]
    assert waiting(connection) == [*innocents, culprit.job_id]
    assert [len(notes(connection, name)) for name in queued] == [1] * len(queued)
    assert all(places(connection, name) == ['started'] for name in failing)
    assert status(connection, culprit.job_id) == 'queued'
