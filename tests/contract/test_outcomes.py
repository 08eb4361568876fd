"""What becomes of a job that succeeds, fails, or goes round again: the same with every worker."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from greenq import Queue, Repeat, Retry
from greenq.job import JobStatus
from greenq.results import Result
from greenq.store import keys
from greenq.worker import Worker
from tests.worker import jobs
from tests.worker.runner import Runner


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def test_success(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    before = datetime.now(UTC)
    job = queue.enqueue(jobs.add, 2, b=3)

    assert worker.run().result is True

    job.refresh()
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == 5
    assert job.started_at is not None and job.ended_at is not None
    assert before <= job.started_at <= job.ended_at <= datetime.now(UTC)
    assert job.worker_name == worker.worker_name
    assert job.id in queue.finished_job_registry
    assert len(queue) == len(queue.started_job_registry.get_job_ids(cleanup=False)) == 0


def test_no_job_is_no_success(worker: Runner, connection: redis.Redis) -> None:
    assert worker.run().result is False


def test_failure(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.fail, 'broken on purpose')

    assert worker.run().result is True

    job.refresh()
    assert job.get_status() == JobStatus.FAILED
    assert job.id in queue.failed_job_registry
    result = job.latest_result()
    assert result is not None and result.type is Result.Type.FAILED
    assert result.exc_string is not None
    assert result.exc_string.startswith('Traceback')
    assert 'raise ValueError(message)\nValueError: broken on purpose' in result.exc_string
    assert not queue.started_job_registry.get_job_ids(cleanup=False)


def test_result_records(worker: Runner, queue: Queue) -> None:
    good, bad = queue.enqueue(jobs.echo, 1, two=2), queue.enqueue(jobs.fail)
    worker.run()

    [success] = good.results()
    assert (success.type, success.return_value) == (Result.Type.SUCCESSFUL, [[1], {'two': 2}])
    assert success.worker_name == worker.worker_name
    assert success.execution_id
    [failure] = bad.results()
    assert failure.type is Result.Type.FAILED
    assert failure.worker_name == worker.worker_name


def test_retry_at_once(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.fail_times, 2, retry=Retry(max=3))

    worker.run()

    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == 3
    job.refresh()
    assert job.retries_left == 1
    assert next(result.type for result in job.results()) is Result.Type.SUCCESSFUL


def test_retries_run_out(worker: Runner, queue: Queue, connection: Any) -> None:
    job = queue.enqueue(jobs.fail_times, 9, retry=Retry(max=2))

    worker.run()

    assert job.get_status() == JobStatus.FAILED
    assert connection.get(jobs.key('tries')) == b'3'
    assert 'try 3' in str(job.latest_result().exc_string)  # type: ignore[union-attr]


def test_retry_after_an_interval(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.fail, retry=Retry(max=2, interval=[60, 120]))

    worker.run()

    assert job.get_status() == JobStatus.SCHEDULED
    due = queue.scheduled_job_registry.get_scheduled_time(job)
    assert timedelta(seconds=55) < due - datetime.now(UTC) < timedelta(seconds=65)
    job.refresh()
    assert job.retries_left == 1


def test_retry_at_the_front(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(jobs.fail_times, 1, retry=Retry(max=1, enqueue_at_front=True), job_id='again')
    queue.enqueue(jobs.note, 'other')

    worker.run(max_jobs=1, **_one_at_a_time(worker))

    assert queue.job_ids[0] == 'again'


def test_a_returned_retry(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    job = queue.enqueue(jobs.ask_for_retry, 2)

    worker.run()

    assert jobs.noted(connection) == ['asked'] * 3
    assert job.get_status() == JobStatus.FAILED
    types = [result.type for result in job.results()]
    assert types == [Result.Type.MAX_RETRIES_EXCEEDED, Result.Type.RETRIED, Result.Type.RETRIED]


def test_a_returned_retry_with_an_interval(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.ask_for_retry, 2, 60)
    worker.run()
    assert job.get_status() == JobStatus.SCHEDULED


def test_repeat(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    job = queue.enqueue(jobs.note, 'run', repeat=Repeat(times=2))

    worker.run()

    assert jobs.noted(connection) == ['run'] * 3
    assert job.get_status() == JobStatus.FINISHED
    job.refresh()
    assert job.repeats_left == 0


def test_repeat_after_an_interval(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    job = queue.enqueue(jobs.note, 'run', repeat=Repeat(times=2, interval=[60, 90]))

    worker.run()

    assert jobs.noted(connection) == ['run']
    assert job.get_status() == JobStatus.SCHEDULED
    assert job.id in queue.scheduled_job_registry


def test_result_ttl(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    gone = queue.enqueue(jobs.add, 1, result_ttl=0)
    kept = queue.enqueue(jobs.add, 1, result_ttl=-1)
    timed = queue.enqueue(jobs.add, 1, result_ttl=77)
    default = queue.enqueue(jobs.add, 1)

    worker.run(default_result_ttl=99)

    assert not connection.exists(gone.key) and not connection.exists(keys.results(gone.id))
    assert gone.id not in queue.finished_job_registry
    assert connection.ttl(kept.key) == -1
    assert 70 < connection.ttl(timed.key) <= 77
    assert 90 < connection.ttl(default.key) <= 99
    assert {kept.id, timed.id, default.id} == set(queue.finished_job_registry.get_job_ids())


def test_failure_ttl(worker: Runner, queue: Queue, connection: Any) -> None:
    timed = queue.enqueue(jobs.fail, failure_ttl=55)
    default = queue.enqueue(jobs.fail)

    worker.run()

    assert 50 < connection.ttl(timed.key) <= 55
    score = connection.zscore(queue.failed_job_registry.key, default.id)
    assert score > datetime.now(UTC).timestamp() + 300 * 24 * 3600


def test_a_job_that_expired_in_its_queue_is_passed_over(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    late = queue.enqueue(jobs.note, 'late', ttl=10)
    queue.enqueue(jobs.note, 'fresh')
    assert 0 < connection.ttl(late.key) <= 10
    connection.delete(late.key)

    worker.run()

    assert jobs.noted(connection) == ['fresh']
    assert not queue.job_ids


def test_counters(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    for _ in range(3):
        queue.enqueue(jobs.add, 1)
    queue.enqueue(jobs.fail)
    queue.enqueue(jobs.nap, 0.05)

    worker.run()

    record = Worker.find_by_key(keys.worker(worker.worker_name), connection=connection)
    assert record is not None
    assert (record.successful_job_count, record.failed_job_count) == (4, 1)
    assert 0.05 <= record.total_working_time < 5


def test_meta_survives_the_job(worker: Runner, queue: Queue) -> None:
    untouched = queue.enqueue(jobs.meta_of_me, meta={'asked by': 'us'})
    changed = queue.enqueue(jobs.save_meta, meta={'asked by': 'us'})

    worker.run()

    assert untouched.return_value() == {'asked by': 'us'} == untouched.get_meta()
    assert changed.get_meta() == {'asked by': 'us', 'round': 0}


def test_unpicklable_result(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.return_unpicklable)
    worker.run()
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == 'Unserializable return value'


def test_disabled_default_handler_leaves_failures_unregistered(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue(jobs.fail)
    worker.run(disable_default_exception_handler=True)
    assert job.get_status() == JobStatus.FAILED
    assert job.id not in queue.failed_job_registry


def test_interruptions_are_none_of_a_job_that_ran_through(worker: Runner, queue: Queue, connection: Any) -> None:
    job = queue.enqueue(jobs.add, 1)
    worker.run()
    assert json.loads(connection.hget(job.key, 'greenq_interruptions') or '[]') == []


def test_nothing_stays_behind(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(jobs.add, 1)
    queue.enqueue(jobs.fail)

    worker.run()

    left = {key.decode() for key in connection.scan_iter()}
    name = worker.worker_name
    assert not left & {keys.member(name), keys.held(name), keys.parked(name), keys.worker_executions(name)}
    assert connection.zscore(keys.leases(), name) is None
    assert not [key for key in left if ':execution:' in key or ':executions:' in key]
    assert not connection.smembers(keys.workers())


def _one_at_a_time(worker: Runner) -> dict[str, Any]:
    return {'concurrency': 1} if worker.kind == 'gevent' else {}
