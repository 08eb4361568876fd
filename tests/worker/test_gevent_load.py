"""How a gevent worker shares: what it cannot start goes to other workers, and when idle it leaves Redis alone."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import redis

from greenq import Queue
from greenq.job import JobStatus
from greenq.store import keys
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.runner import Runner, Runners


def test_no_job_waits_behind_a_busy_worker(runners: Runners, connection: redis.Redis) -> None:
    """One worker is full; whatever comes goes to the other, though both have waited for it."""
    queue = Queue(connection=connection)
    full, free = runners('gevent'), runners.new('gevent')
    full.begin(concurrency=2)
    full.wait_for_state(connection, 'started', 'idle')
    blockers = [queue.enqueue(jobs.wait_at_gate) for _ in range(2)]
    jobs.wait_for_notes(connection, 2)
    free.begin(concurrency=50)
    free.wait_for_state(connection, 'started', 'idle')

    quick = [queue.enqueue(jobs.add, number) for number in range(50)]

    wait_until(lambda: all(job.is_finished for job in quick), timeout=3)
    assert all(job.is_started for job in blockers)
    for job in quick:
        job.refresh()
    assert {job.worker_name for job in quick} == {free.worker_name}
    jobs.open_gate(connection, 2)
    wait_until(lambda: all(job.is_finished for job in blockers))
    full.stop()
    free.stop()


def test_jobs_claimed_ahead_are_put_back_when_they_cannot_start(runners: Runners, connection: redis.Redis) -> None:
    """A high turnover makes a worker claim ahead; then its slots are stuck, and what it has too many goes elsewhere."""
    queue = Queue(connection=connection)
    other = Queue('other', connection=connection)
    hasty, patient = runners('gevent'), runners.new('gevent')
    queue.enqueue_many([Queue.prepare_data(jobs.nothing) for _ in range(2000)])
    stuck = [queue.enqueue(jobs.wait_at_gate) for _ in range(60)]
    hasty.begin(concurrency=20)
    jobs.wait_for_notes(connection, 20)

    patient.begin(concurrency=40)

    jobs.wait_for_notes(connection, 60)
    assert all(job.is_started for job in stuck)
    assert other.is_empty()
    jobs.open_gate(connection, 60)
    wait_until(lambda: all(job.is_finished for job in stuck))
    hasty.stop()
    patient.stop()
    assert all(not json.loads(_interruptions(connection, job.id)) for job in stuck)


def test_what_was_parked_for_a_full_worker_goes_back(runners: Runners, connection: redis.Redis) -> None:
    """With several queues, each may park a job at the same moment, though only one slot is free."""
    names = ['a', 'b', 'c']
    queues = [Queue(name, connection=connection) for name in names]
    full, free = runners('gevent'), runners.new('gevent')
    full.begin(names, concurrency=1)
    full.wait_for_state(connection, 'started', 'idle')
    wait_until(lambda: _blocked_clients(connection) >= 3)
    with connection.pipeline() as pipeline:
        all_jobs = [queue.enqueue(jobs.wait_at_gate, pipeline=pipeline) for queue in queues]
        pipeline.execute()
    jobs.wait_for_notes(connection, 1)

    free.begin(names, concurrency=5)

    jobs.wait_for_notes(connection, 3, timeout=3)
    jobs.open_gate(connection, 3)
    wait_until(lambda: all(job.is_finished for job in all_jobs))
    full.stop()
    free.stop()


@pytest.mark.slow
def test_an_idle_worker_leaves_redis_alone(gevent_runner: Runner, connection: redis.Redis) -> None:
    """At most about a command per second and queue."""
    client: Any = connection
    names = ['a', 'b', 'c']
    gevent_runner.begin(names)
    gevent_runner.wait_for_state(connection, 'started', 'idle')
    first_maintenance = f'{gevent_runner.worker_name}: cleaning group registries'
    wait_until(lambda: _blocked_clients(connection) >= 3 and first_maintenance in gevent_runner.output)

    sent: list[str] = []
    with client.monitor() as monitor:
        # Ends the reading, which would wait for a command for long.
        threading.Timer(3, client.echo, ['over']).start()
        while not sent or sent[-1] != 'ECHO over':
            command = monitor.next_command()
            if command['client_type'] != 'lua':
                sent.append(command['command'])

    gevent_runner.stop()
    assert len(sent) <= 3 * len(names) + 1, sent


def test_an_idle_worker_is_quick_to_take_a_job(gevent_runner: Runner, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    gevent_runner.begin()
    gevent_runner.wait_for_state(connection, 'started', 'idle')
    latencies = []
    for _ in range(30):
        wait_until(lambda: _blocked_clients(connection) >= 1, interval=0.001)
        job = queue.enqueue(jobs.nothing)
        wait_until(lambda job=job: job.get_status() == JobStatus.FINISHED, interval=0.001)  # type: ignore[misc]
        job.refresh()
        assert job.started_at is not None and job.enqueued_at is not None
        latencies.append((job.started_at - job.enqueued_at).total_seconds())
    gevent_runner.stop()
    assert sorted(latencies)[15] < 0.025, latencies


def test_a_batch_larger_than_a_claim(gevent_runner: Runner, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    queue.enqueue_many([Queue.prepare_data(jobs.nap, (0.05,)) for _ in range(700)])
    ended = gevent_runner.run(concurrency=350)
    assert len(queue.finished_job_registry) == 700
    assert ended.seconds < 2


def _blocked_clients(connection: Any) -> int:
    return int(connection.info('clients')['blocked_clients'])


def _interruptions(connection: Any, job_id: str) -> bytes:
    found: bytes = connection.hget(keys.job(job_id), 'greenq_interruptions') or b'[]'
    return found
