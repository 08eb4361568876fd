"""What only a worker with many jobs in one process can get wrong: contexts, deadlines, neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from greenq import Callback, Queue
from greenq.command import send_kill_horse_command, send_stop_execution_command, send_stop_job_command
from greenq.job import Job, JobStatus
from tests.helpers import wait_until
from tests.worker import hard_jobs, jobs
from tests.worker.runner import Runner


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def test_sleeping_jobs_run_at_once(gevent_runner: Runner, queue: Queue) -> None:
    queue.enqueue_many([Queue.prepare_data(jobs.nap, (0.1,)) for _ in range(200)])

    ended = gevent_runner.run(concurrency=100)

    assert len(queue.finished_job_registry) == 200
    assert 0.2 <= ended.seconds < 1


def test_coroutines_run_at_once_on_one_loop(gevent_runner: Runner, queue: Queue) -> None:
    all_jobs = [queue.enqueue(jobs.async_nap, 0.1) for _ in range(100)]

    ended = gevent_runner.run(concurrency=100)

    assert len({job.return_value() for job in all_jobs}) == 1
    assert 0.1 <= ended.seconds < 1


def test_each_job_sees_itself(gevent_runner: Runner, queue: Queue) -> None:
    greenlets = [queue.enqueue(jobs.who) for _ in range(50)]
    tasks = [queue.enqueue(jobs.async_who) for _ in range(50)]

    gevent_runner.run()

    for job in greenlets:
        assert job.return_value() == [job.id] * 2
    for job in tasks:
        assert job.return_value() == [job.id] * 3


def test_greenlets_of_a_job_see_it(gevent_runner: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.who_in_greenlet)
    gevent_runner.run()
    assert job.return_value() == job.id


def test_coroutines_share_connections_with_greenlets(gevent_runner: Runner, queue: Queue) -> None:
    """A coroutine that makes a blocking call of greenq's, as users do, harms nobody."""
    all_jobs = [queue.enqueue(function) for function in (jobs.async_save_meta, jobs.save_meta, jobs.save_meta)]
    gevent_runner.run(concurrency=1)
    assert [job.get_status() for job in all_jobs] == [JobStatus.FINISHED] * 3


@pytest.mark.xfail(strict=True, reason='asyncio knows one running loop per thread, and all greenlets are in one')
def test_jobs_with_event_loops_of_their_own(gevent_runner: Runner, queue: Queue) -> None:
    all_jobs = [queue.enqueue(jobs.run_loop, 0.1) for _ in range(3)]
    gevent_runner.run()
    assert [job.get_status() for job in all_jobs] == [JobStatus.FINISHED] * 3


def test_jobs_use_redis_all_at_once(gevent_runner: Runner, queue: Queue) -> None:
    """Two hundred greenlets share a few connections, and wait for one instead of failing."""
    all_jobs = [queue.enqueue(jobs.save_meta, 5) for _ in range(200)]

    gevent_runner.run(concurrency=200)

    failures = [job.latest_result().exc_string for job in all_jobs if job.get_status() != JobStatus.FINISHED]  # type: ignore[union-attr]
    assert not failures
    assert all(job.get_meta() == {'round': 4} for job in all_jobs)


def test_a_timeout_hits_only_its_job(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    late = queue.enqueue(jobs.nap, 30, job_timeout=1)
    stubborn = queue.enqueue(jobs.swallow_exceptions, 30, job_timeout=1)
    neighbours = [queue.enqueue(jobs.nap, 1.3, job_timeout=5) for _ in range(10)]
    neighbours += [queue.enqueue(jobs.async_nap, 1.3, job_timeout=5) for _ in range(10)]

    ended = gevent_runner.run()

    for job in (late, stubborn):
        assert 'JobTimeoutException: Task exceeded maximum timeout value (1 seconds)' in _reason(job)
    assert jobs.noted(connection) == []
    assert [job.get_status() for job in neighbours] == [JobStatus.FINISHED] * 20
    assert ended.seconds < 4


@pytest.mark.slow
def test_a_late_coroutine_is_cancelled_and_its_slot_is_used_again(
    gevent_runner: Runner, queue: Queue, connection: redis.Redis
) -> None:
    late = queue.enqueue(jobs.async_cleanup, 30, job_timeout=1)
    # What the cancelled coroutine says last must not wake whatever its slot does next.
    followers = [queue.enqueue(jobs.nap, 0.3) for _ in range(3)]

    gevent_runner.run(concurrency=1)

    assert 'JobTimeoutException' in _reason(late)
    assert jobs.noted(connection) == ['cancelled']
    assert [job.return_value() for job in followers] == [0.3] * 3


@pytest.mark.slow
def test_stop_commands_stop_what_they_name(gevent_runner: Runner, queue: Queue, connection: Any) -> None:
    gevent_runner.begin()
    on_stopped = Callback(jobs.on_stopped)
    all_jobs = [queue.enqueue(jobs.wait_at_gate, on_stopped=on_stopped, job_id=name) for name in 'abcd']
    coroutine = queue.enqueue(jobs.async_cleanup, 30, on_stopped=on_stopped, job_id='coroutine')
    jobs.wait_for_notes(connection, 5)

    send_stop_job_command(connection, 'b')
    wait_until(all_jobs[2].get_executions, description='record of the execution, which is written after a second')
    [execution] = all_jobs[2].get_executions()
    send_stop_execution_command(connection, 'c', execution.id)
    send_stop_job_command(connection, 'coroutine')
    send_kill_horse_command(connection, gevent_runner.worker_name)
    stopped = [all_jobs[1], all_jobs[2], coroutine]
    wait_until(lambda: all(job.get_status() == JobStatus.STOPPED for job in stopped))
    jobs.open_gate(connection, 2)
    wait_until(lambda: all_jobs[0].is_finished and all_jobs[3].is_finished)
    gevent_runner.stop()

    assert sorted(jobs.noted(connection)) == ['cancelled', 'stopped b', 'stopped c', 'stopped coroutine']
    for job in stopped:
        assert job.id in queue.failed_job_registry
    assert sorted(jobs.noted(connection, 'ended')) == ['a', 'd']


def test_a_stopped_job_is_not_retried(gevent_runner: Runner, queue: Queue, connection: redis.Redis) -> None:
    from greenq import Retry

    gevent_runner.begin()
    job = queue.enqueue(jobs.wait_at_gate, retry=Retry(max=3))
    jobs.wait_for_notes(connection, 1)
    send_stop_job_command(connection, job.id)
    wait_until(lambda: job.get_status() == JobStatus.STOPPED)
    gevent_runner.stop()
    assert jobs.noted(connection, 'started') == [job.id]


def test_bad_jobs_among_many_good_ones(gevent_runner: Runner, queue: Queue, connection: Any) -> None:
    names = ['SystemExit', 'KeyboardInterrupt', 'GreenletExit', 'SystemError', 'MemoryError', 'RecursionError']
    bad, good = [], []
    for name in [*names, 'SpeechlessError'] * 3:
        good.append(queue.enqueue(jobs.nap, 0.05))
        bad.append((name, queue.enqueue(jobs.raise_named, name)))
        good.append(queue.enqueue(jobs.async_nap, 0.05))

    gevent_runner.run()

    for name, job in bad:
        assert job.get_status() == JobStatus.FAILED
        assert name in _reason(job)
    assert {job.get_status() for job in good} == {JobStatus.FINISHED}


@pytest.mark.parametrize('raise_elsewhere', [hard_jobs.raise_in_greenlet, hard_jobs.raise_in_thread])
def test_what_greenlets_of_jobs_raise(gevent_runner: Runner, queue: Queue, raise_elsewhere: Any) -> None:
    """It is their job's business, even where gevent would end the main greenlet by it."""
    names = ['SystemExit', 'KeyboardInterrupt', 'SystemError', 'GreenletExit', 'ValueError']
    all_jobs = [queue.enqueue(raise_elsewhere, name) for name in names]
    neighbours = [queue.enqueue(jobs.nap, 0.2) for _ in range(5)]

    gevent_runner.run()

    assert [job.return_value() for job in all_jobs] == ['unharmed'] * 5
    assert {job.get_status() for job in neighbours} == {JobStatus.FINISHED}


def test_damaged_jobs_among_many_good_ones(gevent_runner: Runner, queue: Queue, connection: Any) -> None:
    corrupt, dataless, bad_timeout = (queue.enqueue(jobs.nothing) for _ in range(3))
    connection.hset(corrupt.key, 'data', b'no pickle')
    connection.hdel(dataless.key, 'data')
    connection.hset(bad_timeout.key, 'timeout', 'soon')
    unknown, missing = queue.enqueue('tests.worker.jobs.no_such'), queue.enqueue('no_such.module')
    raising, deep = queue.enqueue('tests.worker.raises_on_import.function'), queue.enqueue(hard_jobs.nest, 100_000)
    bad = [corrupt, dataless, bad_timeout, unknown, missing, raising, deep]
    good = [queue.enqueue(function, 0.1) for function in (jobs.nap, jobs.async_nap) for _ in range(10)]

    gevent_runner.run()

    for job in bad:
        assert connection.hget(job.key, 'status') == b'failed'
    reasons = [_reason(job) for job in (corrupt, unknown, missing, deep)]
    for reason, text in zip(reasons, ['DeserializationError', 'no_such', 'no_such', 'RecursionError'], strict=True):
        assert text in reason
    assert {job.get_status() for job in good} == {JobStatus.FINISHED}


def test_results_that_are_hard_to_write(gevent_runner: Runner, queue: Queue) -> None:
    unpicklable, large = queue.enqueue(jobs.return_unpicklable), queue.enqueue(hard_jobs.return_bytes, 50_000_000)
    wordy = queue.enqueue(hard_jobs.raise_much, 5_000_000)
    good = [queue.enqueue(jobs.nap, 0.1) for _ in range(10)]

    gevent_runner.run()

    assert unpicklable.return_value() == 'Unserializable return value'
    assert large.return_value() == b'x' * 50_000_000
    assert 'ValueError: xxx' in _reason(wordy)
    assert {job.get_status() for job in good} == {JobStatus.FINISHED}


def test_an_unpatched_process_is_refused(runners: Any, connection: redis.Redis) -> None:
    runner = runners('simple')
    runner.begin(worker_class='greenq.GeventWorker')
    ended = runner.end()
    assert ended.result is None
    last_line = str(ended.error).strip().splitlines()[-1]
    assert last_line.startswith('greenq.exceptions.NotPatchedError: ')
    assert 'redis' in last_line and 'greenq worker -w greenq.GeventWorker' in last_line
    assert not connection.keys()


@pytest.mark.parametrize('options', [{'concurrency': 0}, {'grace': -1}])
def test_settings_that_make_no_sense(gevent_runner: Runner, connection: redis.Redis, options: dict[str, Any]) -> None:
    gevent_runner.begin(**options)
    [(name, value)] = options.items()
    assert f'ValueError: {name} {value} is not allowed' in str(gevent_runner.end().error)


def _reason(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)
