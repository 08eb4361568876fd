"""SIGINT and SIGTERM, warm and cold, in real processes."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
import redis

from greenq import Queue, Retry
from greenq.command import send_quiet_command
from greenq.job import Job, JobStatus
from greenq.store import keys
from greenq.worker import Worker
from greenq.worker.signals import SAME_REQUEST_SECONDS
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.runner import Runner, Runners

KINDS = ['simple', 'fork', 'gevent']


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, runners: Runners) -> Runner:
    return runners(request.param)


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def _one_at_a_time(runner: Runner) -> dict[str, Any]:
    return {'concurrency': 1} if runner.kind == 'gevent' else {}


def _interruptions(job: Job) -> list[Any]:
    client: Any = job.connection
    found: list[Any] = json.loads(client.hget(job.key, 'greenq_interruptions') or '[]')
    return found


def _wait_out_the_same_request() -> None:
    """Ctrl+C comes twice from a terminal with a supervisor; only a later signal is a second wish."""
    asked = time.monotonic()
    wait_until(lambda: time.monotonic() - asked > SAME_REQUEST_SECONDS, interval=0.05)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_idle_worker_leaves_at_once(runner: Runner, connection: redis.Redis, number: int) -> None:
    runner.begin()
    runner.wait_for_state(connection, 'idle', 'started')
    asked = time.monotonic()
    runner.signal(number)
    ended = runner.end()
    assert ended.error is None and ended.result is False
    assert time.monotonic() - asked < 2
    assert Worker.count(connection=connection) == 0


def test_a_running_job_may_finish(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin(**_one_at_a_time(runner))
    running, next_one = queue.enqueue(jobs.wait_at_gate), queue.enqueue(jobs.nothing)
    jobs.wait_for_notes(connection, 1)

    runner.signal(signal.SIGTERM)
    runner.signal(signal.SIGTERM)  # The copy from a supervisor is no second wish.
    if runner.kind != 'simple':  # A simple worker notes it after its job.
        wait_until(lambda: b'shutdown_requested_date' in connection.hkeys(keys.worker(runner.worker_name)))
    late = queue.enqueue(jobs.nothing)
    jobs.open_gate(connection)

    assert runner.end().error is None
    assert running.get_status() == JobStatus.FINISHED
    assert queue.job_ids == [next_one.id, late.id]
    assert not connection.exists(keys.parked(runner.worker_name))


def test_a_quiet_worker_takes_nothing_more(
    runner: Runner, runners: Runners, queue: Queue, connection: redis.Redis
) -> None:
    runner.begin()
    running = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    send_quiet_command(connection, runner.worker_name)
    jobs.open_gate(connection)
    runner.wait_for_state(connection, 'suspended')
    wait_until(lambda: running.get_status() == JobStatus.FINISHED)

    left = [queue.enqueue(jobs.nothing) for _ in range(3)]
    other = runners.new('simple')
    other.run()

    assert {job.worker_name for job in Job.fetch_many([job.id for job in left], connection) if job} == {
        other.worker_name
    }
    runner.stop()


def test_a_second_signal_cuts_jobs_off(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin(**_one_at_a_time(runner))
    running = queue.enqueue(jobs.wait_at_gate, job_id='running', retry=None)
    queue.enqueue(jobs.nothing, job_id='behind')
    jobs.wait_for_notes(connection, 1)
    runner.signal(signal.SIGTERM)
    _wait_out_the_same_request()
    asked = time.monotonic()

    runner.signal(signal.SIGTERM)

    assert runner.end().error is None
    assert time.monotonic() - asked < 2.5
    assert not jobs.noted(connection, 'ended')
    if runner.kind != 'gevent':
        reason = {'fork': 'Work-horse terminated unexpectedly', 'simple': 'interrupted by the shutdown of its worker'}
        assert running.get_status() == JobStatus.FAILED
        assert reason[runner.kind] in str(running.latest_result().exc_string)  # type: ignore[union-attr]
        assert queue.job_ids == ['behind']
    else:
        assert running.get_status() == JobStatus.QUEUED
        assert queue.job_ids == ['running', 'behind']
        assert len(_interruptions(running)) == 1


def test_a_cut_off_job_is_requeued_by_a_fork_worker_that_is_asked_to(
    runners: Runners, queue: Queue, connection: redis.Redis
) -> None:
    runner = runners('fork')
    runner.begin(on_lost='requeue')
    job = queue.enqueue(jobs.wait_at_gate, retry=Retry(max=1))
    jobs.wait_for_notes(connection, 1)
    runner.signal()
    _wait_out_the_same_request()
    runner.signal()
    assert runner.end().error is None
    job.refresh()
    assert (job.get_status(), job.retries_left) == (JobStatus.QUEUED, 1)


def test_the_grace_of_a_gevent_worker(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    """Short jobs finish within it; long ones return to the front, in their order, with all their retries."""
    gevent_runner.begin(grace=1, concurrency=30)
    short = [queue.enqueue(jobs.noted_nap, 0.5) for _ in range(10)]
    long = [queue.enqueue(jobs.noted_nap, 60, retry=Retry(max=1), job_id=f'long-{number}') for number in range(3)]
    coroutine = queue.enqueue(jobs.async_cleanup, 60, job_id='coroutine')
    jobs.wait_for_notes(connection, 14)
    asked = time.monotonic()

    gevent_runner.signal()
    wait_until(lambda: b'shutdown_requested_date' in connection.hkeys(keys.worker(gevent_runner.worker_name)))
    queue.enqueue(jobs.nothing, job_id='late')

    assert gevent_runner.end().error is None
    assert 1 <= time.monotonic() - asked < 3
    assert {job.get_status() for job in short} == {JobStatus.FINISHED}
    assert queue.job_ids[-1] == 'late'
    assert sorted(queue.job_ids[:-1]) == ['coroutine', 'long-0', 'long-1', 'long-2']
    for job in [*long, coroutine]:
        job.refresh()
        assert job.get_status() == JobStatus.QUEUED
        assert len(_interruptions(job)) == 1
    assert [job.retries_left for job in long] == [1, 1, 1]
    assert jobs.noted(connection) == ['cancelled']
    assert not queue.started_job_registry.get_job_ids(cleanup=False)


def test_a_job_that_swallows_everything_does_not_hold_up_the_end(
    gevent_runner: Runner, queue: Queue, connection: redis.Redis
) -> None:
    gevent_runner.begin(grace=0)
    job = queue.enqueue(jobs.swallow_everything, 8)
    jobs.wait_for_notes(connection, 1)
    asked = time.monotonic()
    gevent_runner.signal()
    assert gevent_runner.end().error is None
    assert time.monotonic() - asked < 2.5
    assert job.get_status() == JobStatus.QUEUED


def test_what_waits_for_a_slot_is_taken_by_others_meanwhile(
    runners: Runners, queue: Queue, connection: redis.Redis
) -> None:
    """A worker that drains takes nothing more, so that what comes is others' at once."""
    leaving, staying = runners('gevent'), runners.new('gevent')
    leaving.begin(concurrency=5)
    slow = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    staying.begin()
    staying.wait_for_state(connection, 'idle', 'started')
    leaving.signal()
    wait_until(lambda: b'shutdown_requested_date' in connection.hkeys(keys.worker(leaving.worker_name)))

    quick = [queue.enqueue(jobs.nothing) for _ in range(20)]

    wait_until(lambda: all(job.is_finished for job in quick), timeout=4)
    assert slow.is_started
    jobs.open_gate(connection)
    assert leaving.end().error is None
    assert slow.is_finished
    staying.stop()
