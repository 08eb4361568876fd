"""Many jobs at once: few round trips, all or none built, and dependencies among them in any order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pickle import PicklingError
from typing import Any

import pytest
import redis

from greenq.exceptions import DuplicateJobError, UnserializableError
from greenq.job import Dependency, Job, JobStatus
from greenq.queue import EnqueueData, Queue
from greenq.rate_limit import RateLimit
from greenq.retry import Retry
from greenq.store import transitions
from tests.helpers import wait_until

prepare = Queue.prepare_data


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


def greet(name: str = 'you') -> str:
    return f'Hello, {name}'


def test_jobs_keep_their_order_and_options(queue: Queue, connection: redis.Redis) -> None:
    jobs = queue.enqueue_many(
        [
            prepare(greet, ('Ann',), job_id='a', timeout='1m', retry=Retry(2), meta={'x': 1}),
            prepare(greet, kwargs={'name': 'Bob'}, job_id='b', result_ttl=5),
            prepare(greet, job_id='c', at_front=True),
        ]
    )
    assert [job.id for job in jobs] == ['a', 'b', 'c']
    assert queue.job_ids == ['c', 'a', 'b']
    assert {job.get_status(refresh=False) for job in jobs} == {JobStatus.QUEUED}
    a, b = (Job.fetch(job_id, connection=connection) for job_id in 'ab')
    assert (a.args, a.timeout, a.retries_left, a.meta, a.origin) == (('Ann',), 60, 2, {'x': 1}, 'work')
    assert (b.kwargs, b.timeout, b.result_ttl) == ({'name': 'Bob'}, 180, 5)
    assert b.enqueued_at is not None
    assert Queue.all(connection) == [queue]


def test_nothing_at_all(queue: Queue, connection: redis.Redis) -> None:
    assert queue.enqueue_many([]) == []
    assert connection.keys() == []


def test_more_jobs_than_one_call_carries(queue: Queue) -> None:
    jobs = queue.enqueue_many(prepare(greet, (str(number),)) for number in range(1201))
    assert queue.job_ids == [job.id for job in jobs]
    assert queue.count == 1201


def test_one_bad_job_keeps_all_others_out(queue: Queue, connection: redis.Redis) -> None:
    with pytest.raises(ValueError, match="'same' appears more than once"):
        queue.enqueue_many([prepare(greet, job_id='same'), prepare(greet), prepare(greet, job_id='same')])
    with pytest.raises(ValueError, match='ttl must be greater than 0'):
        queue.enqueue_many([prepare(greet), prepare(greet, ttl=0)])
    with pytest.raises(UnserializableError):
        queue.enqueue_many([prepare(greet)] * 600 + [prepare(greet, (lambda: 0,))])
    with pytest.raises((TypeError, AttributeError, PicklingError)):
        queue.enqueue_many([prepare(greet)] * 600 + [prepare(greet, meta={'x': lambda: 0})])
    assert connection.keys() == []


def test_an_iterable_that_fails_midway_enqueues_nothing(queue: Queue, connection: redis.Redis) -> None:
    def broken() -> Iterator[EnqueueData]:
        yield prepare(greet)
        raise LookupError('database')

    with pytest.raises(LookupError):
        queue.enqueue_many(broken())
    assert connection.keys() == []


def test_an_iterator_is_streamed(queue: Queue) -> None:
    stored: list[int] = []

    def growing() -> Iterator[EnqueueData]:
        for number in range(2500):
            if number % 1000 == 999:
                stored.append(queue.count)
            yield prepare(greet, (str(number),), job_id=str(number))

    jobs = queue.enqueue_many(growing())
    assert 0 < stored[0] < 1000 and 1000 <= stored[1] < 2000, 'jobs are stored while others are still to come'
    assert queue.job_ids == [job.id for job in jobs] == [str(number) for number in range(2500)]


def test_an_iterator_may_use_the_only_connection_of_its_client(server_url: str, connection: redis.Redis) -> None:
    with redis.Redis.from_url(server_url, max_connections=1) as client:
        queue = Queue(connection=client)
        queue.enqueue_many(prepare(greet, (str(client.ping()),)) for _ in range(1100))
    assert Queue(connection=connection).count == 1100


def test_what_was_streamed_before_a_bad_job_stays(queue: Queue) -> None:
    def broken() -> Iterator[EnqueueData]:
        yield from (prepare(greet, job_id=str(number)) for number in range(1700))
        yield prepare(greet, ttl=0)

    with pytest.raises(ValueError, match='ttl must be greater than 0'):
        queue.enqueue_many(broken())
    stored = queue.job_ids
    assert 1000 <= len(stored) < 1700 and stored == [str(number) for number in range(len(stored))]


def test_jobs_that_depend_on_each_other_are_streamed_in_any_order(queue: Queue) -> None:
    def backwards() -> Iterator[EnqueueData]:
        for number in range(1200, 0, -1):
            yield prepare(greet, job_id=str(number), depends_on=[str(number - 1)])
        yield prepare(greet, job_id='0')

    queue.enqueue_many(backwards())
    assert queue.job_ids == ['0'] and queue.deferred_job_registry.count == 1200


def test_dependent_jobs_come_after_the_others(queue: Queue) -> None:
    parent = queue.enqueue(greet)
    jobs = queue.enqueue_many(
        data
        for data in [
            prepare(greet, job_id='ready', depends_on='nobody'),
            prepare(greet, job_id='waiting', depends_on=parent),
            prepare(greet, job_id='independent'),
        ]
    )
    assert [job.id for job in jobs] == ['independent', 'waiting', 'ready']
    assert [job.get_status(refresh=False).value for job in jobs] == ['queued', 'deferred', 'queued']
    assert queue.job_ids == [parent.id, 'independent', 'ready']
    assert queue.deferred_job_registry.get_job_ids() == ['waiting']


def test_jobs_may_depend_on_each_other_in_any_order(queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue_many(
        [
            prepare(greet, job_id='last', depends_on=['middle', 'first']),
            prepare(greet, job_id='middle', depends_on='first'),
            prepare(greet, job_id='first'),
        ]
    )
    assert queue.job_ids == ['first']
    Job.fetch('first', connection=connection).set_status(JobStatus.FINISHED)
    assert queue.enqueue_dependents(Job.fetch('first', connection=connection)) == {'work': ['middle']}


def test_a_circle_of_dependencies_is_refused(queue: Queue, connection: redis.Redis) -> None:
    with pytest.raises(ValueError, match=r'depend on each other in a circle: .*a.*b'):
        queue.enqueue_many([prepare(greet, job_id='a', depends_on='b'), prepare(greet, job_id='b', depends_on='a')])
    assert connection.keys() == []


def test_at_front_holds_for_dependent_jobs(queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(greet, job_id='parent')
    queue.enqueue_many(
        [
            prepare(greet, job_id='by option', depends_on='nobody', at_front=True)._replace(job_id='by-option'),
            prepare(greet, job_id='by-dependency', depends_on=Dependency('nobody', enqueue_at_front=True)),
            prepare(greet, job_id='later', depends_on='parent', at_front=True),
        ]
    )
    assert queue.job_ids == ['by-dependency', 'by-option', 'parent']
    parent = Job.fetch('parent', connection=connection)
    parent.set_status(JobStatus.FINISHED)
    queue.enqueue_dependents(parent)
    assert queue.job_ids[0] == 'later'


def test_deferred_jobs_expire_after_their_ttl(queue: Queue, connection: redis.Redis) -> None:
    parent = queue.enqueue(greet)
    (job,) = queue.enqueue_many([prepare(greet, depends_on=parent, ttl=50)])
    assert 0 < connection.ttl(job.key) <= 50


def test_unique_jobs_that_exist_are_named_and_the_others_enqueued(queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(greet, 'Ann', job_id='a')
    with pytest.raises(DuplicateJobError, match='already exist: a; the other 2 were enqueued'):
        queue.enqueue_many(
            [prepare(greet, job_id='a', unique=True), prepare(greet, job_id='b', unique=True), prepare(greet)]
        )
    assert queue.job_ids[:2] == ['a', 'b']
    assert queue.count == 3
    assert Job.fetch('a', connection=connection).args == ('Ann',)


def test_rate_limits(queue: Queue) -> None:
    limit = RateLimit('k', 2)
    jobs = queue.enqueue_many(prepare(greet, rate_limit=limit) for _ in range(4))
    assert [job.get_status(refresh=False).value for job in jobs] == ['queued'] * 2 + ['rate_limited'] * 2
    assert queue.job_ids == [job.id for job in jobs[:2]]


def test_with_a_pipeline_nothing_happens_before_it_runs(queue: Queue, connection: redis.Redis) -> None:
    parent = queue.enqueue(greet)
    with connection.pipeline() as pipeline:
        jobs = queue.enqueue_many(
            [
                prepare(greet, job_id='a'),
                prepare(greet, job_id='b', depends_on=parent),
                prepare(greet, job_id='c', depends_on='a'),
            ],
            pipeline=pipeline,
        )
        assert [job.get_status(refresh=False).value for job in jobs] == ['queued', 'deferred', 'deferred']
        assert queue.job_ids == [parent.id]
        pipeline.execute()
    assert queue.job_ids == [parent.id, 'a']
    assert queue.deferred_job_registry.get_job_ids() == ['b', 'c']


def test_what_a_pipeline_excludes(queue: Queue, connection: redis.Redis) -> None:
    with connection.pipeline() as pipeline:
        with pytest.raises(ValueError, match="unique=True cannot be used with a pipeline, as for 'a'"):
            queue.enqueue_many([prepare(greet, job_id='a', unique=True)], pipeline=pipeline)
        with pytest.raises(ValueError, match='cannot be enqueued with a pipeline'):
            queue.enqueue_many([prepare(greet, rate_limit=RateLimit('k', 1))], pipeline=pipeline)
        with pytest.raises(ValueError, match='appears more than once'):
            queue.enqueue_many([prepare(greet, job_id='a')] * 2, pipeline=pipeline)
        pipeline.execute()
    assert connection.keys() == []


def test_in_place(connection: redis.Redis) -> None:
    queue = Queue('work', connection=connection, is_async=False)
    jobs = queue.enqueue_many([prepare(greet, job_id='b', depends_on='a'), prepare(greet, ('Ann',), job_id='a')])
    assert [(job.id, job.return_value()) for job in jobs] == [('a', 'Hello, Ann'), ('b', 'Hello, you')]


# ---- what is under way ----


def _lose(pool: Any) -> None:
    """Has the connection end whose reply is awaited."""
    (connection,) = pool._in_use_connections
    connection._sock.shutdown(socket.SHUT_RDWR)


def _submissions(queue: Queue, count: int) -> list[Any]:
    return [queue.create_job(greet, job_id=f'j{number}').to_submission() for number in range(count)]


def test_a_call_under_way_is_answered(queue: Queue) -> None:
    finish = transitions.enqueue_ahead(queue.connection, queue.name, _submissions(queue, 3))
    assert finish() == ['queued'] * 3
    assert queue.job_ids == ['j0', 'j1', 'j2']


def test_a_call_whose_reply_is_lost_is_carried_out_once(queue: Queue) -> None:
    finish = transitions.enqueue_ahead(queue.connection, queue.name, _submissions(queue, 3))
    with redis.Redis.from_pool(redis.ConnectionPool(**_settings(queue))) as other:
        wait_until(lambda: other.llen(queue.key) == 3)
    _lose(queue.connection.connection_pool)
    assert finish() == ['queued'] * 3
    assert queue.job_ids == ['j0', 'j1', 'j2']


def test_a_call_that_finds_no_server_raises(queue: Queue) -> None:
    lonely = redis.Redis(unix_socket_path='/nowhere/redis.sock', retry=None)  # type: ignore[arg-type]
    with pytest.raises(redis.ConnectionError):
        transitions.enqueue_ahead(lonely, queue.name, _submissions(queue, 1))()
    with pytest.raises(redis.ConnectionError):
        Queue('q', connection=lonely).enqueue_many([prepare(greet)] * 1200)


def test_a_server_that_forgot_the_scripts_gets_them_again(queue: Queue) -> None:
    queue.connection.script_flush()
    assert len(queue.enqueue_many([prepare(greet)] * 1200)) == len(queue) == 1200


def test_a_client_of_a_class_of_its_own_sees_every_command(queue: Queue) -> None:
    seen = []

    class Watched(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    watched = Watched.from_pool(redis.ConnectionPool(**_settings(queue)))
    Queue('work', connection=watched).enqueue_many([prepare(greet)] * 1200)
    assert {'EVALSHA', 'EVAL'} >= set(seen) and len(seen) >= 3
    assert len(queue) == 1200
    watched.close()


def test_a_refusal_ends_the_call_and_leaves_no_connection_in_use(queue: Queue) -> None:
    queue.connection.set(queue.key, 'no list')
    with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
        queue.enqueue_many([prepare(greet)] * 1200)
    pool: Any = queue.connection.connection_pool
    assert not pool._in_use_connections
    queue.connection.delete(queue.key)


def _settings(queue: Queue) -> dict[str, Any]:
    pool: Any = queue.connection.connection_pool
    return {'connection_class': pool.connection_class, 'path': pool.connection_kwargs['path']}


def test_a_group_of_one(queue: Queue, connection: redis.Redis) -> None:
    (job,) = queue.enqueue_many([Queue.prepare_data(print)], group_id='alone')
    assert job.get_status(refresh=False) == job.get_status() == JobStatus.QUEUED
    assert queue.job_ids == [job.id]
