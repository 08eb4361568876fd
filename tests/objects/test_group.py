"""Groups: who is a member, and how members and groups go."""

from __future__ import annotations

import pytest
import redis

from greenq.exceptions import NoSuchGroupError
from greenq.group import Group
from greenq.job import Job, JobStatus
from greenq.queue import Queue

prepare = Queue.prepare_data


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


def greet(name: str = 'you') -> str:
    return f'Hello, {name}'


def test_jobs_of_a_group_are_found_together(queue: Queue, connection: redis.Redis) -> None:
    group = Group.create(connection, name='letters')
    jobs = group.enqueue_many(queue, [prepare(greet, job_id='a'), prepare(greet, job_id='b', depends_on='a')])
    assert [job.id for job in jobs] == ['a', 'b']
    assert queue.job_ids == ['a']
    fetched = Group.fetch('letters', connection)
    assert sorted(job.id for job in fetched.get_jobs()) == ['a', 'b']
    assert {job.group_id for job in fetched.get_jobs()} == {'letters'}
    assert connection.smembers('rq:group:letters') == {b'a', b'b'}
    assert connection.smembers('rq:groups') == {b'letters'}


def test_names(connection: redis.Redis) -> None:
    assert repr(Group(connection, 'a')) == 'Group(id=a)'
    assert Group.get_key('a') == Group(connection, 'a').key == 'rq:group:a'
    assert Group.create(connection).name != Group.create(connection).name
    assert Group(name='a').connection is not None


def test_a_group_exists_as_long_as_it_has_jobs(queue: Queue, connection: redis.Redis) -> None:
    group = Group.create(connection, name='a')
    assert group.get_jobs() == group.enqueue_many(queue, []) == Group.all(connection) == []
    with pytest.raises(NoSuchGroupError, match='No such group: a'):
        Group.fetch('a', connection)
    (job,) = group.enqueue_many(queue, [prepare(greet)])
    assert [found.name for found in Group.all(connection)] == ['a']
    job.delete()
    assert Group.all(connection) == []
    assert connection.smembers('rq:groups') == set()


def test_jobs_that_expired_leave(queue: Queue, connection: redis.Redis) -> None:
    group = Group.create(connection)
    kept, gone, gone_too = group.enqueue_many(queue, [prepare(greet)] * 3)
    connection.delete(gone.key)
    assert group.get_jobs() == [kept] or set(group.get_jobs()) == {kept, gone_too}
    assert connection.sismember(group.key, gone.id) == 0
    connection.delete(gone_too.key)
    group.cleanup()
    assert connection.smembers(group.key) == {kept.id.encode()}


def test_deleting_from_a_group_keeps_the_job(queue: Queue, connection: redis.Redis) -> None:
    group = Group.create(connection)
    job, other = group.enqueue_many(queue, [prepare(greet)] * 2)
    with connection.pipeline() as pipeline:
        group.delete_job(job.id, pipeline=pipeline)
        assert len(group.get_jobs()) == 2
        pipeline.execute()
    assert group.get_jobs() == [other]
    assert Job.exists(job.id, connection)


def test_with_a_pipeline_nothing_happens_before_it_runs(queue: Queue, connection: redis.Redis) -> None:
    group = Group.create(connection)
    with connection.pipeline() as pipeline:
        (job,) = group.enqueue_many(queue, [prepare(greet)], pipeline=pipeline)
        assert connection.keys() == []
        pipeline.execute()
    assert group.get_jobs() == [job]
    assert queue.job_ids == [job.id]


def test_members_with_another_serializer(connection: redis.Redis) -> None:
    queue = Queue('work', connection=connection, serializer='json')
    group = Group(connection, serializer='json')
    group.enqueue_many(queue, [prepare(greet, ('Ann',))])
    assert [list(job.args) for job in group.get_jobs()] == [['Ann']]


def test_a_job_that_ran_in_place_and_was_not_kept_is_no_member(connection: redis.Redis) -> None:
    queue = Queue('work', connection=connection, is_async=False)
    group = Group.create(connection)
    jobs = group.enqueue_many(queue, [prepare(greet, result_ttl=0), prepare(greet)])
    assert {job.get_status(refresh=False) for job in jobs} == {JobStatus.FINISHED}
    assert group.get_jobs() == jobs[1:]


def test_maintenance(queue: Queue, connection: redis.Redis) -> None:
    empty, live = Group.create(connection, 'empty'), Group.create(connection, 'live')
    (gone,) = empty.enqueue_many(queue, [prepare(greet)])
    live.enqueue_many(queue, [prepare(greet)])
    connection.delete(gone.key)
    Group.clean_registries(connection)
    assert connection.smembers('rq:groups') == {b'live'}
    assert Group.acquire_maintenance_lock(connection, timeout=60)
    assert not Group.acquire_maintenance_lock(connection, timeout=60)
    assert 0 < connection.ttl('rq:clean_groups') <= 60
