"""The table of transitions walked whole: from every state, legal or not, by every transition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from greenq.store import keys, transitions
from greenq.store.scheduling import promote_scheduled
from greenq.store.states import REGISTRY_OF_STATUS, TRANSITIONS, JobStatus
from greenq.store.transitions import Claimed
from tests.store.situations import (
    QUEUE,
    WORKER,
    bring_into,
    claim,
    end_lease,
    enqueue,
    failed,
    finished,
    places,
    recover,
    release,
    retried,
    snapshot,
    status,
    submission,
)


def _schedule(client: redis.Redis, claimed: Claimed) -> Any:
    return transitions.schedule(client, QUEUE, submission(claimed.job_id), 1)


def _claim(client: redis.Redis, claimed: Claimed) -> Any:
    client.lrem(keys.queue(QUEUE), 0, claimed.job_id)
    client.rpush(keys.queue(QUEUE), claimed.job_id)
    return claim(client)


def _requeue(client: redis.Redis, claimed: Claimed) -> Any:
    stored = JobStatus(status(client, claimed.job_id))
    kind = REGISTRY_OF_STATUS.get(stored, 'failed')
    client.zadd(keys.registry(kind, QUEUE), {claimed.job_id: 5})
    client.lrem(keys.queue(QUEUE), 0, claimed.job_id)
    return transitions.requeue(client, claimed.job_id, keys.registry(kind, QUEUE), QUEUE)


def _promote_scheduled(client: redis.Redis, claimed: Claimed) -> Any:
    client.zadd(keys.registry('scheduled', QUEUE), {claimed.job_id: 1})
    return promote_scheduled(client, QUEUE).job_ids


def _promote_ready(client: redis.Redis, claimed: Claimed) -> Any:
    client.zadd(keys.registry('ready', QUEUE), {claimed.job_id: 1})
    return transitions.promote_ready(client, QUEUE, [claimed.job_id])


def _recover_lost(client: redis.Redis, claimed: Claimed) -> Any:
    client.sadd(keys.held(WORKER), f'{claimed.job_id}:{claimed.execution_id}')
    end_lease(client)
    return recover(client)


CALLS: dict[str, Callable[[redis.Redis, Claimed], Any]] = {
    'enqueue': lambda client, claimed: enqueue(client, claimed.job_id),
    'schedule': _schedule,
    'claim': _claim,
    'finish': lambda client, claimed: transitions.finish(client, WORKER, [finished(claimed)]),
    'fail': lambda client, claimed: transitions.fail(client, WORKER, [failed(claimed)]),
    'retry': lambda client, claimed: transitions.retry(client, WORKER, [retried(claimed)]),
    'release': lambda client, claimed: release(client, claimed),
    'recover_lost': _recover_lost,
    'cancel': lambda client, claimed: transitions.cancel(client, claimed.job_id),
    'requeue': _requeue,
    'promote_scheduled': _promote_scheduled,
    'promote_ready': _promote_ready,
}
LEGAL = [(name, source) for name in TRANSITIONS for source in JobStatus if source in TRANSITIONS[name][0]]
ILLEGAL = [(name, source) for name in TRANSITIONS for source in JobStatus if source not in TRANSITIONS[name][0]]


def test_every_transition_of_the_table_is_tried() -> None:
    assert set(CALLS) == set(TRANSITIONS)
    assert {name for name, _ in ILLEGAL} >= {
        'claim',
        'finish',
        'fail',
        'retry',
        'release',
        'recover_lost',
        'cancel',
        'promote_scheduled',
    }


@pytest.mark.parametrize(('name', 'source'), LEGAL)
def test_a_legal_transition_ends_in_a_state_of_the_table(connection: redis.Redis, name: str, source: JobStatus) -> None:
    claimed = bring_into(connection, 'job', source)
    CALLS[name](connection, claimed)
    assert status(connection, 'job') in {state.value for state in TRANSITIONS[name][1]}


@pytest.mark.parametrize(('name', 'source'), ILLEGAL)
def test_an_illegal_transition_changes_nothing(connection: redis.Redis, name: str, source: JobStatus) -> None:
    claimed = bring_into(connection, 'job', source)
    before = snapshot(connection)
    assert CALLS[name](connection, claimed) in ([], [False], ['lost'], None)
    # Stale ids that the call was lured with are swept away, so that nothing at all has changed.
    assert snapshot(connection) == before


@pytest.mark.parametrize('name', ['finish', 'fail', 'retry', 'release', 'recover_lost'])
def test_ending_an_execution_leaves_the_job_in_one_place(connection: redis.Redis, name: str) -> None:
    claimed = bring_into(connection, 'job', JobStatus.STARTED)
    CALLS[name](connection, claimed)
    assert len(places(connection, 'job')) == 1
    assert not connection.exists(keys.executions('job'), keys.held(WORKER), keys.worker_executions(WORKER))
