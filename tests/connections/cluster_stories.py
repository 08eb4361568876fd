"""What a producer does on Redis Cluster; each function runs in an interpreter that has RQ_KEY_PREFIX={app}."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from redis import ConnectionError, RedisCluster, TimeoutError

from greenq import Queue, Retry, Worker
from greenq.command import send_stop_job_command
from greenq.defaults import RQ_KEY_PREFIX
from greenq.exceptions import ConfigurationError
from greenq.job import Job, JobStatus
from greenq.registry import FailedJobRegistry, FinishedJobRegistry
from greenq.results import Result
from tests.connections import jobs
from tests.connections.servers import move_slot
from tests.helpers import wait_until


def _connect(url: str) -> Any:
    return RedisCluster.from_url(url)


def _wait_for(job: Job, status: JobStatus, timeout: float = 20) -> None:
    wait_until(lambda: job.get_status() == status, timeout, description=f'{job.func_name} is {status}')


def features(url: str) -> None:
    """All that a worker has to do for the features that touch several keys."""
    assert RQ_KEY_PREFIX == '{app}'
    cluster = _connect(url)
    queue = Queue(connection=cluster)
    plain = queue.enqueue(jobs.add, 2, 3)
    dependent = queue.enqueue(jobs.add, 1, 1, depends_on=plain)
    soon = queue.enqueue_in(timedelta(seconds=1), jobs.add, 4, 4)
    several = queue.enqueue_many([Queue.prepare_data(jobs.add, (number, 1)) for number in range(10)])
    again = queue.enqueue(jobs.fails_once)
    failing = queue.enqueue(jobs.fail, retry=Retry(max=1))
    for job in (plain, dependent, soon, again, *several):
        _wait_for(job, JobStatus.FINISHED)
    _wait_for(failing, JobStatus.FAILED)

    assert plain.return_value() == 5
    assert again.return_value() == 'second attempt'
    assert [job.return_value() for job in several] == [number + 1 for number in range(10)]
    assert failing.id in FailedJobRegistry(connection=cluster)
    latest = Job.fetch(failing.id, connection=cluster).latest_result()
    assert latest is not None and latest.type == Result.Type.FAILED
    assert plain.id in FinishedJobRegistry(connection=cluster)
    assert Job(id=plain.id, connection=cluster).exists(plain.id, connection=cluster)

    failing.requeue()
    _wait_for(failing, JobStatus.FAILED)
    sleeper = queue.enqueue(jobs.sleep, 60)
    _wait_for(sleeper, JobStatus.STARTED)
    send_stop_job_command(cluster, sleeper.id)
    _wait_for(sleeper, JobStatus.STOPPED)


def survey(url: str) -> None:
    """Workers, queues and keys as others see them."""
    cluster = _connect(url)
    queue = Queue('survey', connection=cluster)
    with queue.connection.pipeline() as pipeline:
        job = queue.enqueue(jobs.add, 1, 1, pipeline=pipeline)
        pipeline.execute()
    assert queue.job_ids == [job.id]
    assert [item.name for item in Queue.all(connection=cluster)] == ['survey']
    assert Worker.all(connection=cluster) == []
    assert queue.empty() == 1
    assert {key[:5] for key in cluster.scan_iter()} <= {b'{app}'}


def refused(url: str) -> None:
    """Without a hash tag the keys would be spread over the nodes."""
    cluster = _connect(url)
    for attempt in (Queue, Worker.all, Job):
        try:
            attempt(connection=cluster)
        except ConfigurationError as error:
            assert str(error).startswith("on Redis Cluster RQ_KEY_PREFIX needs a hash tag, which 'app' lacks"), error
            assert str(error).endswith("for example RQ_KEY_PREFIX='{rq}'"), error
        else:
            raise AssertionError(f'{attempt} takes the client')


def one_client(url: str) -> None:
    """However many objects are made with it, a cluster client has one client of greenq's, with one pool."""
    cluster = _connect(url)
    assert Queue('a', connection=cluster).connection is Queue('b', connection=cluster).connection
    assert Job(connection=cluster).connection is Queue(connection=cluster).connection


def move(url: str) -> None:
    """The slot goes to another node between two calls of a client, and the producer does not notice."""
    cluster = _connect(url)
    queue = Queue('moved', connection=cluster)
    before = queue.enqueue(jobs.sleep, 0.2)
    give_slot_away(cluster)
    after = queue.enqueue(jobs.add, 2, 2)
    with queue.connection.pipeline() as pipeline:
        piped = queue.enqueue(jobs.add, 3, 3, pipeline=pipeline)
        give_slot_away(cluster)
        pipeline.execute()
    for job in (before, after, piped):
        _wait_for(job, JobStatus.FINISHED)


def give_slot_away(cluster: Any) -> None:
    """From the node that has greenq's keys to another one."""
    # Any command for the key makes this client learn the owner.
    cluster.exists(RQ_KEY_PREFIX)
    owner = cluster.get_node_from_key(RQ_KEY_PREFIX)
    other = next(node for node in cluster.get_primaries() if node.name != owner.name)
    move_slot(
        RQ_KEY_PREFIX,
        cluster.get_redis_connection(owner),
        cluster.get_redis_connection(other),
        [cluster.get_redis_connection(node) for node in cluster.get_primaries()],
    )


def outlives_failover(url: str) -> None:
    """Kills the node that has the keys, and enqueues as soon as the cluster has another."""
    cluster = _connect(url)
    queue = Queue('failover', connection=cluster)
    _wait_for(queue.enqueue(jobs.add, 1, 1), JobStatus.FINISHED)
    owner = cluster.get_node_from_key(RQ_KEY_PREFIX)
    os.kill(cluster.get_redis_connection(owner).info('server')['process_id'], signal.SIGKILL)
    late: list[Job] = []
    wait_until(lambda: _try_to_enqueue(queue, late), 20, description='the cluster takes jobs again')
    _wait_for(late[0], JobStatus.FINISHED, timeout=15)


def _try_to_enqueue(queue: Queue, jobs_made: list[Job]) -> bool:
    try:
        jobs_made.append(queue.enqueue(jobs.add, 2, 2))
    except (ConnectionError, TimeoutError):
        return False
    return True
