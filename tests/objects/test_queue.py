"""Queues as producers see them: what is stored, in which order, at which price, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis

from greenq.callbacks import Callback
from greenq.exceptions import DequeueTimeout, DuplicateJobError, UnserializableError
from greenq.job import Dependency, Job, JobStatus, get_current_job
from greenq.queue import Queue
from greenq.rate_limit import RateLimit
from greenq.registry import FailedJobRegistry
from greenq.repeat import Repeat
from greenq.retry import Retry
from greenq.serializers import JSONSerializer
from greenq.store import keys
from greenq.timeouts import TimerDeathPenalty
from greenq.webhook import Webhook

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    calls.clear()
    yield


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


def greet(name: str = 'you', **kwargs: Any) -> str:
    return f'Hello, {name}'


def divide_by_zero() -> float:
    return 1 / 0


def where_am_i() -> tuple[str | None, str, str | None]:
    job = get_current_job()
    assert job is not None
    stored = Job.fetch(job.id, connection=job.connection)
    return job.worker_name, stored.get_status(), stored.worker_name


def note_success(job: Job, connection: redis.Redis, result: Any) -> None:
    calls.append(('success', job.get_status(refresh=False), result))


def note_failure(job: Job, connection: redis.Redis, kind: type, error: Exception, traceback: Any) -> None:
    calls.append(('failure', job.get_status(refresh=False), kind))


def raise_again(*args: Any) -> None:
    raise LookupError('callback')


def return_lock() -> object:
    return Queue


def interrupt() -> None:
    raise KeyboardInterrupt


def leave() -> None:
    raise SystemExit(3)


class Counter:
    """Counts what a client sends; each time is a round trip."""

    def __init__(self, url: str) -> None:
        self.trips = 0
        counter = self

        class Connection(redis.UnixDomainSocketConnection):
            def send_packed_command(self, command: Any, check_health: bool = True) -> None:
                counter.trips += 1
                super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

        path = url.removeprefix('unix://').partition('?')[0]
        self.client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Connection, path=path))

    def of(self, action: Any) -> int:
        action()
        before = self.trips
        action()
        return self.trips - before


class TestWhatAQueueIs:
    def test_names_and_defaults(self, connection: redis.Redis) -> None:
        queue = Queue(connection=connection)
        assert (queue.name, str(queue), repr(queue)) == ('default', '<Queue default>', "Queue('default')")
        assert (queue.key, queue.is_async, queue._default_timeout) == ('rq:queue:default', True, 180)
        assert Queue('x', connection=connection, default_timeout='10m')._default_timeout == 600

    def test_without_a_connection_it_uses_the_configured_one(self, connection: redis.Redis) -> None:
        Queue().enqueue(greet)
        assert [queue.name for queue in Queue.all()] == ['default']
        assert Queue('default', connection=connection).count == 1

    def test_queues_are_equal_and_ordered_by_name(self, connection: redis.Redis) -> None:
        a, b = Queue('a', connection=connection), Queue('b', connection=connection)
        assert a == Queue('a', connection=connection)
        assert a < b
        assert b >= a
        assert len({a, Queue('a', connection=connection), b}) == 2
        with pytest.raises(TypeError, match='Cannot compare queues'):
            assert a == 'a'

    def test_an_empty_queue_is_true_and_iterates_over_itself(self, queue: Queue) -> None:
        assert queue
        assert len(queue) == 0
        assert list(queue) == [queue]

    def test_serializers_and_classes_by_object_or_path(self, connection: redis.Redis) -> None:
        module: Any = json
        assert Queue(connection=connection, serializer=module).serializer is module
        assert Queue(connection=connection, serializer='json').serializer is JSONSerializer
        assert Queue(connection=connection, job_class='greenq.job.Job').job_class is Job
        timer = Queue(connection=connection, death_penalty_class=TimerDeathPenalty)
        assert timer.death_penalty_class is TimerDeathPenalty
        assert timer.failed_job_registry.death_penalty_class is TimerDeathPenalty

    def test_the_old_async_keyword_warns(self, connection: redis.Redis) -> None:
        with pytest.warns(DeprecationWarning, match='`async` keyword is deprecated'):
            queue = Queue('low', connection=connection, **{'async': False})  # type: ignore[arg-type]
        assert not queue.is_async

    def test_an_unknown_argument_is_ignored_aloud(self, connection: redis.Redis) -> None:
        with pytest.warns(UserWarning, match='ignores result_ttl: it has no such argument'):
            Queue('work', connection=connection, result_ttl=5)

    def test_from_its_key(self, connection: redis.Redis) -> None:
        assert Queue.from_queue_key('rq:queue:a:b', connection).name == 'a:b'
        with pytest.raises(ValueError, match='Not a valid RQ queue key: other:a'):
            Queue.from_queue_key('other:a', connection)

    def test_registries_share_its_job_class_and_serializer(self, connection: redis.Redis) -> None:
        class OtherJob(Job):
            pass

        queue = Queue('work', connection=connection, serializer='json', job_class=OtherJob)
        for kind in ['started', 'finished', 'failed', 'deferred', 'ready', 'scheduled', 'canceled']:
            registry = getattr(queue, f'{kind}_job_registry')
            assert registry.name == 'work'
            assert registry.serializer is JSONSerializer
            assert registry.job_class is OtherJob
        assert queue.failed_job_registry == FailedJobRegistry(queue=queue)

    def test_one_maintainer_at_a_time(self, queue: Queue, connection: redis.Redis) -> None:
        assert queue.acquire_maintenance_lock()
        assert not queue.acquire_maintenance_lock()
        assert 0 < connection.ttl(queue.registry_cleaning_key) <= 899
        queue.release_maintenance_lock()
        assert queue.acquire_maintenance_lock()

    def test_scheduler_pid(self, queue: Queue, connection: redis.Redis) -> None:
        assert queue.scheduler_pid is None
        connection.set('rq:scheduler-lock:work', 'some-name')
        assert queue.scheduler_pid is None
        connection.hset('rq:scheduler:some-name', 'pid', 42)
        assert queue.scheduler_pid == 42


class TestEnqueue:
    def test_a_job_is_stored_queued_and_found(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet, 'Ann', polite=True)
        assert connection.lrange('rq:queue:work', 0, -1) == [job.id.encode()]
        assert connection.smembers('rq:queues') == {b'rq:queue:work'}
        stored = Job.fetch(job.id, connection=connection)
        assert stored.get_status() == JobStatus.QUEUED
        assert (stored.func, stored.args, stored.kwargs) == (greet, ('Ann',), {'polite': True})
        assert (stored.origin, stored.timeout, stored.enqueued_at) == ('work', 180, job.enqueued_at)
        assert connection.ttl(job.key) == -1

    def test_it_takes_one_round_trip(self, server_url: str, connection: redis.Redis) -> None:
        counter = Counter(server_url)
        queue = Queue('work', connection=counter.client)
        assert counter.of(lambda: queue.enqueue(greet, 'Ann', result_ttl=5)) == 1
        assert counter.of(lambda: queue.enqueue(greet, depends_on='nobody')) == 1
        assert counter.of(lambda: queue.enqueue_in(timedelta(minutes=1), greet)) == 1
        assert counter.of(lambda: queue.enqueue_many([Queue.prepare_data(greet)] * 100)) == 1
        assert counter.of(lambda: queue.jobs) == 2
        counter.client.close()

    def test_options_reach_the_stored_job(self, queue: Queue, connection: redis.Redis) -> None:
        webhook = Webhook('http://example.com/', 'finished')
        job = queue.enqueue(
            greet,
            job_timeout='1m',
            result_ttl=10,
            ttl=20,
            failure_ttl=30,
            description='says hello',
            job_id='hello',
            meta={'a': 1},
            retry=Retry(3, [1, 2], enqueue_at_front=True),
            repeat=Repeat(2, 5),
            on_success=Callback(note_success, timeout=7),
            on_failure=Callback('some.where'),
            webhooks=[webhook],
        )
        assert job.id == 'hello'
        stored = Job.fetch('hello', connection=connection)
        assert (stored.timeout, stored.result_ttl, stored.ttl, stored.failure_ttl) == (60, 10, 20, 30)
        assert (stored.description, stored.meta, stored.webhooks) == ('says hello', {'a': 1}, [webhook])
        assert (stored.retries_left, stored.retry_intervals, stored.enqueue_at_front_on_retry) == (3, [1, 2], True)
        assert (stored.repeats_left, stored.repeat_intervals) == (2, [5])
        assert (stored.success_callback, stored.success_callback_timeout) == (note_success, 7)
        assert stored._failure_callback_name == 'some.where'
        assert 0 < connection.ttl(job.key) <= 20

    def test_methods_builtins_and_paths(self, queue: Queue) -> None:
        assert queue.enqueue('a-b'.upper).perform() == 'A-B'
        assert queue.enqueue(len, [1, 2]).perform() == 2
        assert queue.enqueue('tests.objects.test_queue.greet', 'Ann').perform() == 'Hello, Ann'

    def test_at_front(self, queue: Queue) -> None:
        first, second = queue.enqueue(greet), queue.enqueue(greet)
        urgent = queue.enqueue(greet, at_front=True)
        assert queue.job_ids == [urgent.id, first.id, second.id]

    def test_enqueue_call_takes_its_timeout_by_rqs_name(self, queue: Queue) -> None:
        job = queue.enqueue_call(greet, ('Ann',), {'x': 1}, 30)
        assert (job.timeout, job.args, job.kwargs) == (30, ('Ann',), {'x': 1})

    def test_a_job_made_by_hand_gets_the_queues_defaults(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue_job(Job.create(greet, connection=connection))
        assert (job.origin, job.timeout) == ('work', 180)
        assert job.enqueued_at is not None
        assert queue.job_ids == [job.id]

    def test_enqueueing_again_under_the_same_id_replaces_the_job(self, queue: Queue, connection: redis.Redis) -> None:
        queue.enqueue(greet, 'Ann', job_id='a')
        queue.enqueue(greet, 'Bob', job_id='a')
        assert Job.fetch('a', connection=connection).args == ('Bob',)

    def test_bad_options_leave_nothing_behind(self, queue: Queue, connection: redis.Redis) -> None:
        with pytest.raises(ValueError, match='0 timeout is not allowed'):
            queue.enqueue(greet, job_timeout=0)
        with pytest.raises(ValueError, match='ttl must be greater than 0'):
            queue.enqueue(greet, ttl=0)
        with pytest.raises(ValueError, match='must only contain letters'):
            queue.enqueue(greet, job_id='a b')
        with pytest.raises(TypeError, match='Expected a callable or a string'):
            queue.enqueue(42)  # type: ignore[arg-type]
        assert connection.keys() == []

    def test_an_argument_that_cannot_be_serialized_is_named(self, queue: Queue, connection: redis.Redis) -> None:
        with pytest.raises(UnserializableError, match=r"greet: argument 'name' \(function\) cannot be serialized"):
            queue.enqueue(greet, name=lambda: 0)
        assert connection.keys() == []

    def test_own_key_prefixes_are_refused(self, connection: redis.Redis) -> None:
        class OtherQueue(Queue):
            redis_queue_namespace_prefix = 'other:queue:'

        class OtherJob(Job):
            redis_job_namespace_prefix = 'other:job:'

        for queue in (OtherQueue(connection=connection), Queue(connection=connection, job_class=OtherJob)):
            with pytest.raises(ValueError, match='set RQ_KEY_PREFIX instead'):
                queue.enqueue(greet)
        assert connection.keys() == []

    def test_subclasses_see_each_job_as_in_rq(self, connection: redis.Redis) -> None:
        class Traced(Queue):
            def enqueue_job(self, job: Job, *args: Any, **kwargs: Any) -> Job:
                job.meta['traced'] = True
                return super().enqueue_job(job, *args, **kwargs)

            def enqueue_call(self, *args: Any, **kwargs: Any) -> Job:
                calls.append(kwargs)
                return super().enqueue_call(*args, **kwargs)

        job = Traced(connection=connection).enqueue(greet, job_id='a')
        assert Job.fetch(job.id, connection=connection).meta == {'traced': True}
        assert calls == [{'job_id': 'a'}]

    @pytest.mark.parametrize('name', ['enqueue_call', 'create_job', 'enqueue_job'])
    @pytest.mark.parametrize('place', ['class', 'queue', 'subclass'])
    def test_a_step_that_somebody_replaced_is_taken(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch, name: str, place: str
    ) -> None:
        own = getattr(Queue, name)
        seen: list[dict[str, Any]] = []

        def traced(self: Queue, *args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return own(self, *args, **kwargs)

        if place == 'class':
            monkeypatch.setattr(Queue, name, traced)
        elif place == 'queue':
            monkeypatch.setattr(queue, name, partial(traced, queue))
        else:
            queue = type('Traced', (Queue,), {name: traced})(queue.name, connection=queue.connection)
        assert queue.enqueue(greet, 'Ann', result_ttl=7).result_ttl == 7
        assert queue.enqueue_call(greet, ('Ann',)).args == ('Ann',)
        assert len(seen) == 2
        if name == 'create_job':
            assert seen[0] == {'result_ttl': 7}
            queue.enqueue_many([Queue.prepare_data(greet, ('Bob',), result_ttl=8)])
            assert seen[2:] == [{'result_ttl': 8}]


class TestUnique:
    def test_a_taken_id_is_refused_until_the_job_is_gone(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet, 'Ann', job_id='a', unique=True)
        with pytest.raises(DuplicateJobError, match="Job with ID 'a' already exists"):
            queue.enqueue(greet, 'Bob', job_id='a', unique=True)
        assert queue.job_ids == ['a']
        assert Job.fetch('a', connection=connection).args == ('Ann',)
        job.delete()
        queue.enqueue(greet, 'Bob', job_id='a', unique=True)

    def test_scheduled_jobs_too(self, queue: Queue) -> None:
        queue.enqueue_in(timedelta(hours=1), greet, job_id='a', unique=True)
        with pytest.raises(DuplicateJobError):
            queue.enqueue_at(datetime.now(UTC), greet, job_id='a', unique=True)
        with pytest.raises(DuplicateJobError):
            queue.enqueue(greet, job_id='a', unique=True)

    def test_a_pipeline_does_not_hide_that_the_id_is_taken(self, queue: Queue, connection: redis.Redis) -> None:
        queue.enqueue(greet, job_id='a')
        with connection.pipeline() as pipeline, pytest.raises(DuplicateJobError):
            queue.enqueue(greet, job_id='a', unique=True, pipeline=pipeline)

    def test_what_it_cannot_be_combined_with(self, queue: Queue) -> None:
        with pytest.raises(ValueError, match='explicit job_id'):
            queue.enqueue(greet, unique=True)
        with pytest.raises(ValueError, match='explicit job_id'):
            queue.enqueue_in(timedelta(1), greet, unique=True)
        with pytest.raises(ValueError, match='not supported with job dependencies'):
            queue.enqueue(greet, job_id='a', depends_on='b', unique=True)
        with pytest.raises(ValueError, match='rate-limited jobs'):
            queue.enqueue(greet, job_id='a', rate_limit=RateLimit('k', 1), unique=True)


class TestDependencies:
    def test_a_job_waits_for_another(self, queue: Queue) -> None:
        parent = queue.enqueue(greet)
        child = queue.enqueue(greet, depends_on=parent)
        assert child.get_status(refresh=False) == child.get_status() == JobStatus.DEFERRED
        assert child.enqueued_at is None
        assert queue.job_ids == [parent.id]
        assert child in queue.deferred_job_registry

    def test_finished_and_missing_parents_hold_nobody_up(self, queue: Queue) -> None:
        parent = queue.enqueue(greet)
        parent.set_status(JobStatus.FINISHED)
        child = queue.enqueue(greet, depends_on=[parent, 'nobody'])
        assert child.get_status() == JobStatus.QUEUED

    def test_failed_parents_do_unless_allowed(self, queue: Queue) -> None:
        parent = queue.enqueue(divide_by_zero)
        parent.set_status(JobStatus.FAILED)
        assert queue.enqueue(greet, depends_on=parent).get_status() == JobStatus.DEFERRED
        lenient = Dependency(parent, allow_failure=True)
        assert queue.enqueue(greet, depends_on=lenient).get_status() == JobStatus.QUEUED

    def test_enqueue_dependents_in_all_their_queues(self, queue: Queue, connection: redis.Redis) -> None:
        other = Queue('other', connection=connection)
        parent = queue.enqueue(greet)
        here, there = queue.enqueue(greet, depends_on=parent), other.enqueue(greet, depends_on=parent)
        assert queue.enqueue_dependents(parent) == {}
        parent.set_status(JobStatus.FINISHED)
        assert queue.enqueue_dependents(parent) == {'work': [here.id], 'other': [there.id]}
        assert other.job_ids == [there.id]
        assert queue.deferred_job_registry.count == other.deferred_job_registry.count == 0
        assert not connection.exists(parent.dependents_key)

    def test_a_status_in_hand_may_stand_for_the_stored_one(self, queue: Queue) -> None:
        parent = queue.enqueue(greet)
        child = queue.enqueue(greet, depends_on=parent)
        parent._status = JobStatus.FINISHED
        assert queue.enqueue_dependents(parent, refresh_job_status=False) == {'work': [child.id]}

    def test_a_parent_can_be_left_out_of_account(self, queue: Queue) -> None:
        parent = queue.enqueue(greet)
        child = queue.enqueue(greet, depends_on=parent)
        parent.set_status(JobStatus.CANCELED)
        assert queue.enqueue_dependents(parent) == {}
        assert queue.enqueue_dependents(parent, exclude_job_id=parent.id) == {'work': [child.id]}

    def test_at_front_is_remembered_while_a_job_waits(self, queue: Queue) -> None:
        parent = queue.enqueue(greet)
        child = queue.enqueue(greet, depends_on=parent, at_front=True)
        parent.set_status(JobStatus.FINISHED)
        queue.enqueue_dependents(parent)
        assert queue.job_ids == [child.id, parent.id]

    def test_a_dependency_that_asks_for_the_front_gets_it_at_once_if_it_is_met(self, queue: Queue) -> None:
        waiting = queue.enqueue(greet)
        first = queue.enqueue(greet, depends_on=Dependency('nobody', enqueue_at_front=True))
        assert queue.job_ids == [first.id, waiting.id]

    def test_ready_jobs_of_an_rq_worker(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet)
        queue.remove(job)
        job.set_status(JobStatus.READY_TO_ENQUEUE)
        queue.ready_job_registry.add(job)
        queue.enqueue_ready_jobs_by_queue({'work': [job.id]})
        assert queue.job_ids == [job.id]
        assert connection.zcard(queue.ready_job_registry.key) == 0


class TestPipelines:
    def test_nothing_happens_before_the_pipeline_runs(self, queue: Queue, connection: redis.Redis) -> None:
        with connection.pipeline() as pipeline:
            job = queue.enqueue(greet, pipeline=pipeline)
            assert job.get_status(refresh=False) == JobStatus.QUEUED
            assert connection.keys() == []
            pipeline.execute()
        assert queue.job_ids == [job.id]

    def test_a_watching_pipeline_is_not_executed_early(self, queue: Queue, connection: redis.Redis) -> None:
        with connection.pipeline() as pipeline:
            pipeline.watch('rq:any')  # type: ignore[no-untyped-call]
            queue.enqueue_call(greet, pipeline=pipeline)
            assert queue.count == 0
            pipeline.execute()
        assert queue.count == 1

    def test_the_expected_status_of_a_dependent_job(self, queue: Queue, connection: redis.Redis) -> None:
        parent = queue.enqueue(greet)
        with connection.pipeline() as pipeline:
            waiting = queue.enqueue(greet, depends_on=parent, pipeline=pipeline)
            ready = queue.enqueue(greet, depends_on='nobody', pipeline=pipeline)
            assert waiting.get_status(refresh=False) == JobStatus.DEFERRED
            assert ready.get_status(refresh=False) == JobStatus.QUEUED
            pipeline.execute()
        assert waiting.get_status() == JobStatus.DEFERRED
        assert ready.get_status() == JobStatus.QUEUED

    def test_scheduling_in_a_pipeline(self, queue: Queue, connection: redis.Redis) -> None:
        with connection.pipeline() as pipeline:
            job = queue.enqueue_in(timedelta(1), greet, pipeline=pipeline)
            assert job not in queue.scheduled_job_registry
            pipeline.execute()
        assert job in queue.scheduled_job_registry

    def test_rate_limited_jobs_are_refused(self, queue: Queue, connection: redis.Redis) -> None:
        with connection.pipeline() as pipeline, pytest.raises(ValueError, match='cannot be enqueued with a pipeline'):
            queue.enqueue(greet, rate_limit=RateLimit('k', 1), pipeline=pipeline)


class TestScheduling:
    def test_enqueue_at(self, queue: Queue) -> None:
        at = datetime(2100, 1, 2, 3, 4, 5, 999, tzinfo=UTC)
        job = queue.enqueue_at(at, greet, 'Ann', job_timeout=5, at_front=True)
        assert queue.scheduled_job_registry.get_scheduled_time(job) == at.replace(microsecond=0)
        assert (job.get_status(), job.timeout, job.args) == (JobStatus.SCHEDULED, 5, ('Ann',))
        assert (job.enqueued_at, job.enqueue_at_front, queue.count) == (None, True, 0)

    def test_a_naive_time_is_local(self, queue: Queue) -> None:
        at = datetime(2100, 7, 2, 3, 4, 5)
        job = queue.enqueue_at(at, greet)
        assert queue.scheduled_job_registry.get_scheduled_time(job) == at.astimezone(UTC)

    def test_enqueue_in(self, queue: Queue) -> None:
        job = queue.enqueue_in(timedelta(hours=1), greet)
        left = queue.scheduled_job_registry.get_scheduled_time(job) - datetime.now(UTC)
        assert timedelta(minutes=59) < left <= timedelta(hours=1)

    def test_a_job_made_by_hand_gets_the_queues_defaults(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.schedule_job(Job.create(greet, connection=connection), datetime.now(UTC))
        stored = Job.fetch(job.id, connection=connection)
        assert (stored.origin, stored.timeout) == ('work', 180)
        assert Queue.all(connection) == [queue]


class TestLooking:
    def test_ids_and_jobs_in_slices(self, queue: Queue) -> None:
        jobs = [queue.enqueue(greet) for _ in range(5)]
        ids = [job.id for job in jobs]
        assert (queue.job_ids, queue.jobs, queue.count, len(queue)) == (ids, jobs, 5, 5)
        assert queue.get_job_ids(1, 2) == ids[1:3]
        assert queue.get_jobs(3) == jobs[3:]
        assert queue.get_job_ids(length=0) == queue.get_jobs(length=0) == []

    def test_positions(self, queue: Queue) -> None:
        first, second = queue.enqueue(greet), queue.enqueue(greet)
        assert (queue.get_job_position(first), queue.get_job_position(second.id)) == (0, 1)
        assert queue.get_job_position('nobody') is None

    def test_ids_of_jobs_that_are_gone_leave_on_the_way(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet)
        connection.rpush(queue.key, 'gone', 'too')
        assert queue.jobs == [job]
        assert queue.job_ids == [job.id]

    def test_fetch_job_knows_its_own_jobs_only(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet)
        assert queue.fetch_job(job.id) == job
        assert Queue('other', connection=connection).fetch_job(job.id) is None
        queue.push_job_id('gone')
        assert queue.fetch_job('gone') is None
        assert queue.job_ids == [job.id]

    def test_all_lists_each_queue_that_was_enqueued_to(self, connection: redis.Redis) -> None:
        class OtherJob(Job):
            pass

        assert Queue.all(connection) == []
        parent = Queue('a', connection=connection).enqueue(greet)
        Queue('b', connection=connection).enqueue(greet, depends_on=parent)
        Queue('c', connection=connection).enqueue_in(timedelta(1), greet)
        found = sorted(Queue.all(connection, job_class=OtherJob, serializer='json'))
        assert [queue.name for queue in found] == ['a', 'b', 'c']
        assert {queue.job_class for queue in found} == {OtherJob}
        assert {queue.serializer for queue in found} == {JSONSerializer}


class TestTakingOut:
    def test_remove_and_push_and_pop(self, queue: Queue, connection: redis.Redis) -> None:
        first, second = queue.enqueue(greet), queue.enqueue(greet)
        queue.remove(first)
        assert queue.job_ids == [second.id]
        queue.push_job_id(first.id, at_front=True)
        assert queue.pop_job_id() == first.id
        with connection.pipeline() as pipeline:
            queue.remove(second.id, pipeline=pipeline)
            assert queue.count == 1
            pipeline.execute()
        assert queue.pop_job_id() is None

    def test_empty_deletes_the_jobs(self, queue: Queue, connection: redis.Redis) -> None:
        jobs = [queue.enqueue(greet) for _ in range(3)]
        connection.rpush(queue.key, 'gone')
        assert queue.empty() == 4
        assert queue.is_empty()
        assert not any(Job.exists(job.id, connection) for job in jobs)

    def test_delete_with_and_without_the_jobs(self, queue: Queue, connection: redis.Redis) -> None:
        kept = queue.enqueue(greet)
        queue.delete(delete_jobs=False)
        assert Queue.all(connection) == []
        assert (queue.count, Job.exists(kept.id, connection)) == (0, True)
        gone = queue.enqueue(greet)
        queue.delete()
        assert (queue.count, Job.exists(gone.id, connection)) == (0, False)

    def test_compact_keeps_the_order(self, queue: Queue, connection: redis.Redis) -> None:
        first = queue.enqueue(greet)
        connection.rpush(queue.key, 'gone')
        second = queue.enqueue(greet)
        connection.lpush(queue.key, 'too')
        queue.compact()
        assert queue.job_ids == [first.id, second.id]

    def test_dequeue_any_takes_in_the_order_of_the_queues(self, queue: Queue, connection: redis.Redis) -> None:
        low = Queue('low', connection=connection)
        assert Queue.dequeue_any([queue, low], None, connection) is None
        second, first = low.enqueue(greet), queue.enqueue(greet)
        low.push_job_id('gone', at_front=True)
        assert Queue.dequeue_any([queue, low], None, connection) == (first, queue)
        assert Queue.dequeue_any([queue, low], 1, connection) == (second, low)
        with pytest.raises(DequeueTimeout):
            Queue.dequeue_any([queue, low], 1, connection)
        with pytest.raises(ValueError, match='indefinite timeouts'):
            Queue.dequeue_any([queue, low], 0, connection)

    def test_dequeue_any_of_one_queue_keeps_the_id_in_rqs_intermediate_list(
        self, queue: Queue, connection: redis.Redis
    ) -> None:
        job = queue.enqueue(greet)
        assert Queue.dequeue_any([queue], 1, connection) == (job, queue)
        assert queue.intermediate_queue.get_job_ids() == [job.id]
        assert Queue.dequeue_any([queue], None, connection) is None


class TestInPlace:
    @pytest.fixture
    def queue(self, connection: redis.Redis) -> Queue:
        return Queue('work', connection=connection, is_async=False)

    def test_the_job_runs_at_once(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(greet, 'Ann', on_success=Callback(note_success))
        assert job.return_value() == 'Hello, Ann'
        assert calls == [('success', JobStatus.FINISHED, 'Hello, Ann')]
        stored = Job.fetch(job.id, connection=connection)
        assert stored.get_status() == JobStatus.FINISHED
        assert stored.started_at is not None
        assert stored.ended_at is not None
        assert job in queue.finished_job_registry
        assert (queue.count, queue.started_job_registry.count) == (0, 0)
        assert 0 < connection.ttl(job.key) <= 500

    def test_it_counts_as_started_while_it_runs(self, queue: Queue) -> None:
        job = queue.enqueue(where_am_i, ttl=100)
        assert job.return_value() == ('sync', JobStatus.STARTED, 'sync')

    def test_result_ttl_says_how_long_it_is_kept(self, queue: Queue, connection: redis.Redis) -> None:
        assert connection.ttl(queue.enqueue(greet, result_ttl=-1).key) == -1
        assert connection.ttl(queue.enqueue(greet, result_ttl=0, on_success=Callback(note_success)).key) == -2
        assert calls[-1][2] == 'Hello, you'

    def test_a_failure_is_recorded_not_raised(self, queue: Queue, connection: redis.Redis) -> None:
        job = queue.enqueue(divide_by_zero, on_failure=Callback(note_failure), on_success=Callback(note_success))
        assert job.get_status() == JobStatus.FAILED
        assert calls == [('failure', JobStatus.FAILED, ZeroDivisionError)]
        assert job in queue.failed_job_registry
        result = job.latest_result()
        assert result is not None
        assert 'ZeroDivisionError: division by zero' in (result.exc_string or '')

    def test_what_a_callback_raises_is_raised(self, queue: Queue) -> None:
        with pytest.raises(LookupError):
            queue.enqueue(divide_by_zero, on_failure=Callback(raise_again))
        with pytest.raises(LookupError):
            queue.enqueue(greet, job_id='a', on_success=Callback(raise_again))
        job = queue.fetch_job('a')
        assert job is not None
        assert job.is_finished

    def test_callbacks_run_in_any_thread(self, queue: Queue) -> None:
        with ThreadPoolExecutor() as pool:
            job = pool.submit(queue.enqueue, greet, on_success=Callback(note_success)).result()
        assert calls == [('success', JobStatus.FINISHED, job.return_value())]

    def test_sys_exit_is_the_jobs_failure_and_ctrl_c_the_users_wish(self, queue: Queue) -> None:
        assert queue.enqueue(leave).is_failed
        with pytest.raises(KeyboardInterrupt):
            queue.enqueue(interrupt, job_id='a')
        job = queue.fetch_job('a')
        assert job is not None
        assert job.is_failed

    def test_an_unserializable_result_does_not_fail_the_job(self, connection: redis.Redis) -> None:
        queue = Queue('work', connection=connection, is_async=False, serializer='json')
        job = queue.enqueue(return_lock)
        assert job.is_finished
        assert job.return_value() == 'Unserializable return value'

    def test_a_pipeline_cannot_undo_what_the_job_became(self, queue: Queue, connection: redis.Redis) -> None:
        with connection.pipeline() as pipeline:
            job = queue.enqueue(greet, pipeline=pipeline)
            pipeline.execute()
        assert job.get_status() == JobStatus.FINISHED

    def test_dependencies_hold(self, queue: Queue, connection: redis.Redis) -> None:
        parent = Queue('work', connection=connection).enqueue(greet)
        assert queue.enqueue(greet, depends_on=parent).get_status() == JobStatus.DEFERRED
        assert queue.enqueue(greet, depends_on=queue.enqueue(greet)).get_status() == JobStatus.FINISHED

    def test_unique_and_rate_limits(self, queue: Queue) -> None:
        queue.enqueue(greet, job_id='a', unique=True)
        with pytest.raises(DuplicateJobError):
            queue.enqueue(greet, job_id='a', unique=True)
        with pytest.raises(ValueError, match='not supported on synchronous queues'):
            queue.enqueue(greet, rate_limit=RateLimit('k', 1))


# ---- what becomes of a job whose worker is lost ----


def test_every_way_to_enqueue_takes_a_rule_for_a_lost_worker(queue: Queue, connection: redis.Redis) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    jobs = [
        queue.enqueue(greet, on_lost='fail'),
        queue.enqueue(greet, args=('Ann',), on_lost='fail'),
        queue.enqueue(f'{__name__}.greet', 'Ann', on_lost='fail'),
        queue.enqueue_call(greet, on_lost='fail'),
        queue.enqueue_at(later, greet, on_lost='fail'),
        queue.enqueue_in(timedelta(1), greet, on_lost='fail'),
        queue.enqueue_job(queue.create_job(greet, on_lost='fail')),
        *queue.enqueue_many([Queue.prepare_data(greet, on_lost='fail')]),
    ]
    stored = [Job.fetch(job.id, connection=connection) for job in jobs]
    assert [job.on_lost for job in stored] == ['fail'] * len(jobs)
    assert not any(job.kwargs for job in stored)


def test_a_queue_has_a_rule_for_the_jobs_that_have_none(connection: redis.Redis) -> None:
    strict = Queue('strict', connection=connection, on_lost='fail')
    jobs = [
        strict.enqueue(greet),
        strict.enqueue_in(timedelta(1), greet),
        strict.enqueue_job(Job.create(greet, connection=connection)),
        *strict.enqueue_many([Queue.prepare_data(greet), Queue.prepare_data(greet, on_lost='requeue')]),
    ]
    rules = [Job.fetch(job.id, connection=connection).on_lost for job in jobs]
    assert rules == ['fail'] * 4 + ['requeue']


def test_nothing_is_stored_of_a_rule_that_nobody_has_given(queue: Queue, connection: redis.Redis) -> None:
    job = queue.enqueue(greet)
    assert not connection.hexists(job.key, 'greenq_on_lost')


def test_a_rule_that_is_none_is_refused_before_anything_is_stored(queue: Queue, connection: redis.Redis) -> None:
    for call in (
        lambda: queue.enqueue(greet, on_lost='drop'),
        lambda: queue.enqueue_many([Queue.prepare_data(greet), Queue.prepare_data(greet, on_lost='drop')]),
        lambda: Queue(connection=connection, on_lost='drop'),
    ):
        with pytest.raises(ValueError, match=r"on_lost 'drop' is not allowed\. Use `requeue` or `fail`"):
            call()
    assert connection.keys() == []


def test_a_damaged_job_stays_in_the_queue_for_a_worker_to_fail(queue: Queue, connection: redis.Redis) -> None:
    job = queue.enqueue(greet)
    connection.hset(keys.job('damaged'), 'status', 'queued')
    queue.push_job_id('damaged')
    queue.push_job_id('gone')
    assert queue.jobs == [job]
    assert queue.job_ids == [job.id, 'damaged']


def test_a_job_without_a_connection_lives_where_it_is_enqueued(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    job = Job.create('os.getpid')
    queue.enqueue_job(job)
    assert job.connection is queue.connection
    job.refresh()
    assert job.origin == queue.name
