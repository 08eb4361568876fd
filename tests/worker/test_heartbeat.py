"""The heartbeat: the lease, RQ's records, and what becomes of a worker whose record or name was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from greenq import Queue, SimpleWorker
from greenq.defaults import IDLE_BEAT_SECONDS, IDLE_REFRESH_SECONDS, IDLE_SECONDS
from greenq.job import JobStatus
from greenq.store import keys, transitions
from greenq.timeouts import TimerDeathPenalty
from greenq.worker import heartbeat
from tests.helpers import wait_until
from tests.worker.jobs import add


@contextmanager
def working(worker: SimpleWorker) -> Iterator[threading.Thread]:
    """Has the worker work in a thread; it must have been told to stop by the end."""
    worker.death_penalty_class = TimerDeathPenalty
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        wait_until(lambda: worker.connection.hget(worker.key, 'state') == b'idle')
        yield thread
    finally:
        worker.request_stop(15, None)
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def worker(connection: redis.Redis) -> SimpleWorker:
    return SimpleWorker(['default'], connection=connection, name='w')


def _lease(connection: Any, name: str = 'w') -> float:
    return float(connection.zscore(keys.leases(), name) or 0)


def _now_ms(connection: Any) -> float:
    seconds, micros = connection.time()
    return float(seconds) * 1000 + float(micros) / 1000


def test_a_beat_extends_lease_and_record(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    connection.zadd(keys.leases(), {'w': _now_ms(connection) + 1000})
    connection.expire(worker.key, 5)

    worker.heartbeat()

    assert 14_000 < _lease(connection) - _now_ms(connection) <= 15_000
    assert connection.ttl(worker.key) > 400
    worker.register_death()


def test_rqs_records_of_long_jobs_are_refreshed(
    worker: SimpleWorker, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.register_birth()
    job = Queue(connection=connection).enqueue(add, 1)
    [claimed] = worker._claim(1) or []
    worker._begin(claimed)
    [execution] = job.get_executions()
    worker.heartbeat()
    connection.zadd(job.started_job_registry.key, {execution.composite_key: 1})

    monkeypatch.setattr(heartbeat, 'REFRESH_SECONDS', 0)
    worker.heartbeat()

    score = connection.zscore(job.started_job_registry.key, execution.composite_key)
    assert score > _now_ms(connection) / 1000 + 90
    assert connection.ttl(execution.key) > 90
    worker._give_back_all()
    worker.register_death()


def test_a_worker_whose_record_is_flushed_registers_again(worker: SimpleWorker, connection: redis.Redis) -> None:
    with working(worker):
        connection.flushall()
        worker.heartbeat()

        assert SimpleWorker.all(connection=connection) == [worker]
        assert SimpleWorker.all(queue=Queue(connection=connection)) == [worker]
        assert _lease(connection) > _now_ms(connection)
        job = Queue(connection=connection).enqueue(add, 1)
        wait_until(lambda: job.get_status() == JobStatus.FINISHED)


def test_a_worker_whose_name_was_taken_stops(
    worker: SimpleWorker, connection: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with working(worker) as thread:
        connection.zadd(keys.leases(), {'w': 0})
        successor = SimpleWorker(['default'], connection=connection, name='w')
        successor.register_birth()

        worker.heartbeat()

        thread.join(10)
        assert not thread.is_alive()
        assert 'another worker has taken this name' in caplog.text
        assert _lease(connection) > _now_ms(connection), "the successor's lease is none of its predecessor's business"
        assert SimpleWorker.count(connection=connection) == 1
        successor.register_death()


def test_an_execution_that_was_lost_is_told(
    worker: SimpleWorker, connection: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, 'REFRESH_SECONDS', 0)
    worker.register_birth()
    Queue(connection=connection).enqueue(add, 1)
    [claimed] = worker._claim(1) or []
    worker._begin(claimed)
    transitions.release(connection, 'w', worker.executions.triples(), interruption_limit=3)

    worker.heartbeat()

    assert f'execution {claimed.job_id}:{claimed.execution_id} is no longer its own' in caplog.text
    worker.register_death()


def test_two_live_workers_cannot_have_one_name(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    with pytest.raises(ValueError, match="an active worker named 'w' already"):
        SimpleWorker(['default'], connection=connection, name='w').work(burst=True)
    worker.register_death()
    assert SimpleWorker(['default'], connection=connection, name='w').work(burst=True) is False


def _commands(connection: Any) -> int:
    """All that the server has carried out so far, inside scripts too, but for this question."""
    stats: dict[str, Any] = connection.info('commandstats')
    return sum(figures['calls'] for name, figures in stats.items() if not name.startswith('cmdstat_info'))


def _let_idle(worker: SimpleWorker) -> None:
    """As if the worker had had nothing to do for a while."""
    worker._look_after()
    worker._active_at -= IDLE_SECONDS
    worker._heart.last_beat -= IDLE_BEAT_SECONDS


def test_an_idle_worker_asks_for_little(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    _let_idle(worker)
    worker._heart.beat_idle()
    worker._heart.last_beat -= IDLE_BEAT_SECONDS
    worker._heart._look_at = 0
    before = _commands(connection)

    worker._look_after()
    worker._look_after()

    assert 0 < _commands(connection) - before <= 5
    assert 14_000 < _lease(connection) - _now_ms(connection) <= 15_000
    worker.register_death()


def test_an_idle_worker_refreshes_its_record_at_times(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    _let_idle(worker)
    connection.expire(worker.key, 5)
    worker._heart.last_full_beat -= IDLE_REFRESH_SECONDS
    worker._look_after()
    assert connection.ttl(worker.key) > 400
    worker.register_death()


def test_an_idle_worker_finds_who_is_lost(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    _let_idle(worker)
    job = Queue(connection=connection).enqueue(add, 1)
    victim = SimpleWorker(['default'], connection=connection, name='victim')
    victim.register_birth()
    [_] = victim._claim(1) or []
    connection.zadd(keys.leases(), {'victim': _now_ms(connection) - 1})

    worker._look_after()

    assert job.get_status() == JobStatus.FAILED, 'as RQ would have it'
    worker.register_death()


def test_a_full_server_lets_an_idle_worker_live(worker: SimpleWorker, connection: redis.Redis) -> None:
    worker.register_birth()
    _let_idle(worker)
    connection.zadd(keys.leases(), {'w': _now_ms(connection) + 1000})
    connection.config_set('maxmemory', 1)
    try:
        worker._look_after()
    finally:
        connection.config_set('maxmemory', 0)
    assert _lease(connection) > _now_ms(connection) + 10_000
    worker.register_death()
