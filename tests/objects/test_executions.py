"""Executions: their records in RQ's form, and the list of those of one job."""

from __future__ import annotations

import pytest
import redis

from greenq.executions import Execution, ExecutionRegistry
from greenq.job import Job
from greenq.store import keys
from greenq.utils import current_timestamp


@pytest.fixture
def job(connection: redis.Redis) -> Job:
    created = Job.create(len, ('abc',), id='j1', origin='default', connection=connection)
    created.save()
    return created


def begin(job: Job, ttl: int = 100, worker_name: str = 'w1') -> Execution:
    with job.connection.pipeline() as pipeline:
        execution = Execution.create(job, ttl, pipeline, worker_name)
        pipeline.execute()
    return execution


def test_an_execution_is_recorded_where_rq_looks_for_it(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    assert execution.key == keys.execution(f'j1:{execution.id}')
    assert connection.hgetall(execution.key) == {
        b'id': execution.id.encode(),
        b'job_id': b'j1',
        b'created_at': str(execution.created_at.timestamp()).encode(),
        b'last_heartbeat': str(execution.created_at.timestamp()).encode(),
        b'worker_name': b'w1',
    }
    now = current_timestamp()
    started = connection.zscore(keys.registry('started', 'default'), execution.composite_key)
    assert started == pytest.approx(now + 100, abs=5)
    assert connection.zscore(keys.executions('j1'), execution.id) == pytest.approx(now + 160, abs=5)
    assert connection.smembers(keys.worker_executions('w1')) == {execution.composite_key.encode()}
    assert 90 < connection.ttl(execution.key) <= 100
    assert 150 < connection.ttl(keys.executions('j1')) <= 160
    assert 150 < connection.ttl(keys.worker_executions('w1')) <= 160


def test_an_execution_is_read_back(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    fetched = Execution.fetch(execution.id, 'j1', connection)
    assert fetched == execution
    assert fetched != begin(job)
    assert (fetched.created_at, fetched.worker_name) == (execution.created_at, 'w1')
    assert fetched.last_heartbeat == execution.last_heartbeat
    assert fetched.job == job
    assert fetched.job is fetched.job
    assert Execution.from_composite_key(execution.composite_key, connection) == execution
    with pytest.raises(ValueError, match='Execution e1 of job j1 not found'):
        Execution.fetch('e1', 'j1', connection)


def test_old_records_lack_fields(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    connection.hdel(execution.key, 'worker_name', 'job_id')
    execution.refresh()
    assert (execution.worker_name, execution.job_id) == ('', 'j1')


def test_an_execution_without_a_worker_is_in_no_index(connection: redis.Redis, job: Job) -> None:
    begin(job, worker_name='')
    assert not list(connection.scan_iter(keys.worker_executions('*')))


def test_deleting_leaves_no_trace(connection: redis.Redis, job: Job) -> None:
    before = set(connection.keys())
    execution = begin(job)
    with connection.pipeline() as pipeline:
        execution.delete(job, pipeline)
        pipeline.execute()
    assert set(connection.keys()) == before


def test_a_heartbeat_extends_all_records(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    before = execution.last_heartbeat
    with connection.pipeline() as pipeline:
        execution.heartbeat(job.started_job_registry, 200, pipeline)
        pipeline.execute()
    assert Execution.fetch(execution.id, 'j1', connection).last_heartbeat > before
    now = current_timestamp()
    started = connection.zscore(keys.registry('started', 'default'), execution.composite_key)
    assert started == pytest.approx(now + 200, abs=5)
    assert 190 < connection.ttl(execution.key) <= 200
    assert 250 < connection.ttl(keys.executions('j1')) <= 260


def test_a_heartbeat_does_not_bring_back_what_has_ended(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    with connection.pipeline() as pipeline:
        execution.delete(job, pipeline)
        execution.heartbeat(job.started_job_registry, 200, pipeline)
        pipeline.execute()
    assert connection.zcard(keys.registry('started', 'default')) == 0
    assert job.get_executions() == []


def test_the_executions_of_a_job(connection: redis.Redis, job: Job) -> None:
    assert job.get_executions() == []
    executions = [begin(job, ttl) for ttl in (100, 200, 300)]
    registry = ExecutionRegistry('j1', connection)
    assert registry.get_execution_ids() == [execution.id for execution in executions]
    assert job.get_executions() == executions
    assert [execution.worker_name for execution in job.get_executions()] == ['w1'] * 3
    assert registry.get_executions(0, 0) == executions[:1]
    assert len(registry) == 3


def test_one_whose_record_has_expired_is_left_out(connection: redis.Redis, job: Job) -> None:
    gone, alive = begin(job), begin(job)
    connection.delete(gone.key)
    assert job.get_executions() == [alive]


def test_the_dead_are_dropped(connection: redis.Redis, job: Job) -> None:
    execution = begin(job)
    registry = job.execution_registry
    registry.cleanup()
    registry.cleanup(current_timestamp() + 100)
    assert registry.get_execution_ids() == [execution.id]
    registry.cleanup(current_timestamp() + 200)
    assert registry.count == 0


def test_deleting_the_registry_deletes_all(connection: redis.Redis, job: Job) -> None:
    before = set(connection.keys())
    begin(job)
    begin(job)
    with connection.pipeline() as pipeline:
        job.execution_registry.delete(job, pipeline)
        pipeline.execute()
    assert set(connection.keys()) == before
