"""The scheduler of scheduled jobs: who may move them, what is moved when, and how schedulers come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis
from rq.scheduler import RQScheduler as TheirScheduler

from greenq.exceptions import SchedulerNotFound
from greenq.job import Job, JobStatus
from greenq.queue import Queue
from greenq.rate_limit import RateLimit
from greenq.scheduler import CHUNK, RQScheduler, SchedulerThread
from greenq.store import keys, scheduling
from greenq.utils import now
from tests.helpers import wait_until

PAST = datetime(2020, 1, 1)


def nothing() -> None:
    pass


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


@pytest.fixture
def scheduler(queue: Queue) -> Iterator[RQScheduler]:
    made = RQScheduler([queue], connection=queue.connection)
    yield made
    made.stop()


def another(queue: Queue, **kwargs: Any) -> RQScheduler:
    return RQScheduler([queue], connection=queue.connection, **kwargs)


def forsake(scheduler: RQScheduler) -> None:
    """As if its last beat were longer ago than its lease."""
    scheduler.heartbeat()
    scheduler.connection.hset(scheduler.key, 'greenq_lease', time.time() - 1)


# ---- what is moved ----


def test_moves_what_is_due_by_the_clock_of_redis(queue: Queue, scheduler: RQScheduler) -> None:
    seconds, _ = queue.connection.time()
    due = queue.enqueue_at(datetime.fromtimestamp(seconds), nothing)
    later = queue.enqueue_at(datetime.fromtimestamp(seconds + 60), nothing)
    scheduler.acquire_locks()
    assert scheduler.enqueue_scheduled_jobs() == 1
    assert queue.job_ids == [due.id]
    assert due.get_status() is JobStatus.QUEUED
    assert due.enqueued_at is None and Job.fetch(due.id, queue.connection).enqueued_at is not None
    assert queue.scheduled_job_registry.get_job_ids() == [later.id]
    assert later.get_status() is JobStatus.SCHEDULED


def test_moves_more_than_one_chunk_in_order_and_in_turns(queue: Queue, connection: redis.Redis) -> None:
    other = Queue('other', connection=connection)
    moment = PAST
    expected = [queue.enqueue_at(moment + timedelta(seconds=i), nothing).id for i in range(CHUNK + 5)]
    other_job = other.enqueue_at(moment, nothing)
    scheduler = RQScheduler([queue, other], connection=connection)
    scheduler.acquire_locks()
    assert scheduler.enqueue_scheduled_jobs() == CHUNK + 6
    assert queue.job_ids == expected
    assert other.job_ids == [other_job.id]
    assert scheduler.enqueue_scheduled_jobs() == 0


def test_at_front_and_rate_limit_are_honoured_when_the_time_has_come(queue: Queue, scheduler: RQScheduler) -> None:
    first = queue.enqueue_at(PAST, nothing)
    front = queue.enqueue_at(PAST + timedelta(1), nothing, at_front=True)
    limit = RateLimit('api', 1)
    allowed, held_back = (queue.enqueue_at(PAST + timedelta(day), nothing, rate_limit=limit) for day in (2, 3))
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    assert queue.job_ids == [front.id, first.id, allowed.id]
    assert held_back.get_status() is JobStatus.RATE_LIMITED


@pytest.mark.parametrize('status', [JobStatus.CREATED, JobStatus.QUEUED])
def test_moves_a_job_that_was_added_to_the_registry_by_hand(
    queue: Queue, scheduler: RQScheduler, status: JobStatus
) -> None:
    job = queue.create_job(nothing, status=status)
    job.save()
    queue.scheduled_job_registry.schedule(job, PAST)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    assert queue.job_ids == [job.id]


@pytest.mark.parametrize('status', sorted(set(JobStatus) - {JobStatus.CREATED, JobStatus.SCHEDULED}))
def test_a_stale_entry_is_dropped_and_its_job_left_alone(
    queue: Queue, scheduler: RQScheduler, status: JobStatus
) -> None:
    job = queue.enqueue(nothing)
    queue.remove(job)
    job.set_status(status)
    queue.scheduled_job_registry.schedule(job, PAST)
    scheduler.acquire_locks()
    assert scheduler.enqueue_scheduled_jobs() == 0
    assert queue.job_ids == []
    assert job.get_status() is status
    assert queue.scheduled_job_registry.count == 0


def test_an_entry_without_a_job_is_dropped(queue: Queue, scheduler: RQScheduler) -> None:
    job = queue.enqueue_at(PAST, nothing)
    queue.connection.delete(job.key)
    scheduler.acquire_locks()
    assert scheduler.enqueue_scheduled_jobs() == 0
    assert queue.scheduled_job_registry.count == 0
    assert not queue.connection.exists(job.key)


@pytest.mark.slow
def test_moving_100k_jobs_never_holds_the_server_up(queue: Queue, scheduler: RQScheduler) -> None:
    connection, count = queue.connection, 100_000
    job = queue.enqueue_at(PAST, nothing)
    fields = connection.hgetall(job.key)
    with connection.pipeline(transaction=False) as pipeline:
        for number in range(1, count):
            pipeline.hset(keys.job(str(number)), mapping=fields)  # type: ignore[arg-type]
            pipeline.zadd(queue.scheduled_job_registry.key, {str(number): number})
        pipeline.execute()
    connection.config_set('slowlog-log-slower-than', 50_000)
    connection.slowlog_reset()
    scheduler.acquire_locks()
    assert scheduler.enqueue_scheduled_jobs() == count
    assert connection.slowlog_get() == []


# ---- who may ----


def test_one_scheduler_per_queue(queue: Queue, scheduler: RQScheduler) -> None:
    second = another(queue)
    assert scheduler.acquire_locks() == {'work'}
    assert second.acquire_locks() == set()
    assert scheduler.acquire_locks() == {'work'} == scheduler.acquired_locks
    scheduler.release_locks()
    assert second.acquire_locks() == {'work'}
    second.stop()


def test_a_scheduler_that_lost_its_lock_moves_nothing(queue: Queue, scheduler: RQScheduler) -> None:
    job = queue.enqueue_at(PAST, nothing)
    scheduler.acquire_locks()
    queue.connection.set(scheduler.get_locking_key('work'), 'somebody else')
    assert scheduler.enqueue_scheduled_jobs() == 0
    assert scheduler.acquired_locks == set()
    assert job.get_status() is JobStatus.SCHEDULED
    assert queue.job_ids == []


def test_the_locks_of_a_silent_scheduler_are_taken_over(queue: Queue, scheduler: RQScheduler) -> None:
    stalled = another(queue)
    stalled.acquire_locks()
    stalled.heartbeat()
    assert scheduler.acquire_locks() == set()
    forsake(stalled)
    assert scheduler.acquire_locks() == {'work'}
    scheduler.heartbeat()
    queue.enqueue_at(PAST, nothing)
    assert stalled.enqueue_scheduled_jobs() == 0
    stalled.heartbeat()
    assert stalled.acquired_locks == set()
    assert scheduler.enqueue_scheduled_jobs() == 1


def test_a_heartbeat_extends_what_is_held_takes_back_what_expired_and_drops_what_is_lost(
    connection: redis.Redis,
) -> None:
    scheduler = RQScheduler(['kept', 'expired', 'lost'], connection=connection)
    scheduler.acquire_locks()
    connection.expire(scheduler.get_locking_key('kept'), 5)
    connection.delete(scheduler.get_locking_key('expired'))
    connection.set(scheduler.get_locking_key('lost'), 'somebody else', ex=5)
    scheduler.heartbeat()
    assert scheduler.acquired_locks == {'kept', 'expired'}
    assert connection.ttl(scheduler.get_locking_key('kept')) == 61
    assert connection.ttl(scheduler.key) == 61
    scheduler.stop()
    assert connection.keys('*scheduler*') == [scheduler.get_locking_key('lost').encode()]


def test_locks_are_asked_for_again_after_some_seconds(queue: Queue, scheduler: RQScheduler) -> None:
    holder = another(queue)
    assert scheduler.should_reacquire_locks
    holder.acquire_locks()
    assert not holder.should_reacquire_locks
    scheduler.acquire_locks()
    assert not scheduler.should_reacquire_locks
    scheduler.lock_acquisition_time = datetime.now() - timedelta(seconds=6)
    assert scheduler.should_reacquire_locks
    scheduler.lock_acquisition_time = datetime.now() + timedelta(hours=1)
    assert scheduler.should_reacquire_locks


def test_two_schedulers_without_a_lock_move_each_job_once(queue: Queue) -> None:
    ids = {queue.enqueue_at(PAST, nothing).id for _ in range(1000)}
    moved = []

    def move(scheduler: RQScheduler) -> None:
        scheduler.prepare_registries(['work'])
        moved.append(scheduler.enqueue_scheduled_jobs())

    threads = [threading.Thread(target=move, args=(another(queue),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(moved) == 1000
    assert sorted(queue.job_ids) == sorted(ids)


def test_rq_and_greenq_respect_each_other(queue: Queue, scheduler: RQScheduler) -> None:
    theirs: Any = TheirScheduler(['work'], connection=queue.connection)
    assert theirs.acquire_locks() == {'work'}
    theirs.register_birth()
    assert scheduler.acquire_locks() == set()
    theirs.stop()
    assert scheduler.acquire_locks() == {'work'}
    scheduler.register_birth()
    assert theirs.acquire_locks() == set()
    seen: Any = TheirScheduler.fetch(scheduler.name, queue.connection)
    assert (seen.name, seen.pid, seen.created_at) == (scheduler.name, scheduler.pid, scheduler.created_at)


# ---- records ----


def test_a_record_can_be_read_until_the_scheduler_is_gone(queue: Queue, scheduler: RQScheduler) -> None:
    scheduler.acquire_locks()
    assert queue.scheduler_pid is None
    scheduler.register_birth()
    found = RQScheduler.fetch(scheduler.name, queue.connection)
    assert found.to_dict() == scheduler.to_dict()
    assert queue.scheduler_pid == scheduler.pid
    assert scheduler.register_death() and not scheduler.register_death()
    with pytest.raises(SchedulerNotFound, match=scheduler.name):
        RQScheduler.fetch(scheduler.name, queue.connection)


def test_a_heartbeat_restores_a_record_that_expired(queue: Queue, scheduler: RQScheduler) -> None:
    scheduler.register_birth()
    queue.connection.delete(scheduler.key)
    scheduler.heartbeat()
    assert RQScheduler.fetch(scheduler.name, queue.connection).created_at == scheduler.created_at


def test_accepts_one_queue_or_name(connection: redis.Redis) -> None:
    assert RQScheduler('work', connection).acquire_locks() == {'work'}
    assert RQScheduler(Queue('other', connection=connection), connection).acquire_locks() == {'other'}


# ---- running ----


def test_runs_once_and_leaves_nothing_behind(queue: Queue) -> None:
    job = queue.enqueue_at(PAST, nothing)
    scheduler = another(queue)
    assert scheduler.run_once() == 1
    assert queue.job_ids == [job.id]
    assert queue.connection.keys('*scheduler*') == []
    assert scheduler.status is RQScheduler.Status.STOPPED


def test_does_not_run_once_where_another_one_runs(queue: Queue, scheduler: RQScheduler) -> None:
    queue.enqueue_at(PAST, nothing)
    scheduler.acquire_locks()
    assert another(queue).run_once() == 0
    assert queue.job_ids == []


def test_runs_in_a_thread(queue: Queue, scheduler: RQScheduler) -> None:
    thread = scheduler.run_in_thread()
    assert isinstance(thread, SchedulerThread)
    job = queue.enqueue_at(now() + timedelta(seconds=1), nothing)
    wait_until(lambda: queue.job_ids == [job.id])
    assert queue.scheduler_pid == scheduler.pid
    scheduler.stop()
    assert not thread.is_alive()
    assert scheduler.status is RQScheduler.Status.STOPPED
    assert queue.connection.keys('*scheduler*') == []
    scheduler.stop()


def test_a_thread_survives_lost_connections(queue: Queue, scheduler: RQScheduler) -> None:
    scheduler.run_in_thread()
    for _ in range(2):
        job = queue.enqueue_at(PAST, nothing)
        wait_until(lambda job=job: queue.job_ids == [job.id])  # type: ignore[misc]
        queue.empty()
        queue.connection.client_kill_filter(_type='normal', skipme=True)


def test_a_thread_takes_over_from_a_scheduler_that_died(queue: Queue, scheduler: RQScheduler) -> None:
    dead = another(queue)
    dead.acquire_locks()
    forsake(dead)
    queue.enqueue_at(PAST, nothing)
    scheduler.run_in_thread()
    wait_until(lambda: queue.count == 1)


IN_PROCESS = """
import sys, redis
from greenq.scheduler import RQScheduler
scheduler = RQScheduler(['work'], redis.Redis.from_url(sys.argv[1]), name='forked', logging_level='WARNING')
scheduler.acquire_locks(auto_start=True)
print(scheduler._process.pid, flush=True)
sys.stdin.read()
scheduler._process.terminate()
scheduler._process.join()
sys.exit(scheduler._process.exitcode)
"""


@contextmanager
def scheduler_process(url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process, whose end of input ends it, and the id of its child, a scheduler named `forked`."""
    process = subprocess.Popen(
        [sys.executable, '-c', IN_PROCESS, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_runs_in_a_process_until_sigterm(queue: Queue, server_url: str) -> None:
    job = queue.enqueue_at(PAST, nothing)
    with scheduler_process(server_url) as (process, pid):
        wait_until(lambda: queue.job_ids == [job.id])
        assert queue.scheduler_pid == pid
        process.communicate(timeout=10)
        assert process.returncode == 0
    assert queue.connection.keys('*scheduler*') == []


@pytest.mark.faults
def test_after_kill_minus_9_another_scheduler_takes_over(queue: Queue, scheduler: RQScheduler, server_url: str) -> None:
    with scheduler_process(server_url) as (_, pid):
        wait_until(lambda: queue.scheduler_pid == pid)
        os.kill(pid, signal.SIGKILL)
        queue.enqueue_at(PAST, nothing)
        scheduler.run_in_thread()
        wait_until(lambda: queue.count == 1, timeout=30)


# ---- the store ----


def test_a_pipeline_queues_the_record(queue: Queue, scheduler: RQScheduler) -> None:
    with queue.connection.pipeline() as pipeline:
        scheduler.save(pipeline)
        assert not queue.connection.exists(scheduler.key)
        pipeline.execute()
    assert queue.connection.exists(scheduler.key)


def test_promotion_says_whether_more_is_due(queue: Queue) -> None:
    for _ in range(3):
        queue.enqueue_at(PAST, nothing)
    assert scheduling.promote_scheduled(queue.connection, 'work', limit=2).is_more_due
    assert not scheduling.promote_scheduled(queue.connection, 'work', limit=2).is_more_due
    assert not scheduling.promote_scheduled(queue.connection, 'work', 'nobody').is_holder
