"""Producers and the network: what is enqueued over a connection that loses the reply is in the queue once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from greenq import Queue, SimpleWorker
from greenq.connections import connect
from greenq.exceptions import DuplicateJobError, InvalidJobOperation
from greenq.job import JobStatus
from greenq.registry import FailedJobRegistry, ScheduledJobRegistry
from tests.connections import jobs
from tests.worker.proxy import Proxy


class StallingProxy(Proxy):
    """Keeps the reply back, and the connection open: the client has to give up by itself."""

    def _return(self, near: socket.socket, far: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if doomed.is_set():
                    self._dropped.set()
                else:
                    near.sendall(data)


Client = Callable[[Proxy], redis.Redis]


def _retrying(proxy: Proxy) -> redis.Redis:
    """As `redis.Redis(...)` of redis-py 6 and later, whatever version this is."""
    return redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 10))


def _default(proxy: Proxy) -> redis.Redis:
    host, _, port = proxy.url.removeprefix('redis://').partition(':')
    return redis.Redis(host=host, port=int(port), retry_on_error=[redis.ConnectionError])


@pytest.fixture
def proxy(connection: redis.Redis, server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


def _load_scripts(queue: Queue) -> None:
    """So that the enqueueing under test is one EVALSHA, not a NOSCRIPT and an EVAL."""
    queue.enqueue(jobs.add, 0, 0)
    queue.enqueue_in(timedelta(hours=1), jobs.add, 0, 0)


@pytest.mark.parametrize('make_client', [_retrying, _default])
@pytest.mark.parametrize('at_front', [False, True])
def test_a_client_that_tries_again_enqueues_once(
    connection: redis.Redis, proxy: Proxy, make_client: Client, at_front: bool
) -> None:
    with make_client(proxy) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        job = queue.enqueue(jobs.add, 1, 2, at_front=at_front)
        proxy.wait_until_dropped()
    assert Queue(connection=connection).job_ids == [job.id]
    assert job.get_status(refresh=False) == JobStatus.QUEUED


def test_a_client_that_never_tries_again_is_told_and_sends_once(connection: redis.Redis, proxy: Proxy) -> None:
    with redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        connection.config_resetstat()
        proxy.drop_reply_to(b'EVALSHA')
        with pytest.raises(redis.ConnectionError):
            queue.enqueue(jobs.add, 1, 2)
        proxy.wait_until_dropped()
    assert connection.info('commandstats')['cmdstat_evalsha']['calls'] == 1
    assert Queue(connection=connection).count == 1, 'only its reply was lost'


def test_a_refusal_is_raised_also_by_a_client_that_tries_again(connection: redis.Redis, proxy: Proxy) -> None:
    """Its first try must leave nothing that a second one would take for success."""
    _load_scripts(Queue('other', connection=connection))
    connection.set(Queue.redis_queue_namespace_prefix + 'broken', 'no list')
    known = connection.dbsize()
    with _retrying(proxy) as client:
        queue = Queue('broken', connection=client)
        for _ in range(2):
            with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
                queue.enqueue(jobs.add, 1, 2)
            with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
                queue.enqueue_many(Queue.prepare_data(jobs.add, (1, 2)) for _ in range(600))
            with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
                queue.enqueue(jobs.add, 1, 2, job_id='mine', unique=True)
    assert connection.dbsize() == known


def test_many_jobs_are_enqueued_once(connection: redis.Redis, proxy: Proxy) -> None:
    with _retrying(proxy) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        made = queue.enqueue_many([Queue.prepare_data(jobs.add, (1, number)) for number in range(10)])
        proxy.wait_until_dropped()
    assert Queue(connection=connection).job_ids == [job.id for job in made]


def test_a_scheduled_job_is_stored_once(connection: redis.Redis, proxy: Proxy) -> None:
    with _retrying(proxy) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        job = queue.enqueue_in(timedelta(hours=1), jobs.add, 1, 2)
        proxy.wait_until_dropped()
    assert ScheduledJobRegistry(connection=connection).get_job_ids() == [job.id]
    assert job.get_status(refresh=False) == JobStatus.SCHEDULED


def test_a_unique_job_is_no_duplicate_of_itself(connection: redis.Redis, proxy: Proxy) -> None:
    with _retrying(proxy) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        queue.enqueue(jobs.add, 1, 2, job_id='once', unique=True)
        proxy.wait_until_dropped()
    assert Queue(connection=connection).job_ids == ['once']


def test_a_client_that_never_tries_again_says_so_and_the_job_is_there_once(
    connection: redis.Redis, proxy: Proxy
) -> None:
    with connect(proxy.url, retry=Retry(NoBackoff(), 0)) as client:
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        with pytest.raises(redis.ConnectionError):
            queue.enqueue(jobs.add, 1, 2, job_id='told')
        # With a job's own id the producer can find out, or ask again without doubling it.
        assert Queue(connection=connection).job_ids == ['told']
        with pytest.raises(DuplicateJobError):
            queue.enqueue(jobs.add, 1, 2, job_id='told', unique=True)
    assert Queue(connection=connection).job_ids == ['told']


def test_a_stalled_reply_enqueues_once(connection: redis.Redis, server_url: str) -> None:
    patience = Retry(NoBackoff(), 3)
    with (
        StallingProxy(server_url) as proxy,
        redis.Redis.from_url(proxy.url, socket_timeout=0.3, retry=patience, retry_on_timeout=True) as client,
    ):
        queue = Queue(connection=client)
        _load_scripts(Queue('other', connection=connection))
        proxy.drop_reply_to(b'EVALSHA')
        job = queue.enqueue(jobs.add, 1, 2)
        proxy.wait_until_dropped()
    assert Queue(connection=connection).job_ids == [job.id]


def test_a_failed_job_is_requeued_once(connection: redis.Redis, proxy: Proxy) -> None:
    job = Queue(connection=connection).enqueue(jobs.fail)
    SimpleWorker(['default'], connection=connection).work(burst=True)
    registry = FailedJobRegistry(connection=connection)
    with _retrying(proxy) as client:
        proxy.drop_reply_to(b'EVALSHA')
        # The first look at the registry loads the script.
        with pytest.raises(InvalidJobOperation):
            registry.requeue(Queue(connection=connection).create_job(jobs.add, (1, 2)))
        assert FailedJobRegistry(connection=client).requeue(job.id).get_status(refresh=False) == JobStatus.QUEUED
        proxy.wait_until_dropped()
    assert Queue(connection=connection).job_ids == [job.id] and registry.get_job_ids() == []
    with pytest.raises(InvalidJobOperation):
        registry.requeue(job.id)
