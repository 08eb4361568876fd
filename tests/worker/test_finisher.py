"""The finisher: an outcome stays with it until Redis has it, and goes in once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import redis

from greenq import Queue
from greenq.connections import worker_connection
from greenq.job import Job, JobStatus
from greenq.results import Result
from greenq.store import keys, transitions
from greenq.store.transitions import Failed, Finished, Retried
from greenq.utils import utcformat
from greenq.worker.finisher import BATCH, Finisher
from tests.helpers import wait_until
from tests.worker.jobs import nothing
from tests.worker.proxy import Proxy


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def finisher(proxy: Proxy) -> Iterator[Finisher]:
    with redis.Redis.from_url(proxy.url) as model:
        client = worker_connection(model, max_connections=1, blocking=True)
        yield Finisher(client, 'w', lambda: 'idle')
        client.close()


def _claim(connection: redis.Redis, count: int) -> list[tuple[str, str, str]]:
    """Has the worker hold so many jobs."""
    queue = Queue(connection=connection)
    for _ in range(count):
        queue.enqueue(nothing)
    ids = [f'{number:032x}' for number in range(count)]
    held: list[tuple[str, str, str]] = []
    while len(held) < count:
        claimed = transitions.claim(connection, 'w', ['default'], ids[len(held) :], lifetime=180)
        assert claimed
        held += [(item.job_id, item.execution_id, item.queue) for item in claimed]
    return held


def _finished(held: tuple[str, str, str]) -> Finished:
    moment = datetime.now(UTC)
    return Finished(*held, 500, moment.timestamp(), moment.timestamp(), utcformat(moment), b'')


def _failed(held: tuple[str, str, str]) -> Failed:
    moment = datetime.now(UTC)
    times = (moment.timestamp(), moment.timestamp(), utcformat(moment))
    return Failed(*held, 'failed', Result.Type.FAILED.value, 500, True, *times, b'')


def _retried(held: tuple[str, str, str]) -> Retried:
    moment = datetime.now(UTC)
    times = (moment.timestamp(), moment.timestamp(), utcformat(moment))
    return Retried(*held, None, False, *times, {'retries_left': 0})


def _statuses(connection: redis.Redis, held: list[tuple[str, str, str]]) -> list[JobStatus]:
    return [Job.fetch(item[0], connection=connection).get_status() for item in held]


def test_one_outcome_is_written_at_once(finisher: Finisher, connection: redis.Redis) -> None:
    held = _claim(connection, 1)
    told: list[bool] = []
    finisher.record(_finished(held[0]), told.append)
    assert told == [True]
    assert _statuses(connection, held) == [JobStatus.FINISHED]
    assert len(finisher) == 0


def test_a_batch_of_all_kinds(finisher: Finisher, connection: redis.Redis) -> None:
    held = _claim(connection, 6)
    told: list[int] = []
    kinds: list[Callable[[tuple[str, str, str]], Finished | Failed | Retried]] = [_finished, _failed, _retried]
    for number, item in enumerate(held):
        finisher.enqueue(kinds[number % 3](item), lambda accepted, number=number: told.append(number))  # type: ignore[misc]
    assert len(finisher) == 6 and not told

    assert finisher.flush() is True

    assert told == list(range(6))
    expected = [JobStatus.FINISHED, JobStatus.FAILED, JobStatus.QUEUED]
    assert _statuses(connection, held) == expected * 2
    assert connection.hget(keys.worker('w'), 'state') in (b'idle', None)


def test_more_than_a_batch(finisher: Finisher, connection: redis.Redis) -> None:
    held = _claim(connection, BATCH + 20)
    told: list[bool] = []
    for item in held:
        finisher.enqueue(_finished(item), told.append)
    finisher.flush()
    assert told == [True] * (BATCH + 20)
    assert connection.zcard(Queue(connection=connection).finished_job_registry.key) == BATCH + 20


def test_outcomes_outlive_an_absence_of_redis(
    finisher: Finisher, connection: redis.Redis, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    held = _claim(connection, 3)
    told: list[bool] = []
    proxy.go_away()
    for item in held:
        finisher.enqueue(_finished(item), told.append)
    thread = threading.Thread(target=finisher.flush)
    thread.start()
    wait_until(lambda: caplog.text.count('cannot write 3 outcome(s)') >= 2)
    assert not told and len(finisher) == 3

    proxy.come_back()

    thread.join(10)
    assert told == [True] * 3
    assert _statuses(connection, held) == [JobStatus.FINISHED] * 3


def test_giving_up_keeps_the_outcomes(finisher: Finisher, connection: redis.Redis, proxy: Proxy) -> None:
    held = _claim(connection, 2)
    told: list[bool] = []
    proxy.go_away()
    for item in held:
        finisher.enqueue(_finished(item), told.append)

    assert finisher.flush(give_up_after=0.05) is False

    assert not told and len(finisher) == 2
    proxy.come_back()
    assert finisher.flush() is True
    assert told == [True, True]


def test_a_lost_reply_is_no_second_outcome(finisher: Finisher, connection: redis.Redis, proxy: Proxy) -> None:
    held = _claim(connection, 2)
    told: list[bool] = []
    connection.ping()
    proxy.drop_reply_to(b'EVALSHA')
    for item in held:
        finisher.enqueue(_finished(item), told.append)

    finisher.flush()

    proxy.wait_until_dropped()
    assert told == [True, True], 'what was written by the first try counts as accepted'
    for item in held:
        assert len(Job.fetch(item[0], connection=connection).results()) == 1
    assert finisher.lost_count == 0


def test_the_loser_is_dropped_and_counted(
    finisher: Finisher, connection: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    held = _claim(connection, 2)
    transitions.release(connection, 'w', [held[0]], interruption_limit=3)
    told: list[bool] = []
    for item in held:
        finisher.enqueue(_finished(item), told.append)

    finisher.flush()

    assert told == [False, True]
    assert finisher.lost_count == 1
    assert _statuses(connection, held) == [JobStatus.QUEUED, JobStatus.FINISHED]
    assert not Job.fetch(held[0][0], connection=connection).results()
    assert f'outcome of job {held[0][0]} dropped' in caplog.text


def test_what_follows_may_fail(finisher: Finisher, connection: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    held = _claim(connection, 2)
    told: list[bool] = []

    def broken(accepted: bool) -> None:
        raise LookupError('a broken webhook')

    finisher.enqueue(_finished(held[0]), broken)
    finisher.enqueue(_finished(held[1]), told.append)
    assert finisher.flush() is True
    assert told == [True]
    assert 'a broken webhook' in caplog.text


def test_an_outcome_that_redis_refuses_does_not_hold_up_the_others(finisher: Finisher, connection: redis.Redis) -> None:
    """One bad job harms one job, even if its result cannot be stored."""
    held = _claim(connection, 3)
    connection.set(keys.results(held[1][0]), 'no stream')
    told: list[bool] = []
    for item in held:
        finisher.enqueue(_finished(item), told.append)
    finisher.flush(give_up_after=0.5)
    assert _statuses(connection, [held[0], held[2]]) == [JobStatus.FINISHED] * 2
