"""Subclasses that override RQ's hooks, and custom job and queue classes, with every kind of worker."""

from __future__ import annotations

import pytest
import redis

from greenq import Queue
from greenq.job import JobStatus
from tests.worker import jobs
from tests.worker.custom import CustomQueue
from tests.worker.runner import Runner, Runners

KINDS = {'simple': 'CustomSimpleWorker', 'fork': 'CustomForkWorker', 'gevent': 'CustomGeventWorker'}


@pytest.mark.parametrize('kind', KINDS)
def test_overridden_hooks_are_called(runners: Runners, connection: redis.Redis, kind: str) -> None:
    queue = Queue(connection=connection)
    queue.enqueue(jobs.add, 1, job_id='good')
    queue.enqueue(jobs.fail, job_id='bad')

    runners(kind).run(worker_class=f'tests.worker.custom.{KINDS[kind]}')

    notes = jobs.noted(connection)
    assert [line for line in notes if 'good' in line] == ['execute good default', 'perform good', 'success good']
    assert [line for line in notes if 'bad' in line] == [
        'execute bad default',
        'perform bad',
        'exception bad ValueError',
        'failure bad',
    ]


@pytest.mark.parametrize('kind', KINDS)
def test_custom_job_and_queue_classes(runners: Runners, connection: redis.Redis, kind: str) -> None:
    job = CustomQueue(connection=connection).enqueue(jobs.add, 1)

    runners(kind).run(job_class='tests.worker.custom.CustomJob', queue_class='tests.worker.custom.CustomQueue')

    assert jobs.noted(connection) == [f'custom {job.id}']
    assert job.get_status() == JobStatus.FINISHED


def test_a_hook_of_its_own_in_each_of_many_jobs(gevent_runner: Runner, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    all_jobs = [queue.enqueue(jobs.nap, 0.01) for _ in range(50)]
    gevent_runner.run(worker_class='tests.worker.custom.OwnPerformWorker')
    assert all(job.get_meta() == {'performed by': 'OwnPerformWorker'} for job in all_jobs)
    assert all(job.get_status() == JobStatus.FINISHED for job in all_jobs)


def test_a_broken_exception_hook_harms_one_job(gevent_runner: Runner, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    bad, good = queue.enqueue(jobs.fail), queue.enqueue(jobs.add, 1)

    gevent_runner.run(worker_class='tests.worker.custom.RaisingHandlerWorker')

    assert bad.get_status() == JobStatus.FAILED
    assert 'a broken handler' in str(bad.latest_result().exc_string)  # type: ignore[union-attr]
    assert good.get_status() == JobStatus.FINISHED


def test_a_broken_webhook_hook_does_not_stop_the_commits(gevent_runner: Runner, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    all_jobs = [queue.enqueue(jobs.nap, 0.01 * number) for number in range(5)]

    gevent_runner.run(worker_class='tests.worker.custom.RaisingWebhookWorker')

    assert [job.get_status() for job in all_jobs] == [JobStatus.FINISHED] * 5
    assert 'a broken webhook' in gevent_runner.output
