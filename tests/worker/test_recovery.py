"""What dead workers held: recovered by whoever is alive, once, at the front of its queue, and without using a retry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from greenq import Callback, Queue, Retry
from greenq.defaults import LEASE_SECONDS, REAP_SECONDS
from greenq.job import Job, JobStatus
from greenq.store import keys, transitions
from greenq.store.transitions import Recovered
from greenq.worker.maintenance import Maintenance
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.runner import Runner, Runners


def _reaper(connection: redis.Redis, name: str, settle: Callable[[Recovered], None] | None = None) -> Maintenance:
    def unexpected(item: Recovered) -> None:
        raise AssertionError(f'{item} is not to be adopted')

    return Maintenance(connection, name, settle or unexpected, lambda: None)


def _hold(connection: redis.Redis, count: int, on_lost: str = 'requeue') -> list[Job]:
    """Has a worker hold so many jobs, and then end its lease."""
    queue = Queue(connection=connection)
    held = [queue.enqueue(jobs.nothing) for _ in range(count)]
    transitions.join(
        connection, 'dead', 't', ['default'], {'birth': '', 'queues': 'default'}, lease_ms=15_000, worker_ttl=420,
        on_lost=on_lost,
    )  # fmt: skip
    ids = [f'{number:032x}' for number in range(count)]
    claimed = transitions.claim(connection, 'dead', ['default'], ids, lifetime=180)
    assert claimed is not None and len(claimed) == count
    return held


def _end_lease(connection: Any, name: str = 'dead') -> None:
    connection.zadd(keys.leases(), {name: 0})


def _kill(runner: Runner, connection: redis.Redis) -> None:
    runner.kill()
    _end_lease(connection, runner.worker_name)


def test_a_lease_that_runs_is_respected(connection: redis.Redis) -> None:
    [job] = _hold(connection, 1)
    assert _reaper(connection, 'me').recover_lost() == 0
    assert job.get_status() == JobStatus.STARTED


def test_ten_reapers_recover_each_job_once(connection: redis.Redis, server_url: str) -> None:
    held = _hold(connection, 250)
    _end_lease(connection)
    counts: list[int] = []

    def reap(name: str) -> None:
        with redis.Redis.from_url(server_url) as own_client:
            barrier.wait()
            counts.append(_reaper(own_client, name).recover_lost())

    barrier = threading.Barrier(10)
    threads = [threading.Thread(target=reap, args=(f'reaper {number}',)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sum(counts) == 250
    queued = Queue(connection=connection).job_ids
    assert len(queued) == 250
    assert set(queued) == {job.id for job in held}
    assert not connection.exists(keys.held('dead'), keys.member('dead'), keys.worker('dead'))
    assert connection.zscore(keys.leases(), 'dead') is None


def test_what_a_worker_asked_to_have_failed_is_adopted_by_one(connection: redis.Redis) -> None:
    held = _hold(connection, 3, on_lost='fail')
    _end_lease(connection)
    adopted: list[Recovered] = []
    _reaper(connection, 'one', adopted.append).recover_lost()
    _reaper(connection, 'other', adopted.append).recover_lost()
    assert sorted(item.job_id for item in adopted) == sorted(job.id for job in held)


def test_what_was_parked_returns_to_the_front(connection: redis.Redis) -> None:
    _hold(connection, 1)
    queue = Queue(connection=connection)
    parked, later = queue.enqueue(jobs.nothing), queue.enqueue(jobs.nothing)
    connection.lmove(queue.key, keys.parked('dead'))
    _end_lease(connection)
    _reaper(connection, 'me').recover_lost()
    ids = queue.job_ids
    assert ids.index(parked.id) < ids.index(later.id)
    assert len(ids) == 3


def test_the_third_interruption_in_a_row_is_poison(runners: Runners, connection: Any) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(jobs.nothing, on_failure=Callback(jobs.on_failure), retry=Retry(max=5))
    for number in range(3):
        assert job.get_status() == JobStatus.QUEUED
        transitions.join(
            connection, f'dead {number}', 't', ['default'], {'birth': ''}, lease_ms=1, worker_ttl=420
        )  # fmt: skip
        transitions.claim(connection, f'dead {number}', ['default'], [f'{number:032x}'], lifetime=180)
        _end_lease(connection, f'dead {number}')
        _reaper(connection, 'me').recover_lost()
    assert job.get_status() == JobStatus.FAILED
    assert 'PoisonJobError: interrupted 3 times in a row' in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert job.id in queue.failed_job_registry
    job.refresh()
    assert job.retries_left == 5


def test_a_killed_worker(runners: Runners, connection: redis.Redis) -> None:
    """Killed in the middle of its jobs: they are at the front again, with all their retries, and run elsewhere."""
    queue = Queue(connection=connection)
    victim = runners.new('gevent')
    victim.begin(concurrency=2)
    interrupted = [queue.enqueue(jobs.wait_at_gate, retry=Retry(max=1), job_id=f'interrupted-{i}') for i in range(2)]
    jobs.wait_for_notes(connection, 2)
    queue.enqueue(jobs.nothing, job_id='behind')

    _kill(victim, connection)
    _reaper(connection, 'me').recover_lost()

    assert sorted(queue.job_ids[:2]) == ['interrupted-0', 'interrupted-1'] and queue.job_ids[2:] == ['behind']
    jobs.open_gate(connection, 2)
    runners('gevent').run()
    for job in interrupted:
        job.refresh()
        assert job.get_status() == JobStatus.FINISHED
        assert job.retries_left == 1
    assert len(jobs.noted(connection, 'started')) == 4


def test_a_killed_fork_worker_leaves_a_failure_as_in_rq(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('fork')
    victim.begin()
    job = queue.enqueue(jobs.wait_at_gate, on_failure=Callback(jobs.on_failure))
    jobs.wait_for_notes(connection, 1)

    _kill(victim, connection)
    runners('fork').run()

    assert job.get_status() == JobStatus.FAILED
    assert 'AbandonedJobError' in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert jobs.noted(connection) == [f'failure {job.id} AbandonedJobError Worker died while running job {job.id}']
    # The horse outlives its worker; it gets no second say.
    jobs.open_gate(connection)
    jobs.wait_for_notes(connection, 1, 'ended')
    assert job.get_status() == JobStatus.FAILED and len(job.results()) == 1


def test_a_killed_fork_worker_that_requeues(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('fork')
    victim.begin(on_lost='requeue')
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)

    _kill(victim, connection)
    _reaper(connection, 'me').recover_lost()

    assert job.get_status() == JobStatus.QUEUED
    jobs.open_gate(connection, 2)
    runners('fork').run()
    assert job.get_status() == JobStatus.FINISHED
    wait_until(lambda: len(jobs.noted(connection, 'ended')) == 2)
    assert len(job.results()) == 1, 'the horse that outlived its worker gets no second say'


def test_a_successor_of_the_same_name_recovers_what_it_held(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('gevent')
    name = victim.begin()
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    _kill(victim, connection)
    jobs.open_gate(connection)

    runners('gevent').run(name=name)

    assert job.get_status() == JobStatus.FINISHED


def test_a_killed_horse(runners: Runners, connection: redis.Redis) -> None:
    """A child that is killed from outside fails its job at once; its worker goes on."""
    queue = Queue(connection=connection)
    killed, following = queue.enqueue(jobs.kill_me), queue.enqueue(jobs.nothing)

    runners('fork').run(work_horse_killed_handler='tests.worker.jobs.horse_killed')

    assert killed.get_status() == JobStatus.FAILED
    assert 'Work-horse terminated unexpectedly; waitpid returned 9 (signal 9)' in str(
        killed.latest_result().exc_string  # type: ignore[union-attr]
    )
    assert jobs.noted(connection) == [f'killed {killed.id} 9']
    assert following.get_status() == JobStatus.FINISHED


@pytest.mark.slow
def test_a_killed_worker_is_noticed_by_a_running_one(runners: Runners, connection: redis.Redis) -> None:
    """With nobody's help, within a lease and a look."""
    queue = Queue(connection=connection)
    victim, survivor = runners.new('gevent'), runners('gevent')
    victim.begin()
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    survivor.begin()

    victim.kill()

    started = time.monotonic()
    jobs.open_gate(connection)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, timeout=30)
    assert time.monotonic() - started < LEASE_SECONDS + REAP_SECONDS + 3
    survivor.stop()
