"""Jobs that keep the others of their process from running, or that do not end; and how the worker ends by itself."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from greenq import Callback, Queue, Retry
from greenq.job import Job, JobStatus
from greenq.store import keys
from tests.helpers import wait_until
from tests.worker import hard_jobs, jobs
from tests.worker.runner import Runner, Runners


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


@pytest.fixture
def runner(runners: Runners) -> Runner:
    """A process of one's own, which may be left in disorder."""
    return runners.new('gevent')


def _reason(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


# ---- deadlines of code that never waits ----


@pytest.mark.parametrize('function', [hard_jobs.spin, hard_jobs.match_for_ever, hard_jobs.spin_in_greenlet])
def test_a_job_that_never_waits(gevent_runner: Runner, queue: Queue, function: Callable[[], Any]) -> None:
    neighbours = [queue.enqueue(jobs.nap, 0.3, job_timeout=10) for _ in range(10)]
    late = queue.enqueue(function, job_timeout=1)
    neighbours += [queue.enqueue(jobs.async_nap, 0.3, job_timeout=10) for _ in range(10)]

    gevent_runner.run()

    assert 'JobTimeoutException: Task exceeded maximum timeout value (1 seconds)' in _reason(late)
    late.refresh()
    assert late.started_at is not None and late.ended_at is not None
    # With a second of slack for a machine with much else to do.
    assert 1 <= (late.ended_at - late.started_at).total_seconds() <= 3
    assert {job.get_status() for job in neighbours} == {JobStatus.FINISHED}


def test_a_callback_that_never_waits(gevent_runner: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.nothing, on_success=Callback(hard_jobs.spin_when_done, timeout=1))
    neighbour = queue.enqueue(jobs.nap, 0.3)

    gevent_runner.run()

    assert 'JobTimeoutException: Task exceeded maximum timeout value (1 seconds)' in _reason(job)
    assert neighbour.is_finished


def test_a_coroutine_that_never_waits(gevent_runner: Runner, queue: Queue) -> None:
    late = queue.enqueue(hard_jobs.async_spin, job_timeout=1)
    neighbours = [queue.enqueue(jobs.async_nap, 0.3, job_timeout=10) for _ in range(5)]
    neighbours += [queue.enqueue(jobs.nap, 0.3, job_timeout=10) for _ in range(5)]

    ended = gevent_runner.run()

    assert 'JobTimeoutException' in _reason(late)
    assert {job.get_status() for job in neighbours} == {JobStatus.FINISHED}
    assert ended.seconds < 5


@pytest.mark.slow
def test_a_deadline_around_the_end_of_a_job(gevent_runner: Runner, queue: Queue) -> None:
    """Whoever wins, there is one outcome, and the slot goes on."""
    edge = [queue.enqueue(jobs.nap, 1 + number / 2000, job_timeout=1) for number in range(-60, 300)]
    gevent_runner.run(concurrency=60)
    statuses = [job.get_status() for job in edge]
    assert set(statuses) == {JobStatus.FINISHED, JobStatus.FAILED}
    for job in edge:
        assert len(job.results()) == 1
        if job.is_failed:
            assert 'JobTimeoutException' in _reason(job) and 'Overdue' not in _reason(job)


@pytest.mark.slow
def test_a_job_that_uses_the_alarm_itself(gevent_runner: Runner, queue: Queue) -> None:
    job, late = queue.enqueue(hard_jobs.use_alarm), queue.enqueue(hard_jobs.spin, job_timeout=1)
    gevent_runner.run(concurrency=1)
    assert job.return_value() == [pytest.approx(0.5, abs=0.4)]
    assert 'JobTimeoutException' in _reason(late)


def test_a_shutdown_does_not_wait_for_a_job_that_never_waits(
    gevent_runner: Runner, queue: Queue, connection: redis.Redis
) -> None:
    gevent_runner.begin(grace=1)
    job = queue.enqueue(hard_jobs.note_and_spin, job_timeout=60)
    jobs.wait_for_notes(connection, 1)
    asked = time.monotonic()
    gevent_runner.signal()
    assert gevent_runner.end().error is None
    assert 1 <= time.monotonic() - asked < 3
    assert job.get_status() == JobStatus.QUEUED


# ---- blame ----


@pytest.mark.slow
def test_blame(gevent_runner: Runner, queue: Queue, connection: Any) -> None:
    said = len(gevent_runner.output)
    gevent_runner.begin()
    culprits = [
        queue.enqueue(hard_jobs.spin_for, 0.8, job_id='spinner'),
        queue.enqueue(hard_jobs.sleep_in_c, 0.8, job_id='sleeper'),
    ]
    wait_until(lambda: all(job.is_finished for job in culprits))
    harmless = [queue.enqueue(hard_jobs.spin_for, 0.2) for _ in range(3)]
    wait_until(lambda: all(job.is_finished for job in harmless))
    record = keys.worker(gevent_runner.worker_name)
    wait_until(lambda: connection.hget(record, 'greenq_blocks') == b'2', description=gevent_runner.output[said:])
    gevent_runner.stop()

    text = gevent_runner.output[said:]
    found = re.findall(r'job (\w+) \(([\w.]+)\) kept all jobs from running for (\d\.\d) seconds', text)
    assert [(job_id, name) for job_id, name, _ in found] == [
        ('spinner', 'tests.worker.hard_jobs.spin_for'),
        ('sleeper', 'tests.worker.hard_jobs.sleep_in_c'),
    ]
    assert 'while time.monotonic() < until' in text, 'the line of code'


def test_no_blame_if_none_is_wanted(gevent_runner: Runner, queue: Queue) -> None:
    said = len(gevent_runner.output)
    queue.enqueue(hard_jobs.spin_for, 0.8)
    gevent_runner.run(block_warning=0)
    assert 'kept all jobs' not in gevent_runner.output[said:]


# ---- jobs that will not end ----


@pytest.mark.slow
@pytest.mark.parametrize('function', [hard_jobs.sleep_and_swallow, hard_jobs.spin_and_swallow])
def test_a_job_that_does_not_end(
    runner: Runner, queue: Queue, connection: redis.Redis, function: Callable[[], Any]
) -> None:
    """It fails, its slot is replaced, and all others go on."""
    runner.begin(concurrency=1)
    first = queue.enqueue(hard_jobs.give_up_soon)
    stuck = queue.enqueue(function, job_timeout=1, on_failure=Callback(jobs.on_failure))
    followers = [queue.enqueue(jobs.nap, 0.1) for _ in range(3)]

    wait_until(lambda: all(job.is_finished for job in followers), timeout=15)

    assert first.is_finished and stuck.is_failed
    assert 'JobTimeoutException: Task exceeded maximum timeout value (1 seconds); it did not end' in _reason(stuck)
    assert [note[:8] for note in jobs.noted(connection)] == ['failure ']
    runner.stop()
    assert f'job {stuck.id} (tests.worker.hard_jobs.{function.__name__}) swallows its deadline' in runner.output
    assert stuck.is_failed and len(stuck.results()) == 1


@pytest.mark.slow
def test_a_job_that_does_not_end_is_tried_again(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin(concurrency=1)
    queue.enqueue(hard_jobs.give_up_soon)
    stuck = queue.enqueue(hard_jobs.sleep_and_swallow, job_timeout=1, retry=Retry(max=1))
    jobs.wait_for_notes(connection, 2)
    wait_until(lambda: stuck.is_failed)
    runner.stop()


@pytest.mark.slow
def test_a_callback_that_does_not_end(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin(concurrency=1)
    queue.enqueue(hard_jobs.give_up_soon)
    stuck = queue.enqueue(jobs.fail, on_failure=Callback(hard_jobs.swallow_when_done, timeout=1))
    follower = queue.enqueue(jobs.nothing)
    wait_until(lambda: follower.is_finished and stuck.is_failed)
    assert 'it did not end when told to' in _reason(stuck)
    runner.stop()


@pytest.mark.slow
def test_what_ends_after_it_was_given_up_changes_nothing(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin(concurrency=1)
    queue.enqueue(hard_jobs.give_up_soon)
    stuck = queue.enqueue(hard_jobs.swallow_until_told, job_timeout=1, on_success=Callback(jobs.on_success))
    wait_until(lambda: stuck.is_failed)
    jobs.open_gate(connection)
    jobs.wait_for_notes(connection, 1, 'ended')
    follower = queue.enqueue(jobs.nothing)
    wait_until(lambda: follower.is_finished)
    runner.stop()
    assert stuck.is_failed and len(stuck.results()) == 1
    assert jobs.noted(connection) == []


@pytest.mark.slow
def test_a_coroutine_that_neither_waits_nor_ends(runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    runner.begin()
    queue.enqueue(hard_jobs.give_up_soon)
    stuck = queue.enqueue(hard_jobs.async_spin_and_swallow, job_timeout=1)
    jobs.wait_for_notes(connection, 1)
    wait_until(lambda: 'others get a new loop' in runner.output)
    follower = queue.enqueue(jobs.async_nap, 0.1)
    wait_until(lambda: follower.is_finished)
    runner.stop()
    assert 'JobTimeoutException' in _reason(stuck)


# ---- ends by itself ----


def test_a_worker_that_is_too_old_ends_when_its_jobs_have(
    gevent_runner: Runner, queue: Queue, connection: redis.Redis
) -> None:
    said = len(gevent_runner.output)
    running = queue.enqueue(jobs.wait_at_gate)
    gevent_runner.begin(max_age=0.5)
    jobs.wait_for_notes(connection, 1)
    wait_until(lambda: 'takes no more jobs' in gevent_runner.output[said:])
    late = queue.enqueue(jobs.nothing)
    jobs.open_gate(connection)
    assert gevent_runner.end().error is None
    assert running.is_finished and late.get_status() == JobStatus.QUEUED
    assert 'max-age is 0.5' in gevent_runner.output[said:]


def test_a_worker_that_is_too_large_ends(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    said = len(gevent_runner.output)
    gevent_runner.begin(max_memory=250)
    job = queue.enqueue(hard_jobs.keep_memory, 300)
    assert gevent_runner.end().error is None
    assert job.is_finished
    assert 'MiB of memory are in use, max-memory is 250' in gevent_runner.output[said:]


def test_memory_that_is_not_enough_to_begin_with(gevent_runner: Runner, connection: redis.Redis) -> None:
    gevent_runner.begin(max_memory=1)
    assert 'ValueError: max_memory 1 (MiB) is not enough: the worker takes' in str(gevent_runner.end().error)
    assert not connection.exists(keys.worker(gevent_runner.worker_name))


@pytest.mark.slow
def test_a_quiet_worker_takes_nothing_and_stays(gevent_runner: Runner, queue: Queue, connection: Any) -> None:
    gevent_runner.begin()
    running = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)

    gevent_runner.signal(signal.SIGTSTP)
    gevent_runner.wait_for_state(connection, 'suspended')
    late = queue.enqueue(jobs.nothing)
    jobs.open_gate(connection)
    wait_until(lambda: running.is_finished)
    beat = connection.hget(keys.worker(gevent_runner.worker_name), 'last_heartbeat')
    wait_until(lambda: connection.hget(keys.worker(gevent_runner.worker_name), 'last_heartbeat') != beat)
    assert late.get_status() == JobStatus.QUEUED
    gevent_runner.wait_for_state(connection, 'suspended')

    gevent_runner.stop()
    assert queue.job_ids == [late.id]


@pytest.mark.parametrize('options', [{'max_memory': 0}, {'max_age': -1}, {'block_warning': -1}])
def test_settings_that_make_no_sense(gevent_runner: Runner, connection: redis.Redis, options: dict[str, Any]) -> None:
    gevent_runner.begin(**options)
    [(name, value)] = options.items()
    assert f'ValueError: {name} {value} is not allowed' in str(gevent_runner.end().error)


# ---- what one bad job may not do to the others ----


@pytest.mark.parametrize('does', ['sleeps', 'spins'])
def test_a_module_that_hangs_on_import(runner: Runner, queue: Queue, tmp_path: Path, does: str) -> None:
    hanging = queue.enqueue(hard_jobs.import_module_that, does, str(tmp_path), job_timeout=1)
    neighbours = [queue.enqueue(jobs.nap, 0.2, job_timeout=10) for _ in range(5)]
    runner.run()
    assert 'JobTimeoutException' in _reason(hanging)
    assert {job.get_status() for job in neighbours} == {JobStatus.FINISHED}
