"""Rate limits: how many jobs of a key are let through, and who comes next."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from greenq.executions import Execution
from greenq.job import Job, JobStatus
from greenq.queue import Queue
from greenq.rate_limit import RateLimit, RateLimitRegistry, release_slot

LIMIT = RateLimit('api', 2)


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


@pytest.fixture
def registry(connection: redis.Redis) -> RateLimitRegistry:
    return RateLimitRegistry('api', connection)


def greet() -> str:
    return 'Hello'


def fail() -> None:
    raise LookupError


@pytest.mark.parametrize(('key', 'concurrency'), [('', 1), ('a', 0), ('a', -1), ('a', 1.5), ('a', '1')])
def test_what_is_no_limit(key: str, concurrency: int) -> None:
    with pytest.raises(ValueError, match=r'key must not be empty|concurrency must be an integer of at least 1, got'):
        RateLimit(key, concurrency)


def test_jobs_above_the_limit_wait(queue: Queue, registry: RateLimitRegistry, connection: redis.Redis) -> None:
    jobs = [queue.enqueue(greet, rate_limit=LIMIT, job_id=job_id) for job_id in 'abcd']
    ids = [job.id for job in jobs]
    assert [job.get_status(refresh=False).value for job in jobs] == ['queued'] * 2 + ['rate_limited'] * 2
    assert jobs[0].enqueued_at is not None
    assert jobs[3].enqueued_at is None
    assert queue.job_ids == registry.get_allowed_job_ids() == ids[:2]
    assert registry.get_rate_limited_job_ids() == ids[2:]
    assert (registry.get_allowed_job_count(), registry.get_rate_limited_job_count()) == (2, 2)
    assert registry.concurrency == 2
    assert [found.key for found in RateLimitRegistry.all(connection)] == ['api']
    stored = Job.fetch(ids[3], connection=connection)
    assert (stored.rate_limit_key, stored.rate_limit_concurrency) == ('api', 2)


def test_keys_have_slots_of_their_own(queue: Queue) -> None:
    for key in 'ab':
        assert queue.enqueue(greet, rate_limit=RateLimit(key, 1)).is_queued


def test_a_canceled_or_deleted_job_makes_room(queue: Queue, registry: RateLimitRegistry) -> None:
    first, second, third, fourth = (queue.enqueue(greet, rate_limit=LIMIT, job_id=job_id) for job_id in 'abcd')
    first.cancel()
    assert third.is_queued
    second.delete()
    assert fourth.is_queued
    assert registry.get_allowed_job_ids() == [third.id, fourth.id]


def test_at_front_holds_when_the_turn_comes(queue: Queue) -> None:
    first = queue.enqueue(greet, rate_limit=RateLimit('k', 1))
    plain = queue.enqueue(greet)
    urgent = queue.enqueue(greet, rate_limit=RateLimit('k', 1), at_front=True)
    queue.remove(first)
    first.delete()
    assert queue.job_ids == [urgent.id, plain.id]


def test_a_requeued_job_waits_for_a_slot(queue: Queue, registry: RateLimitRegistry) -> None:
    failed = queue.enqueue(greet, rate_limit=RateLimit('api', 1))
    queue.remove(failed)
    failed.set_status(JobStatus.FAILED)
    queue.failed_job_registry.add(failed)
    assert registry.release_and_enqueue(failed.id) == []
    blocking = queue.enqueue(greet, rate_limit=RateLimit('api', 1))
    assert failed.requeue().get_status(refresh=False) == JobStatus.RATE_LIMITED
    assert queue.job_ids == [blocking.id]
    assert registry.get_rate_limited_job_ids() == [failed.id]


def test_release_lets_the_oldest_through(queue: Queue, registry: RateLimitRegistry) -> None:
    jobs = [queue.enqueue(greet, rate_limit=LIMIT) for _ in range(3)]
    assert registry.release_and_enqueue('nobody') == []
    assert registry.release_stale_and_enqueue(jobs[0].id) == []
    assert release_slot(jobs[0]) == []
    jobs[0]._status = JobStatus.FINISHED
    assert release_slot(jobs[0]) == [jobs[2].id]
    assert release_slot(queue.enqueue(greet)) == []


def test_a_job_that_somebody_still_runs_keeps_its_slot(
    queue: Queue, registry: RateLimitRegistry, connection: redis.Redis
) -> None:
    job = queue.enqueue(greet, rate_limit=RateLimit('api', 1))
    waiting = queue.enqueue(greet, rate_limit=RateLimit('api', 1))
    with connection.pipeline() as pipeline:
        execution = Execution.create(job, 90, pipeline)
        pipeline.execute()
    job.set_status(JobStatus.CANCELED)
    assert registry.cancel(job.id) == []
    with connection.pipeline() as pipeline:
        execution.delete(job, pipeline)
        pipeline.execute()
    assert registry.cancel(job.id) == [waiting.id]


def test_cancel_in_a_pipeline_only_leaves_the_waiting(
    queue: Queue, registry: RateLimitRegistry, connection: redis.Redis
) -> None:
    *_, waiting = (queue.enqueue(greet, rate_limit=LIMIT) for _ in range(3))
    with connection.pipeline() as pipeline:
        assert registry.cancel(waiting.id, pipeline=pipeline) == []
        pipeline.execute()
    assert registry.get_rate_limited_job_ids() == []


def test_cleanup_takes_back_what_leaked(queue: Queue, registry: RateLimitRegistry, connection: redis.Redis) -> None:
    finished, gone, waiting, waiting_too, still = (
        queue.enqueue(greet, rate_limit=LIMIT, job_id=job_id) for job_id in 'abcde'
    )
    finished.set_status(JobStatus.FINISHED)
    connection.delete(gone.key)
    registry.cleanup()
    assert registry.get_allowed_job_ids() == [waiting.id, waiting_too.id]
    assert registry.get_rate_limited_job_ids() == [still.id]


def test_cleanup_keeps_what_is_in_use_and_forgets_what_is_not(
    queue: Queue, registry: RateLimitRegistry, connection: redis.Redis
) -> None:
    queued, started = (queue.enqueue(greet, rate_limit=LIMIT) for _ in range(2))
    started.set_status(JobStatus.STARTED)
    registry.cleanup()
    assert set(registry.get_allowed_job_ids()) == {queued.id, started.id}
    queued.set_status(JobStatus.FINISHED)
    connection.hset(started.key, 'status', 'nonsense')
    registry.cleanup()
    assert RateLimitRegistry.all(connection) == []
    assert not connection.exists(registry.config_key, registry.allowed_key, registry.rate_limited_key)


def test_cleanup_drops_waiting_entries_that_cannot_run(
    queue: Queue, registry: RateLimitRegistry, connection: redis.Redis
) -> None:
    with connection.pipeline() as pipeline:
        registry.register(1, pipeline)
        registry.add_to_rate_limited('gone', pipeline, timestamp=1)
        pipeline.execute()
    canceled = queue.enqueue(greet)
    canceled.set_status(JobStatus.CANCELED)
    connection.zadd(registry.rate_limited_key, {canceled.id: 2})
    registry.cleanup()
    assert RateLimitRegistry.all(connection) == []


def test_acquire_uses_and_keeps_the_concurrency_given(
    queue: Queue, registry: RateLimitRegistry, connection: redis.Redis
) -> None:
    jobs = [queue.enqueue(greet, rate_limit=RateLimit('api', 1), job_id=job_id) for job_id in 'abcd']
    assert registry.acquire_and_enqueue(1) == []
    assert registry.acquire_and_enqueue(3) == [job.id for job in jobs[1:3]]
    assert registry.concurrency == 3
    with connection.pipeline() as pipeline:
        assert registry.acquire_and_enqueue(4, pipeline=pipeline) == []
        pipeline.execute()
    assert jobs[3].is_queued


def test_from_job(queue: Queue) -> None:
    assert RateLimitRegistry.from_job(queue.enqueue(greet, rate_limit=LIMIT)).key == 'api'
    with pytest.raises(ValueError, match='has no rate limit'):
        RateLimitRegistry.from_job(queue.enqueue(greet))


def test_a_scheduled_job_needs_no_slot_yet(queue: Queue, registry: RateLimitRegistry) -> None:
    job = queue.enqueue_in(timedelta(hours=1), greet, rate_limit=LIMIT)
    assert job.is_scheduled
    assert registry.get_allowed_job_count() == 0
