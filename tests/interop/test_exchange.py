"""Jobs of one package run by workers of the other, and read back by their producer."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import rq

from greenq.store import keys
from greenq.store.scheduling import promote_scheduled
from tests.interop import jobs
from tests.interop.packages import BOTH, EACH_WAY, GREENQ, RQ, WORKER, Package

pytestmark = pytest.mark.parametrize(('producer', 'consumer'), EACH_WAY, ids=['rq to greenq', 'greenq to rq'])


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    jobs.calls.clear()
    yield


def statuses(connection: redis.Redis, job_id: str) -> set[str]:
    """The status by either's reading: one value."""
    return {package.fetch(connection, job_id).get_status().value for package in BOTH}


def test_a_job_and_its_result(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.add, 1, b=2, meta={'a': [1]}, description='adds')
    consumer.run(connection)
    assert jobs.calls == [('add', 1, 2)]
    assert job.return_value(refresh=True) == 3 and statuses(connection, job.id) == {'finished'}
    for package in BOTH:
        found = package.fetch(connection, job.id)
        assert (found.func_name, found.args, found.kwargs) == ('tests.interop.jobs.add', (1,), {'b': 2})
        assert (found.meta, found.description, found.worker_name) == ({'a': [1]}, 'adds', WORKER)
        (result,) = found.results()
        assert result.return_value == 3 and result.type.name == 'SUCCESSFUL' and result.worker_name == WORKER
        assert found.ended_at >= found.started_at and found.get_executions() == []
        assert package.queue(connection).finished_job_registry.get_job_ids() == [job.id]


def test_a_forking_worker(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.add, 1, b=2)
    consumer.Worker(['default'], name=WORKER, connection=connection).work(burst=True)
    assert jobs.calls == [], 'it ran in a child'
    assert job.return_value(refresh=True) == 3


def test_a_failure(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.divide, on_failure=producer.top.Callback(jobs.note_failure))
    consumer.run(connection)
    assert jobs.calls == ['divide', ('failure', job.id, 'ZeroDivisionError')]
    assert statuses(connection, job.id) == {'failed'}
    for package in BOTH:
        result = package.fetch(connection, job.id).latest_result()
        assert result.type.name == 'FAILED'
        assert result.exc_string.strip().endswith('ZeroDivisionError: division by zero')
        assert 'jobs.py' in result.exc_string
        assert package.queue(connection).failed_job_registry.get_job_ids() == [job.id]


def test_a_failure_requeued_by_the_other(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.divide)
    producer.run(connection)
    consumer.queue(connection).failed_job_registry.requeue(job.id)
    consumer.run(connection)
    assert jobs.calls == ['divide', 'divide'] and len(job.results()) == 2
    assert producer.queue(connection).failed_job_registry.get_job_ids() == [job.id]


def test_callbacks_and_metadata(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(
        jobs.note_meta, meta={'old': 1}, on_success=producer.top.Callback(jobs.note_success)
    )
    consumer.run(connection)
    assert jobs.calls == [('success', job.id, {'old': 1, 'seen': True})]
    assert [package.fetch(connection, job.id).meta for package in BOTH] == [{'old': 1, 'seen': True}] * 2


def test_retries(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.divide, retry=producer.top.Retry(max=2))
    consumer.run(connection, max_jobs=1)
    assert [package.fetch(connection, job.id).retries_left for package in BOTH] == [1, 1]
    producer.run(connection, max_jobs=1)
    consumer.run(connection)
    assert jobs.calls == ['divide'] * 3 and statuses(connection, job.id) == {'failed'}


def test_a_returned_retry(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    jobs.retry_class[:] = [consumer.top.Retry]
    job = producer.queue(connection).enqueue(jobs.ask_again)
    consumer.run(connection)
    assert jobs.calls == ['ask', 'ask'] and statuses(connection, job.id) == {'failed'}
    for package in BOTH:
        results = package.fetch(connection, job.id).results()
        assert [result.type.name for result in results] == ['MAX_RETRIES_EXCEEDED', 'RETRIED']
        returned = [result.return_value for result in results]
        assert [(type(retry), retry.max) for retry in returned] == [(package.top.Retry, 1)] * 2
    entries: Any = connection.xrange(keys.results(job.id))
    stored = base64.b64decode(entries[0][1][b'return_value'])
    assert b'greenq' not in stored and type(pickle.loads(stored)) is rq.Retry


def test_a_retry_as_an_argument(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.kind_of, producer.top.Retry(max=3))
    consumer.run(connection)
    assert job.return_value(refresh=True) == (f'{consumer.top.__name__}.{"job" if consumer is RQ else "retry"}', 3)


def test_repeats(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.add, 1, repeat=producer.top.Repeat(times=2))
    consumer.run(connection, max_jobs=1)
    assert [package.fetch(connection, job.id).repeats_left for package in BOTH] == [1, 1]
    consumer.run(connection)
    assert len(jobs.calls) == 3


def test_dependents(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    queue = producer.queue(connection)
    parents = [queue.enqueue(jobs.add, number) for number in range(2)]
    child = queue.enqueue(jobs.add, 10, depends_on=parents)
    strict = queue.enqueue(jobs.add, 20, depends_on=queue.enqueue(jobs.divide))
    assert statuses(connection, child.id) == {'deferred'}
    for package in BOTH:
        assert set(package.queue(connection).deferred_job_registry.get_job_ids()) == {child.id, strict.id}
        assert sorted(package.fetch(connection, child.id)._dependency_ids) == sorted(parent.id for parent in parents)
    consumer.run(connection, max_jobs=1)
    producer.run(connection, max_jobs=1)
    consumer.run(connection)
    assert [call for call in jobs.calls if call != 'divide'] == [('add', 0, 0), ('add', 1, 0), ('add', 10, 0)]
    assert statuses(connection, strict.id) == {'deferred'}


def test_scheduled_jobs(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    job = producer.queue(connection).enqueue_at(due, jobs.add, 1)
    for package in BOTH:
        registry = package.queue(connection).scheduled_job_registry
        assert registry.get_job_ids() == [job.id]
        assert abs(registry.get_scheduled_time(job.id) - due) <= timedelta(seconds=1)
    connection.zadd(keys.registry('scheduled', 'default'), {job.id: 1})
    if consumer is GREENQ:
        assert promote_scheduled(connection, 'default').job_ids == [job.id]
    else:
        scheduler = RQ.scheduler.RQScheduler(['default'], connection=connection)
        scheduler.acquire_locks()
        scheduler.enqueue_scheduled_jobs()
    consumer.run(connection)
    assert jobs.calls == [('add', 1, 0)]


def test_a_rate_limit_shared(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    for number, package in enumerate([producer, consumer, producer]):
        limit = package.top.RateLimit(key='narrow', concurrency=1)
        package.queue(connection).enqueue(jobs.add, number, job_id=f'job{number}', rate_limit=limit)
    found = [statuses(connection, f'job{number}') for number in range(3)]
    assert found == [{'queued'}, {'rate_limited'}, {'rate_limited'}]
    consumer.run(connection, max_jobs=1)
    producer.run(connection, max_jobs=1)
    consumer.run(connection)
    assert [call[1] for call in jobs.calls] == [0, 1, 2]


def test_canceling_and_deleting_the_others_jobs(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    queue = producer.queue(connection)
    canceled, deleted = queue.enqueue(jobs.add, 1), queue.enqueue(jobs.add, 2)
    consumer.fetch(connection, canceled.id).cancel()
    consumer.fetch(connection, deleted.id).delete()
    producer.run(connection)
    assert jobs.calls == [] and statuses(connection, canceled.id) == {'canceled'}
    assert queue.canceled_job_registry.get_job_ids() == [canceled.id]
    assert not producer.Job.exists(deleted.id, connection=connection)


def test_a_running_job_as_the_other_sees_it(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    job = producer.queue(connection).enqueue(jobs.look_around)
    seen: list[Any] = []

    def observe() -> None:
        (execution,) = producer.fetch(connection, job.id).get_executions()
        (worker,) = producer.Worker.all(connection=connection)
        registry = producer.queue(connection).started_job_registry
        seen.extend([execution.job_id, registry.get_job_ids(), worker.name, worker.get_state(), worker.queue_names()])
        seen.extend([worker.get_current_job_id(), registry.count, statuses(connection, job.id)])

    jobs.observers[:] = [observe]
    consumer.run(connection)
    assert seen == [job.id, [job.id], WORKER, 'busy', ['default'], job.id, 1, {'started'}]
    assert job.return_value(refresh=True) == 'seen'


def test_workers_see_each_other(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    mine = producer.SimpleWorker(['default', 'low'], name='mine', connection=connection)
    theirs = consumer.SimpleWorker(['default'], name='theirs', connection=connection)
    for worker in (mine, theirs):
        worker.register_birth()
    found = {worker.name: worker for worker in producer.Worker.all(connection=connection)}
    assert set(found) == {'mine', 'theirs'} and found['theirs'].pid == theirs.pid
    assert producer.Worker.count(queue=producer.queue(connection, 'low')) == 1
    assert {worker.name for worker in producer.Worker.all(queue=producer.queue(connection))} == {'mine', 'theirs'}
    with pytest.raises(ValueError):
        producer.SimpleWorker(['default'], name='theirs', connection=connection).register_birth()
    theirs.register_death()
    assert [worker.name for worker in producer.Worker.all(connection=connection)] == ['mine']
    mine.register_death()


def test_groups_and_queues(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    group = producer.group.Group.create(connection=connection)
    queue = producer.queue(connection)
    group.enqueue_many(queue, [queue.prepare_data(jobs.add, (number,)) for number in range(3)])
    found = consumer.group.Group.fetch(group.name, connection)
    assert {job.id for job in found.get_jobs()} == {job.id for job in group.get_jobs()} and len(found.get_jobs()) == 3
    assert [other.name for other in consumer.top.Queue.all(connection)] == ['default']
    assert consumer.queue(connection).job_ids == queue.job_ids
    assert consumer.queue(connection).empty() == 3 and queue.count == 0


def test_suspension(connection: redis.Redis, producer: Package, consumer: Package) -> None:
    assert producer.suspension.is_suspended(connection) == 0
    producer.suspension.suspend(connection)
    assert consumer.suspension.is_suspended(connection)
    consumer.suspension.resume(connection)
    assert not producer.suspension.is_suspended(connection)
