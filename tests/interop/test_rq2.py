"""RQ 2.12 and greenq on one server: each produces for the other's workers, and both read the same of every job.

RQ 2.12 has no rate limits, ready registry or key prefix; whatever else it has is here. Every step runs in a process of
its package; nothing of RQ 3 takes part.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from greenq.store import keys
from tests.helpers import wait_until
from tests.interop.rq2_sides import VERSION, NotInstallable, Side, environment_of_rq2

WORKER = 'worker-1'


@pytest.fixture(scope='module')
def sides(server_url: str) -> Iterator[dict[str, Side]]:
    """An agent of each package."""
    try:
        python = environment_of_rq2()
    except NotInstallable as problem:
        pytest.skip(f'rq {VERSION} cannot be installed here: {problem}')
    made = {'rq': Side('rq', python, server_url), 'greenq': Side('greenq', Path(sys.executable), server_url)}
    yield made
    for side in made.values():
        side.close()


@pytest.fixture(params=[('rq', 'greenq'), ('greenq', 'rq')], ids=['rq 2 to greenq', 'greenq to rq 2'])
def pair(request: pytest.FixtureRequest, sides: dict[str, Side]) -> tuple[Side, Side]:
    """Producer and consumer."""
    producer, consumer = request.param
    return sides[producer], sides[consumer]


@pytest.fixture
def producer(pair: tuple[Side, Side]) -> Side:
    return pair[0]


@pytest.fixture
def consumer(pair: tuple[Side, Side]) -> Side:
    return pair[1]


def read(job_id: str, *sides: Side) -> dict[str, Any]:
    """What both sides read of a job, which is the same."""
    one, other = (side.read_job(job_id) for side in sides)
    assert one == other
    return dict(one)


def test_the_versions(sides: dict[str, Side]) -> None:
    assert sides['rq'].version() == VERSION


def test_a_job_and_its_result(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    options: dict[str, Any] = {'description': 'adds', 'meta': {'a': [1]}, 'result_ttl': 90, 'failure_ttl': 80}
    job = producer.enqueue('add', 1, b=2, job_timeout='2m', ttl=70, **options)
    waiting = read(job, producer, consumer)
    assert waiting['status'] == 'queued' and waiting['timeouts'] == [120, 90, 80, 70]
    assert waiting['call'] == ['tests.interop.rq2_jobs.add', [1], {'b': 2}]
    assert consumer.work(name=WORKER) == [['add', 1, 2]]
    done = read(job, producer, consumer)
    assert done['status'] == 'finished' and done['results'] == [['SUCCESSFUL', 3]] and done['value'] == 3
    assert (done['description'], done['meta'], done['worker']) == ('adds', {'a': [1]}, WORKER)
    assert done['has_times'] == [True, True, True]
    assert producer.read_registries() == consumer.read_registries() == {'finished': [job]}


def test_front_of_the_queue_and_other_queues(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    producer.enqueue('add', 1)
    producer.enqueue('add', 2, at_front=True)
    producer.enqueue('add', 3, queue='high')
    assert producer.read_queues() == consumer.read_queues() == ['default', 'high']
    assert [call[1] for call in consumer.work('high', 'default', name=WORKER)] == [3, 2, 1]


def test_a_failure_and_its_requeue(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('divide', on_failure='note_failure')
    assert consumer.work(name=WORKER) == [['divide'], ['failure', job, 'ZeroDivisionError']]
    failed = read(job, producer, consumer)
    assert failed['status'] == 'failed' and failed['last_lines'] == [['ZeroDivisionError: division by zero']]
    assert producer.read_registries() == consumer.read_registries() == {'failed': [job]}
    producer.requeue(job)
    assert read(job, producer, consumer)['status'] == 'queued'
    assert producer.read_registries() == {'queue': [job]}
    assert len(consumer.work(name=WORKER)) == 2
    assert len(read(job, producer, consumer)['results']) == 2


def test_a_success_callback_and_metadata(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('note_meta', meta={'old': 1}, on_success='note_success', on_stopped='note_stopped')
    assert consumer.work(name=WORKER) == [['success', job, {'old': 1, 'seen': True}]]
    done = read(job, producer, consumer)
    assert done['meta'] == {'old': 1, 'seen': True}
    assert [str(name).rpartition('.')[2] for name in done['callbacks']] == ['note_success', 'None', 'note_stopped']


def test_retries_shared_by_both(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('divide', retry={'max': 2})
    for side, left in ((consumer, 1), (producer, 0)):
        assert side.work(name=WORKER, max_jobs=1) == [['divide']]
        assert read(job, producer, consumer)['retries'][0] == left
        assert producer.read_registries() == {'queue': [job]}
    assert consumer.work(name=WORKER) == [['divide']]
    assert read(job, producer, consumer)['status'] == 'failed'


def test_a_retry_that_succeeds(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('fail_at_first', retry={'max': 3})
    assert len(consumer.work(name=WORKER)) == 2
    done = read(job, producer, consumer)
    assert (done['status'], done['value'], done['retries'][0]) == ('finished', 2, 2)


def test_a_delayed_retry_waits_for_the_others_scheduler(
    connection: redis.Redis, producer: Side, consumer: Side
) -> None:
    job = producer.enqueue('divide', retry={'max': 1, 'interval': [50]})
    consumer.work(name=WORKER)
    assert read(job, producer, consumer)['status'] == 'scheduled'
    assert producer.read_registries() == consumer.read_registries() == {'scheduled': [job]}
    connection.zadd(keys.registry('scheduled', 'default'), {job: 1})
    assert producer.work(name=WORKER, with_scheduler=True) == [['divide']]
    assert read(job, producer, consumer)['status'] == 'failed'


def test_a_returned_retry(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('ask_again')
    assert consumer.work(name=WORKER) == [['ask_again'], ['ask_again']]
    for side in (producer, consumer):
        found = side.read_job(job)
        assert found['status'] == 'failed'
        retry = f'{side.package}.Retry'
        assert found['results'] == [['MAX_RETRIES_EXCEEDED', retry], ['RETRIED', retry]]


def test_an_object_of_the_package_as_an_argument(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue_retry_as_argument(3)
    consumer.work(name=WORKER)
    for side in (producer, consumer):
        found = side.read_job(job)
        assert found['call'][1] == [f'{side.package}.Retry'] and found['value'] == [consumer.package, 3]


def test_repeats(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('add', 1, repeat={'times': 2})
    for side, left in ((consumer, 1), (producer, 0)):
        assert side.work(name=WORKER, max_jobs=1) == [['add', 1, 0]]
        assert read(job, producer, consumer)['repeats'][0] == left
    assert consumer.work(name=WORKER) == [['add', 1, 0]]
    assert read(job, producer, consumer)['status'] == 'finished'
    assert consumer.work(name=WORKER) == []


def test_a_delayed_repeat(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('add', 1, repeat={'times': 1, 'interval': 60})
    consumer.work(name=WORKER)
    assert read(job, producer, consumer)['status'] == 'scheduled'
    connection.zadd(keys.registry('scheduled', 'default'), {job: 1})
    assert producer.work(name=WORKER, with_scheduler=True) == [['add', 1, 0]]
    assert read(job, producer, consumer)['status'] == 'finished'


def test_dependents(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    parents = [producer.enqueue('add', number) for number in range(2)]
    child = producer.enqueue('add', 10, depends_on=parents)
    failing = producer.enqueue('divide')
    strict = producer.enqueue('add', 20, depends_on=failing)
    tolerant = producer.enqueue('add', 30, depends_on={'jobs': [failing], 'allow_failure': True})
    assert read(child, producer, consumer)['dependencies'] == sorted(parents)
    waiting = sorted([child, strict, tolerant])
    assert producer.read_registries()['deferred'] == consumer.read_registries()['deferred'] == waiting
    calls = consumer.work(name=WORKER, max_jobs=1)
    calls += producer.work(name=WORKER, max_jobs=1)
    calls += consumer.work(name=WORKER)
    assert [call[1] for call in calls if call != ['divide']] == [0, 1, 10, 30]
    assert producer.read_registries()['deferred'] == [strict]
    assert read(strict, producer, consumer)['status'] == 'deferred'


def test_a_dependent_of_another_queue(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    parent = producer.enqueue('add', 1)
    child = producer.enqueue('add', 2, depends_on=parent, queue='other')
    consumer.work(name=WORKER)
    assert producer.read_registries('other') == consumer.read_registries('other') == {'queue': [child]}
    assert producer.work('other', name=WORKER) == [['add', 2, 0]]


def test_canceling_releases_dependents(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    parent = producer.enqueue('add', 1)
    child = producer.enqueue('add', 2, depends_on=parent)
    consumer.cancel(parent, enqueue_dependents=True)
    assert producer.read_registries() == consumer.read_registries() == {'canceled': [parent], 'queue': [child]}
    assert producer.work(name=WORKER) == [['add', 2, 0]]
    assert read(parent, producer, consumer)['status'] == 'canceled'


def test_deleting_the_others_job(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    kept, deleted = producer.enqueue('add', 1), producer.enqueue('add', 2)
    consumer.delete(deleted)
    assert producer.read_registries() == {'queue': [kept]}
    assert producer.work(name=WORKER) == [['add', 1, 0]]


def test_scheduled_jobs(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    due, later = producer.enqueue_in(100, 'add', 1), producer.enqueue_in(100, 'add', 2)
    assert producer.read_registries() == consumer.read_registries() == {'scheduled': sorted([due, later])}
    connection.zadd(keys.registry('scheduled', 'default'), {due: 1})
    assert consumer.work(name=WORKER, with_scheduler=True) == [['add', 1, 0]]
    assert producer.read_registries() == {'finished': [due], 'scheduled': [later]}
    assert read(due, producer, consumer)['status'] == 'finished'


def test_groups(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    name = producer.enqueue_group(3)
    assert producer.read_group(name) == consumer.read_group(name)
    assert set(consumer.read_group(name).values()) == {'queued'}
    consumer.work(name=WORKER)
    assert list(producer.read_group(name).values()) == ['finished'] * 3


def test_suspension(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    job = producer.enqueue('add', 1)
    producer.suspend()
    assert consumer.is_suspended() and consumer.work(name=WORKER) == []
    assert read(job, producer, consumer)['status'] == 'queued'
    consumer.resume()
    assert not producer.is_suspended() and consumer.work(name=WORKER) == [['add', 1, 0]]


def test_a_canceled_job_is_not_run(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    canceled, kept = producer.enqueue('add', 1), producer.enqueue('add', 2)
    producer.cancel(canceled)
    assert producer.read_registries() == consumer.read_registries() == {'canceled': [canceled], 'queue': [kept]}
    assert consumer.work(name=WORKER) == [['add', 2, 0]]
    assert read(canceled, producer, consumer)['status'] == 'canceled'


def test_an_execution_given_up_by_the_other(connection: redis.Redis, producer: Side, consumer: Side) -> None:
    """The started registry of one package's dead worker is cleaned by the other's rules."""
    job = producer.enqueue('add', 1)
    connection.lpop(keys.queue('default'))
    connection.hset(keys.job(job), 'status', 'started')
    connection.zadd(keys.registry('started', 'default'), {f'{job}:{"0" * 32}': 1})
    consumer.clean()
    found = read(job, producer, consumer)
    assert found['status'] == 'failed' and 'AbandonedJobError' in found['last_lines'][0][0]
    assert producer.read_registries() == {'failed': [job]}


@pytest.mark.slow
class TestWorkerProcesses:
    """A forking worker of the consumer, started by its command, as the producer sees and commands it."""

    def test_a_running_job_is_seen_and_stopped(self, connection: redis.Redis, producer: Side, consumer: Side) -> None:
        with consumer.running_worker('busy', connection) as process:
            job = producer.enqueue('sleep', 60, on_stopped='note_stopped')
            wait_until(lambda: producer.read_workers()['busy'][0] == 'busy', 20)
            wait_until(lambda: producer.read_executions(job), description='its execution has a record')
            wait_until(lambda: producer.read_job(job)['status'] == 'started')
            assert producer.read_executions(job) == consumer.read_executions(job)
            assert producer.read_workers() == consumer.read_workers()
            assert producer.read_workers()['busy'][1:3] == [['default'], process.pid]
            registries = producer.read_registries()
            assert set(registries) == {'started'} and registries == consumer.read_registries()
            producer.stop_job(job)
            wait_until(lambda: producer.read_job(job)['status'] == 'stopped', 20, description='the job is stopped')
            wait_until(lambda: connection.hget('rq:test:called', job) == b'stopped')
            assert read(job, producer, consumer)['results'] == [['FAILED', None]]
            assert producer.read_registries() == consumer.read_registries() == {'failed': [job]}
            producer.shut_down('busy')
            assert process.wait(20) == 0
        assert producer.read_workers() == consumer.read_workers() == {}

    def test_a_worker_that_runs_jobs_and_its_scheduler(
        self, connection: redis.Redis, producer: Side, consumer: Side
    ) -> None:
        with consumer.running_worker('steady', connection, '--with-scheduler'):
            good, bad = producer.enqueue('add', 1), producer.enqueue('divide')
            scheduled = producer.enqueue_in(1, 'add', 2)
            later = producer.enqueue('divide', retry={'max': 1, 'interval': 1})
            child = producer.enqueue('add', 3, depends_on=[good, scheduled])
            for job, status in (
                (good, 'finished'),
                (bad, 'failed'),
                (scheduled, 'finished'),
                (later, 'failed'),
                (child, 'finished'),
            ):
                wait_until(lambda job=job, status=status: producer.read_job(job)['status'] == status, 30)  # type: ignore[misc]
                read(job, producer, consumer)
            assert producer.read_registries() == consumer.read_registries()
            assert producer.read_registries() == {
                'finished': sorted([good, scheduled, child]),
                'failed': sorted([bad, later]),
            }
            wait_until(lambda: producer.read_workers()['steady'][0] == 'idle')
            assert producer.read_workers()['steady'][3:] == [3, 3]

    def test_a_suspended_worker_waits(self, connection: redis.Redis, producer: Side, consumer: Side) -> None:
        with consumer.running_worker('patient', connection):
            first = producer.enqueue('sleep', 0.3)
            wait_until(lambda: producer.read_job(first)['status'] == 'started', 20)
            # A worker of RQ's that waits for work only sees a suspension after its next job.
            producer.suspend()
            second = producer.enqueue('add', 1)
            wait_until(lambda: consumer.read_workers()['patient'][0] == 'suspended', 20)
            statuses = [read(job, producer, consumer)['status'] for job in (first, second)]
            assert statuses == ['finished', 'queued']
            producer.resume()
            wait_until(lambda: producer.read_job(second)['status'] == 'finished', 20)
