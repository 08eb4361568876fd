"""Sentinel: a real failover, with a worker that lives through it and a producer that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel

from greenq import Queue
from greenq.command import send_stop_job_command
from greenq.job import Job, JobStatus
from tests.connections import jobs
from tests.connections.commands import running_worker
from tests.connections.servers import Watched, needs_server, watched
from tests.helpers import WorkerProcess, wait_until

pytestmark = [needs_server, pytest.mark.slow]

#: Seconds after a failover within which new jobs have to run.
RECOVERY_SECONDS = 15


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Watched]:
    with watched(tmp_path) as group:
        yield group


@pytest.fixture
def settings(group: Watched, tmp_path: Path) -> Path:
    file = tmp_path / 'settings.py'
    file.write_text(
        f"SENTINEL = {{'INSTANCES': {group.instances!r}, 'MASTER_NAME': 'mymaster', 'SOCKET_TIMEOUT': 2}}\n"
    )
    return file


@pytest.fixture
def producer(group: Watched) -> Iterator[redis.Redis]:
    sentinel: Any = Sentinel(group.instances, socket_timeout=2)  # type: ignore[no-untyped-call]
    client = sentinel.master_for('mymaster')
    yield client
    client.close()
    for watcher in sentinel.sentinels:
        watcher.close()


def _enqueue_when_possible(queue: Queue, *call: Any) -> Job:
    """A producer's own patience: there is no master for a moment."""
    made: list[Job] = []

    def enqueue() -> bool:
        try:
            made.append(queue.enqueue(*call))
        except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError):
            return False
        return True

    wait_until(enqueue, 20, 0.1, description='a master takes the job')
    return made[0]


def _wait_for(job: Job, status: JobStatus) -> None:
    wait_until(
        lambda: _status(job) == status, RECOVERY_SECONDS, 0.05, description=f'{job.func_name}{job.args} is {status}'
    )


def _status(job: Job) -> JobStatus | None:
    try:
        return job.get_status()
    except (redis.ConnectionError, redis.TimeoutError):
        return None


def _assert_works_on(worker: WorkerProcess, queue: Queue) -> None:
    """It runs jobs, and obeys commands."""
    _wait_for(_enqueue_when_possible(queue, jobs.add, 2, 2), JobStatus.FINISHED)
    sleeper = _enqueue_when_possible(queue, jobs.sleep, 60)
    _wait_for(sleeper, JobStatus.STARTED)

    def stopped() -> bool:
        # A command that comes before the worker has subscribed again is lost, as it is with RQ.
        if _status(sleeper) == JobStatus.STARTED:
            send_stop_job_command(queue.connection, sleeper.id)
        return _status(sleeper) == JobStatus.STOPPED

    wait_until(stopped, RECOVERY_SECONDS, 0.2, description='the worker obeys a command')
    assert worker.process.poll() is None


@pytest.mark.parametrize('worker_class', ['greenq.GeventWorker', 'greenq.Worker', 'greenq.SpawnWorker'])
def test_a_killed_master_is_survived(group: Watched, settings: Path, producer: redis.Redis, worker_class: str) -> None:
    queue = Queue(connection=producer)
    with running_worker('-c', str(settings), '-w', worker_class, env={'GREENQ_REDIS_URL': None}) as worker:
        _wait_for(queue.enqueue(jobs.add, 1, 1), JobStatus.FINISHED)
        old = group.master()
        old.kill()
        group.wait_for_other_master(old)
        _assert_works_on(worker, queue)


def test_a_switch_of_masters_is_survived_with_jobs_in_flight(
    group: Watched, settings: Path, producer: redis.Redis
) -> None:
    queue = Queue(connection=producer)
    arguments = ('-c', str(settings), '-w', 'greenq.GeventWorker')
    with running_worker(*arguments, env={'GREENQ_REDIS_URL': None}) as worker:
        in_flight = queue.enqueue(jobs.sleep, 3)
        _wait_for(in_flight, JobStatus.STARTED)
        old = group.master()
        with group.sentinels[0].client() as sentinel:
            sentinel.execute_command('SENTINEL', 'FAILOVER', 'mymaster')
        group.wait_for_other_master(old)
        assert old.process.poll() is None
        _assert_works_on(worker, queue)
        _wait_for(in_flight, JobStatus.FINISHED)
