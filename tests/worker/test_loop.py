"""The loop: suspension, troubles with Redis, working again with the same worker, and its settings."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import redis

from greenq import Queue, SimpleWorker, Worker
from greenq.job import JobStatus
from greenq.store import keys
from greenq.suspension import resume, suspend
from greenq.worker import RandomWorker, RoundRobinWorker
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.proxy import Proxy
from tests.worker.runner import Runner, Runners

KINDS = ['simple', 'fork', 'gevent']


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, runners: Runners) -> Runner:
    return runners(request.param)


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def test_suspended_workers_wait(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin()
    runner.wait_for_state(connection, 'idle', 'started')
    suspend(connection)
    job = queue.enqueue(jobs.nothing)
    runner.wait_for_state(connection, 'suspended')
    assert queue.job_ids == [job.id]
    assert job.get_status() == JobStatus.QUEUED

    resume(connection)

    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    runner.stop()


def test_a_suspended_worker_can_be_stopped(runner: Runner, connection: redis.Redis) -> None:
    suspend(connection)
    runner.begin()
    runner.wait_for_state(connection, 'suspended')
    runner.signal(signal.SIGTERM)
    ended = runner.end()
    assert ended.error is None and ended.seconds < 4


def test_suspended_in_burst_mode(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    suspend(connection)
    queue.enqueue(jobs.nothing)
    assert runner.run().result is False
    assert len(queue) == 1


def test_a_restart_of_redis_while_idle(runner: Runner, queue: Queue, connection: redis.Redis, server_url: str) -> None:
    with Proxy(server_url) as proxy:
        runner.begin(url=proxy.url)
        runner.wait_for_state(connection, 'idle', 'started')
        trouble = f'Worker {runner.worker_name}: Redis: '
        proxy.go_away()
        wait_until(lambda: runner.output.count(trouble) >= 2)
        job = queue.enqueue(jobs.add, 1)
        proxy.come_back()
        wait_until(lambda: job.get_status() == JobStatus.FINISHED)
        assert runner.stop().result is True


@pytest.mark.slow
def test_an_absence_of_redis_while_jobs_run(runners: Runners, connection: redis.Redis, server_url: str) -> None:
    """Each worker misses a beat; then its job ends, once, and it goes on."""
    queues = {kind: Queue(kind, connection=connection) for kind in KINDS}
    with Proxy(server_url) as proxy:
        at_work = {kind: runners(kind) for kind in KINDS}
        for kind, runner in at_work.items():
            runner.begin(kind, url=proxy.url)
        first = {kind: queues[kind].enqueue(jobs.wait_at_gate, kind) for kind in KINDS}
        jobs.wait_for_notes(connection, 3)
        proxy.go_away()
        for runner in at_work.values():
            wait_until(lambda runner=runner: _troubles(runner) >= 1, timeout=12)  # type: ignore[misc]
        second = {kind: queues[kind].enqueue(jobs.wait_at_gate, kind) for kind in ('simple', 'fork')}
        proxy.come_back()
        for kind in KINDS:
            jobs.open_gate(connection, gate=kind)
        wait_until(lambda: all(job.is_finished for job in first.values()), timeout=15)
        for kind in ('simple', 'fork'):
            jobs.open_gate(connection, gate=kind)
        wait_until(lambda: all(job.is_finished for job in second.values()), timeout=15)
        for runner in at_work.values():
            runner.stop()
    started = jobs.noted(connection, 'started')
    assert sorted(started) == sorted(job.id for job in [*first.values(), *second.values()])


def _troubles(runner: Runner) -> int:
    lines = [line for line in runner.output.splitlines() if f'Worker {runner.worker_name}' in line]
    return sum('Redis' in line or 'cannot beat' in line or 'Error' in line for line in lines)


def test_a_worker_can_work_again(queue: Queue, connection: redis.Redis) -> None:
    worker = SimpleWorker([queue], connection=connection)
    for _ in range(3):
        job = queue.enqueue(jobs.add, 1)
        assert worker.work(burst=True) is True
        assert job.get_status() == JobStatus.FINISHED
    assert worker.work(burst=True) is False


def test_execute_job_without_a_claim(queue: Queue, connection: redis.Redis) -> None:
    """RQ's users call it on a job that they have in hand."""
    worker = SimpleWorker([queue], connection=connection)
    job = queue.enqueue(jobs.add, 1)
    worker.register_birth()
    worker.execute_job(job, queue)
    assert job.get_status() == JobStatus.FINISHED
    assert not worker.executions
    worker.register_death()


@pytest.mark.parametrize('strategy', ['fifo', 3])
def test_unknown_strategies(queue: Queue, connection: redis.Redis, strategy: Any) -> None:
    with pytest.raises(ValueError, match=r'is not allowed\. Use `default`, `random` or `round_robin`'):
        Worker([queue], connection=connection).work(burst=True, dequeue_strategy=strategy)
    assert Worker.count(connection=connection) == 0


def test_workers_with_a_strategy_of_their_own(connection: redis.Redis) -> None:
    names = ['a', 'b', 'c']
    for name in names:
        for number in range(2):
            Queue(name, connection=connection).enqueue(jobs.note, f'{name}{number}')
    RoundRobinWorker(names, connection=connection).work(burst=True)
    assert jobs.noted(connection) == ['a0', 'b0', 'c0', 'a1', 'b1', 'c1']
    connection.delete(jobs.key('notes'))
    for name in names:
        Queue(name, connection=connection).enqueue(jobs.note, name)
    RandomWorker(names, connection=connection).work(burst=True)
    assert sorted(jobs.noted(connection)) == names


def test_max_jobs_of_a_gevent_worker_is_exact(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue_many([Queue.prepare_data(jobs.nothing) for _ in range(500)])
    gevent_runner.begin(max_jobs=123, concurrency=50)
    assert gevent_runner.end().error is None
    assert len(queue.finished_job_registry) == 123
    assert len(queue) == 377


@pytest.mark.slow
def test_max_idle_time_counts_from_the_last_job(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(jobs.nap, 1.2)
    gevent_runner.begin(max_idle_time=1)
    ended = gevent_runner.end()
    assert ended.error is None
    assert 2.1 < ended.seconds < 5
    assert len(queue.finished_job_registry) == 1


def test_a_hash_of_another_type_harms_nobody(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    """Somebody has overwritten a job by a string."""
    bad, good = queue.enqueue(jobs.nothing), queue.enqueue(jobs.nothing)
    connection.delete(bad.key)
    connection.set(bad.key, 'no hash')
    runner.run()
    assert good.get_status() == JobStatus.FINISHED
    assert connection.type(keys.job(bad.id)) == b'string'
