"""Workers as others see them in Redis."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
import redis

from greenq import Queue, SimpleWorker, Worker
from greenq.store import keys
from greenq.worker import WorkerStatus
from greenq.worker.record import WorkerRecord
from tests.worker.jobs import add


@pytest.fixture
def registered(connection: redis.Redis) -> list[SimpleWorker]:
    workers = [
        SimpleWorker(['a', 'b'], connection=connection, name='one'),
        SimpleWorker(['b'], connection=connection, name='two'),
    ]
    for worker in workers:
        worker.register_birth()
    return workers


def _names(workers: list[Worker]) -> list[str]:
    return sorted(worker.name for worker in workers)


def test_all_workers(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    a, b = Queue('a', connection=connection), Queue('b', connection=connection)
    assert _names(Worker.all(connection=connection)) == ['one', 'two']
    assert _names(Worker.all(queue=a)) == ['one']
    assert _names(Worker.all(queue=b)) == ['one', 'two']
    assert sorted(Worker.all_keys(connection=connection)) == [keys.worker('one'), keys.worker('two')]
    assert Worker.all_keys(queue=a) == [keys.worker('one')]
    assert (Worker.count(connection=connection), Worker.count(queue=a), Worker.count(queue=b)) == (2, 1, 2)


def test_the_default_connection(registered: list[SimpleWorker]) -> None:
    assert Worker.count() == 2
    assert _names(Worker.all()) == ['one', 'two']


def test_a_workers_record(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    found = Worker.find_by_key(keys.worker('one'), connection=connection)
    assert found is not None
    assert isinstance(found, Worker)
    assert found.queue_names() == ['a', 'b']
    assert found.queue_keys() == [keys.queue('a'), keys.queue('b')]
    assert (found.pid, found.hostname) == (os.getpid(), registered[0].hostname)
    assert found.birth_date is not None and found.last_heartbeat is not None
    assert datetime.now(UTC) - found.birth_date < timedelta(seconds=10)
    assert found.death_date is None and found.shutdown_requested_date is None
    assert (found.successful_job_count, found.failed_job_count, found.total_working_time) == (0, 0, 0)


def test_who_is_gone_is_not_found(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    registered[0].register_death()
    assert _names(Worker.all(connection=connection)) == ['two']
    assert _names(Worker.all(queue=Queue('b', connection=connection))) == ['two']
    dead = Worker.find_by_key(keys.worker('one'), connection=connection)
    assert dead is not None and dead.death_date is not None
    assert 0 < connection.ttl(dead.key) <= 60

    connection.delete(keys.worker('two'))
    assert Worker.all(connection=connection) == []
    assert Worker.find_by_key(keys.worker('two'), connection=connection) is None
    assert Worker.all_keys(connection=connection) == []


def test_a_key_of_something_else(connection: redis.Redis) -> None:
    with pytest.raises(ValueError, match='Not a valid RQ worker key'):
        Worker.find_by_key('rq:queue:default', connection=connection)


def test_states(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    worker = registered[0]
    for state in WorkerStatus:
        worker.set_state(state)
        found = Worker.find_by_key(worker.key, connection=connection)
        assert found is not None and found.get_state() == worker.get_state() == state
    with pytest.warns(DeprecationWarning):
        assert worker.state == WorkerStatus.IDLE
    with pytest.warns(DeprecationWarning):
        worker.state = WorkerStatus.BUSY
    assert worker.get_state() == WorkerStatus.BUSY


def test_what_another_workers_works_on(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    job = Queue('a', connection=connection).enqueue(add, 1)
    [claimed] = registered[0]._claim(1) or []
    registered[0]._begin(claimed)

    other = Worker.find_by_key(keys.worker('one'), connection=connection)

    assert other is not None
    assert other.get_state() == WorkerStatus.BUSY
    assert other.get_current_job_id() == job.id
    assert other.get_current_job() == job
    assert other.current_execution_count == 1
    [execution] = other.get_current_executions()
    assert (execution.job_id, execution.id) == (job.id, claimed.execution_id)
    assert other.execution == execution
    idle = Worker.find_by_key(keys.worker('two'), connection=connection)
    assert idle is not None and idle.get_current_job() is None and idle.execution is None


def test_statistics_are_counted(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    worker = registered[0]
    worker.increment_successful_job_count()
    worker.increment_failed_job_count()
    worker.increment_failed_job_count()
    worker.increment_total_working_time(timedelta(seconds=1.5))
    worker.refresh()
    assert (worker.successful_job_count, worker.failed_job_count, worker.total_working_time) == (1, 2, 1.5)


def test_workers_are_compared_by_name(registered: list[SimpleWorker], connection: redis.Redis) -> None:
    one, two = registered
    assert one == SimpleWorker([], connection=connection, name='one') and one != two
    assert len({one, SimpleWorker([], connection=connection, name='one')}) == 1
    with pytest.raises(TypeError):
        assert one == 'one'


def test_a_queue_that_is_none_is_refused(connection: redis.Redis) -> None:
    with pytest.raises(TypeError):
        Worker([Queue('a', connection=connection), 3], connection=connection)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('options', 'reason'), [({'on_lost': 'cry'}, "on_lost 'cry' is not allowed"), ({'serializer': 'no.such'}, 'no')]
)
def test_settings_that_make_no_sense(connection: redis.Redis, options: dict[str, str], reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        Worker(['a'], connection=connection, **options)  # type: ignore[arg-type]


def test_names(connection: redis.Redis) -> None:
    names = {Worker(['a'], connection=connection).name for _ in range(10)}
    assert len(names) == 10
    assert issubclass(Worker, WorkerRecord)
