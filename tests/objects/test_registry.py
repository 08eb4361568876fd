"""Registries: what they list, what leaves them by itself, and what becomes of jobs that a dead worker had."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from greenq.callbacks import Callback
from greenq.defaults import DEFAULT_FAILURE_TTL
from greenq.exceptions import AbandonedJobError, InvalidJobOperation, NoSuchJobError
from greenq.executions import Execution
from greenq.job import Dependency, Job, JobStatus
from greenq.queue import Queue
from greenq.rate_limit import RateLimit, RateLimitRegistry
from greenq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ReadyJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
    clean_registries,
)
from greenq.retry import Retry
from greenq.serializers import JSONSerializer
from greenq.store import keys, membership, transitions

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    calls.clear()
    yield


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


@pytest.fixture
def registry(connection: redis.Redis) -> BaseRegistry:
    return BaseRegistry('work', connection)


@pytest.fixture
def started(queue: Queue) -> StartedJobRegistry:
    return queue.started_job_registry


def greet() -> str:
    return 'Hello'


def note_failure(job: Job, connection: redis.Redis, kind: type, error: Exception, traceback: Any) -> None:
    calls.append((job.id, kind, str(error), traceback))


def raise_again(*args: Any) -> None:
    raise LookupError('callback')


def abandon(queue: Queue, worker_name: str = 'rq-worker', **options: Any) -> tuple[Job, Execution]:
    """A job that an RQ worker started and left: its execution has expired."""
    job = queue.enqueue(greet, **options)
    queue.remove(job)
    with queue.connection.pipeline() as pipeline:
        execution = Execution.create(job, 90, pipeline, worker_name=worker_name)
        job.prepare_for_execution(worker_name, pipeline)
        pipeline.persist(job.key)
        pipeline.zadd(queue.started_job_registry.key, {execution.composite_key: 100})
        pipeline.execute()
    return job, execution


class TestBase:
    @pytest.mark.parametrize(
        ('kind', 'key'),
        [
            (BaseRegistry, 'rq:registry:work'),
            (StartedJobRegistry, 'rq:wip:work'),
            (FinishedJobRegistry, 'rq:finished:work'),
            (FailedJobRegistry, 'rq:failed:work'),
            (DeferredJobRegistry, 'rq:deferred:work'),
            (ReadyJobRegistry, 'rq:ready:work'),
            (ScheduledJobRegistry, 'rq:scheduled:work'),
            (CanceledJobRegistry, 'rq:canceled:work'),
        ],
    )
    def test_keys(self, kind: type[BaseRegistry], key: str, queue: Queue, connection: redis.Redis) -> None:
        assert kind('work', connection).key == key
        assert kind(queue=queue).key == key
        assert kind('work').key == key

    def test_of_a_queue_or_of_a_name(self, connection: redis.Redis) -> None:
        queue = Queue('work', connection=connection, serializer='json')
        by_queue, by_name = FailedJobRegistry(queue=queue), FailedJobRegistry('work', connection, serializer='json')
        assert by_queue == by_name
        assert by_queue.serializer is by_name.serializer is JSONSerializer
        assert by_queue != FailedJobRegistry('other', connection)
        assert by_queue != FinishedJobRegistry('work', connection)
        assert by_name.get_queue() == queue
        assert by_name.get_queue().serializer is JSONSerializer

    def test_add_and_remove(self, registry: BaseRegistry, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet)
        assert job not in registry
        registry.add(job, 1000)
        assert job in registry
        assert job.id in registry
        left = registry.get_expiration_time(job) - datetime.now(UTC)
        assert timedelta(seconds=990) < left <= timedelta(seconds=1000)
        registry.add(job, -1)
        assert connection.zscore(registry.key, job.id) == float('inf')
        assert registry.remove(job) == 1
        assert registry.remove(job.id) == 0
        assert Job.exists(job.id, connection)
        with pytest.raises(NoSuchJobError, match=f'{job.id} is not in rq:registry:work'):
            registry.get_expiration_time(job)

    @pytest.mark.parametrize('by_id', [True, False])
    def test_remove_and_delete(
        self, by_id: bool, registry: BaseRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        job = queue.enqueue(greet)
        registry.add(job, -1)
        assert registry.remove(job.id if by_id else job, delete_job=True) == 1
        assert job not in registry
        assert not Job.exists(job.id, connection)
        assert queue.count == 0

    def test_remove_and_delete_in_a_pipeline(
        self, registry: BaseRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        job = queue.enqueue(greet)
        registry.add(job, -1)
        with connection.pipeline() as pipeline:
            registry.remove(job.id, pipeline=pipeline, delete_job=True)
            assert job in registry
            pipeline.execute()
        assert job not in registry
        assert not Job.exists(job.id, connection)

    def test_deleting_a_job_that_is_gone_is_no_error(self, queue: Queue, connection: redis.Redis) -> None:
        connection.zadd(queue.failed_job_registry.key, {'gone': time.time() + 100})
        queue.failed_job_registry.remove('gone', delete_job=True)
        assert queue.failed_job_registry.count == 0

    def test_ids_by_score(self, registry: BaseRegistry, connection: redis.Redis) -> None:
        now = time.time()
        connection.zadd(registry.key, {'old': 1, 'b': now + 20, 'c': now + 30})
        assert registry.get_job_ids() == ['old', 'b', 'c']
        assert registry.get_job_ids(desc=True) == ['c', 'b', 'old']
        assert registry.get_job_ids(1, 1) == ['b']
        assert registry.get_expired_job_ids() == ['old']
        assert registry.get_expired_job_ids(now + 25) == ['old', 'b']
        assert (registry.count, len(registry), registry.get_job_count(cleanup=False)) == (3, 3, 3)


class TestExpiry:
    @pytest.mark.parametrize('kind', [FinishedJobRegistry, FailedJobRegistry])
    def test_what_has_expired_leaves_and_what_is_permanent_stays(
        self, kind: type[BaseRegistry], connection: redis.Redis
    ) -> None:
        registry = kind('work', connection)
        now = time.time()
        connection.zadd(registry.key, {'old': 1, 'soon': now + 10, 'late': now + 30, 'never': -1, 'ever': '+inf'})
        assert registry.get_job_ids(cleanup=False)[1] == 'old'
        assert registry.get_job_ids() == ['never', 'soon', 'late', 'ever']
        registry.cleanup(now + 20)
        assert registry.get_job_ids() == ['never', 'late', 'ever']

    def test_more_than_one_chunk(self, connection: redis.Redis) -> None:
        registry = FinishedJobRegistry('work', connection)
        connection.zadd(registry.key, {f'old-{number}': number + 1 for number in range(2500)})
        connection.zadd(registry.key, {'new': time.time() + 10})
        assert registry.get_job_ids() == ['new']

    def test_waiting_jobs_do_not_expire(self, queue: Queue, connection: redis.Redis) -> None:
        deferred = queue.deferred_job_registry
        connection.zadd(deferred.key, {'old': 1})
        assert deferred.count == 1
        job = queue.enqueue(greet)
        deferred.add(job, ttl=5)
        score = connection.zscore(deferred.key, job.id)
        assert score is not None
        assert abs(score - time.time()) < 3
        with pytest.raises(NotImplementedError):
            queue.canceled_job_registry.get_expired_job_ids()

    def test_clean_registries_cleans_them_all(self, queue: Queue, connection: redis.Redis) -> None:
        for kind in ('finished', 'failed'):
            connection.zadd(keys.registry(kind, 'work'), {'old': 1})
        connection.zadd(keys.registry('started', 'work'), {'old:execution': 1})
        ready = queue.enqueue(greet)
        queue.remove(ready)
        ready.set_status(JobStatus.READY_TO_ENQUEUE)
        queue.ready_job_registry.add(ready)
        limited = queue.enqueue(greet, rate_limit=RateLimit('k', 1))
        connection.delete(limited.key)
        clean_registries(queue)
        assert {connection.zcard(keys.registry(kind, 'work')) for kind in ('finished', 'failed', 'started')} == {0}
        assert ready.id in queue.job_ids
        assert RateLimitRegistry.all(connection) == []


class TestFailed:
    def test_add_saves_the_job_and_has_it_expire(self, queue: Queue, connection: redis.Redis) -> None:
        job, failed = queue.enqueue(greet), queue.failed_job_registry
        failed.add(job)
        assert DEFAULT_FAILURE_TTL - 5 < connection.ttl(job.key) <= DEFAULT_FAILURE_TTL
        failed.add(job, ttl=5)
        assert 0 < connection.ttl(job.key) <= 5
        score = connection.zscore(failed.key, job.id)
        assert score is not None
        assert abs(score - time.time() - 5) < 3

    def test_requeue_by_job_or_id(self, queue: Queue, connection: redis.Redis) -> None:
        waiting = queue.enqueue(greet)
        in_place = Queue('work', connection=connection, is_async=False)
        for at_front in (False, True):
            job = in_place.enqueue(raise_again)
            assert job in queue.failed_job_registry
            requeued = queue.failed_job_registry.requeue(job.id if at_front else job, at_front=at_front)
            assert requeued == job
            assert (requeued.get_status(refresh=False), requeued.get_status()) == (JobStatus.QUEUED, JobStatus.QUEUED)
            assert (requeued.started_at, requeued.ended_at) == (None, None)
            stored = Job.fetch(job.id, connection=connection)
            assert (stored.started_at, stored.ended_at) == (None, None)
            assert stored.enqueued_at is not None
            assert queue.job_ids == ([job.id, waiting.id] if at_front else [waiting.id, job.id])
            queue.remove(job)
        assert queue.failed_job_registry.count == 0

    def test_a_job_that_did_not_fail_stays_where_it_is(self, queue: Queue) -> None:
        job = queue.enqueue(greet)
        with pytest.raises(InvalidJobOperation, match=f'Job {job.id} is not in rq:failed:work'):
            queue.failed_job_registry.requeue(job)
        assert queue.job_ids == [job.id]
        with pytest.raises(NoSuchJobError):
            queue.failed_job_registry.requeue('nobody')

    def test_a_job_whose_hash_expired_meanwhile(self, queue: Queue, connection: redis.Redis) -> None:
        job = Queue('work', connection=connection, is_async=False).enqueue(raise_again)
        connection.delete(job.key)
        with pytest.raises(NoSuchJobError):
            queue.failed_job_registry.requeue(job)
        assert queue.failed_job_registry.count == 0

    def test_only_one_of_many_requeues_wins(self, queue: Queue, connection: redis.Redis) -> None:
        job = Queue('work', connection=connection, is_async=False).enqueue(raise_again)
        refused: list[Exception] = []

        def requeue() -> None:
            try:
                queue.failed_job_registry.requeue(job.id)
            except InvalidJobOperation as error:
                refused.append(error)

        threads = [threading.Thread(target=requeue) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 7
        assert queue.job_ids == [job.id]


class TestReady:
    def test_ready_jobs_go_to_their_end_of_the_queue_and_stale_ones_go(
        self, queue: Queue, connection: redis.Redis
    ) -> None:
        first = queue.enqueue(greet)
        back, front, stale = (queue.enqueue(greet) for _ in range(3))
        front.enqueue_at_front = True
        front.save()
        ready = queue.ready_job_registry
        for job in (back, front, stale):
            queue.remove(job)
            ready.add(job)
        back.set_status(JobStatus.READY_TO_ENQUEUE)
        front.set_status(JobStatus.READY_TO_ENQUEUE)
        connection.zadd(ready.key, {'gone': 1})
        assert ready.enqueue_jobs([back.id, front.id, stale.id, 'gone']) == [back, front]
        assert queue.job_ids == [front.id, first.id, back.id]
        assert connection.zcard(ready.key) == 0
        assert back.get_status() == JobStatus.QUEUED

    def test_register_jobs(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet, depends_on=queue.enqueue(greet))
        with connection.pipeline() as pipeline:
            queue.ready_job_registry.register_jobs([job], pipeline)
            pipeline.execute()
        assert job not in queue.deferred_job_registry
        assert job in queue.ready_job_registry
        assert job.is_ready_to_enqueue


class TestScheduled:
    def test_jobs_by_their_time(self, queue: Queue, connection: redis.Redis) -> None:
        scheduled = queue.scheduled_job_registry
        job = queue.enqueue(greet)
        scheduled.schedule(job, datetime(2020, 1, 1, tzinfo=UTC))
        connection.zadd(scheduled.key, {'later': time.time() + 100})
        assert scheduled.get_scheduled_time(job) == datetime(2020, 1, 1, tzinfo=UTC)
        assert scheduled.get_jobs_to_schedule() == scheduled.get_jobs_to_enqueue() == [job.id]
        assert scheduled.get_jobs_to_schedule(time.time() + 200, chunk_size=1) == [job.id]
        assert scheduled.get_jobs_to_schedule(time.time() + 200) == [job.id, 'later']
        assert scheduled.count == 2
        with pytest.raises(NoSuchJobError):
            scheduled.get_scheduled_time('nobody')
        with pytest.warns(DeprecationWarning, match='remove_jobs'):
            scheduled.remove_jobs()
        assert scheduled.get_job_ids() == ['later']

    def test_a_naive_time_is_local(self, queue: Queue) -> None:
        at = datetime(2030, 7, 1, 12)
        job = queue.enqueue(greet)
        queue.scheduled_job_registry.schedule(job, at)
        assert queue.scheduled_job_registry.get_scheduled_time(job) == at.astimezone(UTC)


class TestStarted:
    def test_executions_come_and_go(self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis) -> None:
        job, other = queue.enqueue(greet), queue.enqueue(greet)
        with connection.pipeline() as pipeline:
            one, two = (Execution.create(job, 90, pipeline, worker_name='w') for _ in range(2))
            pipeline.execute()
        assert job in started
        assert job.id in started
        assert other not in started
        assert started.get_job_ids() == [job.id, job.id]
        assert set(started.get_job_and_execution_ids()) == {(job.id, one.id), (job.id, two.id)}
        started.remove_execution(one)
        assert started.count == 1
        started.remove_executions(job)
        assert job not in started
        with connection.pipeline() as pipeline:
            started.add_execution(one, pipeline, ttl=-1)
            pipeline.execute()
        assert connection.zscore(started.key, one.composite_key) == float('inf')

    def test_an_execution_is_known_when_its_jobs_list_of_executions_is_gone(
        self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        job, _ = abandon(queue)
        connection.delete(keys.executions(job.id))
        assert job in started

    def test_jobs_cannot_be_added_or_removed(self, started: StartedJobRegistry) -> None:
        with pytest.raises(NotImplementedError, match='add_execution'):
            started.add('a')
        with pytest.raises(NotImplementedError, match='remove_execution'):
            started.remove('a')

    def test_entries_of_very_old_workers(self, started: StartedJobRegistry, connection: redis.Redis) -> None:
        connection.zadd(started.key, {'old': 1, 'new': time.time() + 10})
        assert started.count == 1
        assert started.get_job_ids() == ['new']


class TestAbandoned:
    def test_a_job_without_retries_fails(self, started: StartedJobRegistry, queue: Queue) -> None:
        job, execution = abandon(queue, on_failure=Callback(note_failure))
        handled: list[Any] = []
        started.cleanup(50)
        assert job in started
        started.cleanup(exception_handlers=[lambda *args: handled.append(args)])
        assert job not in started
        assert job.is_failed
        assert job in queue.failed_job_registry
        assert job.get_executions() == []
        assert calls == [(job.id, AbandonedJobError, f'The worker that ran job {job.id} is gone', None)]
        assert [(args[0], args[1], args[3]) for args in handled] == [(job, AbandonedJobError, None)]
        result = job.latest_result()
        assert result is not None
        assert 'due to AbandonedJobError' in (result.exc_string or '')
        assert (result.worker_name, result.execution_id) == ('rq-worker', execution.id)

    def test_reading_the_registry_cleans_it_as_in_rq(self, started: StartedJobRegistry, queue: Queue) -> None:
        job, _ = abandon(queue)
        assert started.get_job_ids(cleanup=False) == [job.id]
        assert started.count == 0
        assert job.is_failed

    def test_a_job_with_retries_runs_again(self, started: StartedJobRegistry, queue: Queue) -> None:
        job, _ = abandon(queue, retry=Retry(2), on_failure=Callback(note_failure))
        started.cleanup()
        job.refresh()
        assert (job.get_status(), job.retries_left) == (JobStatus.QUEUED, 1)
        assert queue.job_ids == [job.id]
        assert len(calls) == 1

    def test_or_later(self, started: StartedJobRegistry, queue: Queue) -> None:
        job, _ = abandon(queue, retry=Retry(1, interval=60))
        started.cleanup()
        assert job.is_scheduled
        left = queue.scheduled_job_registry.get_scheduled_time(job) - datetime.now(UTC)
        assert timedelta(seconds=50) < left <= timedelta(seconds=60)

    def test_dependents_and_rate_limits_are_seen_to(self, started: StartedJobRegistry, queue: Queue) -> None:
        limit = RateLimit('k', 1)
        job, _ = abandon(queue, rate_limit=limit)
        next_one = queue.enqueue(greet, rate_limit=limit)
        lenient = queue.enqueue(greet, depends_on=Dependency(job, allow_failure=True))
        strict = queue.enqueue(greet, depends_on=job)
        assert next_one.get_status() == JobStatus.RATE_LIMITED
        started.cleanup()
        assert lenient.is_queued
        assert strict.is_deferred
        assert next_one.is_queued

    def test_what_callbacks_and_handlers_raise_stops_nobody(self, started: StartedJobRegistry, queue: Queue) -> None:
        jobs = [abandon(queue, on_failure=Callback(raise_again))[0] for _ in range(3)]
        started.cleanup(exception_handlers=[raise_again])
        assert all(job.is_failed for job in jobs)

    def test_failure_ttl_holds(self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis) -> None:
        short, gone = abandon(queue, failure_ttl=50)[0], abandon(queue, failure_ttl=0)[0]
        started.cleanup()
        assert 0 < connection.ttl(short.key) <= 50
        assert not Job.exists(gone.id, connection)

    def test_leftovers_of_jobs_that_ended_are_dropped(
        self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        finished, gone, damaged = (abandon(queue)[0] for _ in range(3))
        finished.set_status(JobStatus.FINISHED)
        connection.delete(gone.key)
        connection.hset(damaged.key, 'status', 'nonsense')
        started.cleanup()
        assert connection.zcard(started.key) == 0
        assert finished.is_finished
        assert queue.failed_job_registry.count == 0
        assert calls == []

    def test_a_job_that_was_taken_and_never_started_goes_back_to_the_front(
        self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        lost, waiting = abandon(queue)[0], queue.enqueue(greet)
        lost.set_status(JobStatus.QUEUED)
        started.cleanup()
        assert queue.job_ids == [lost.id, waiting.id]
        assert lost.is_queued
        assert connection.zcard(started.key) == 0

    def test_unless_it_is_safe_elsewhere(
        self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        in_queue, in_intermediate = abandon(queue)[0], abandon(queue)[0]
        taken_again, _ = abandon(queue)
        with connection.pipeline() as pipeline:
            other = Execution.create(taken_again, 90, pipeline, worker_name='another')
            pipeline.execute()
        for job in (in_queue, in_intermediate, taken_again):
            job.set_status(JobStatus.QUEUED)
        queue.push_job_id(in_queue.id)
        connection.rpush(queue.intermediate_queue_key, in_intermediate.id)
        started.cleanup()
        assert queue.job_ids == [in_queue.id]
        assert started.get_job_and_execution_ids() == [(taken_again.id, other.id)]

    def test_ten_cleaners_end_each_execution_once(self, queue: Queue, server_url: str) -> None:
        jobs = [abandon(queue, on_failure=Callback(note_failure))[0] for _ in range(60)]
        jobs += [abandon(queue, on_failure=Callback(note_failure), retry=Retry(1))[0] for _ in range(60)]

        def clean() -> None:
            with redis.Redis.from_url(server_url) as client:
                StartedJobRegistry('work', client).cleanup()

        threads = [threading.Thread(target=clean) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(call[0] for call in calls) == sorted(job.id for job in jobs)
        assert sorted(queue.job_ids) == sorted(job.id for job in jobs[60:])
        assert {len(job.results()) for job in jobs[:60]} == {1}

    def test_greenqs_workers_are_left_to_their_leases(
        self, started: StartedJobRegistry, queue: Queue, connection: redis.Redis
    ) -> None:
        job = queue.enqueue(greet)
        membership.join(connection, 'green', 'token', ['work'], {'birth': 'now'}, lease_ms=15000, worker_ttl=480)
        claimed = transitions.claim(connection, 'green', ['work'], ['e1'], lifetime=90)
        assert claimed is not None
        assert [item.job_id for item in claimed] == [job.id]
        connection.zadd(started.key, {f'{job.id}:e1': 100})
        abandoned, _ = abandon(queue)
        started.cleanup()
        assert job in started
        assert job.is_started
        assert abandoned.is_failed
