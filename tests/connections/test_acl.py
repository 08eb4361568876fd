"""Users with few rights: the recipes of docs/acl.md, run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from greenq import Queue, Retry
from greenq.command import send_shutdown_command, send_stop_job_command
from greenq.job import Dependency, Job, JobStatus
from greenq.results import Result
from tests.connections import jobs
from tests.connections.commands import running_worker
from tests.connections.servers import Server, needs_server, running
from tests.helpers import ROOT, run_cli, wait_until

pytestmark = needs_server

RECIPES = re.findall(r'^ACL SETUSER (\w+) (.+)$', (ROOT / 'docs' / 'acl.md').read_text(), re.MULTILINE)

ADDITIONS = re.findall(r'^- To .+: `(.+)`\.$', (ROOT / 'docs' / 'acl.md').read_text(), re.MULTILINE)


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp('acl')) as server, server.client() as admin:
        for user, rules in RECIPES:
            admin.execute_command('ACL', 'SETUSER', user, *rules.split())
        rules = dict(RECIPES)['worker'].replace('+client|unblock', '')
        admin.execute_command('ACL', 'SETUSER', 'short', *rules.replace('>worker-', '>short-').split())
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        client.execute_command('ACL', 'LOG', 'RESET')
        yield client


@pytest.fixture
def producer(server: Server, admin: redis.Redis) -> Iterator[redis.Redis]:
    with server.client(username='producer', password='producer-password') as client:
        yield client


def _url(server: Server, user: str) -> str:
    return f'redis://{user}:{user}-password@127.0.0.1:{server.port}'


#: What redis-py tries when it connects, and does without.
HANDSHAKE = {'client|setinfo', 'client|maint_notifications', 'client'}


def _refused(admin: redis.Redis) -> set[str]:
    """What the server has refused anybody."""
    entries: Any = admin.acl_log()
    return {entry['object'] for entry in entries} - HANDSHAKE


def _wait_for(job: Job, status: JobStatus) -> None:
    wait_until(lambda: job.get_status() == status, 15, description=f'{job.func_name} is {status}')


def _enqueue_one_of_each(queue: Queue) -> list[Job]:
    first = queue.enqueue(jobs.add, 1, 1)
    return [
        first,
        queue.enqueue(jobs.add, 1, 2, at_front=True, job_id='once', unique=True),
        queue.enqueue(jobs.add, 1, 3, depends_on=Dependency([first], allow_failure=True)),
        queue.enqueue_in(timedelta(seconds=1), jobs.add, 1, 4),
        *queue.enqueue_many([Queue.prepare_data(jobs.add, (1, number)) for number in range(3)]),
        queue.enqueue(jobs.fails_once),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('user', 'worker_class', 'refused'),
    [
        ('worker', 'greenq.GeventWorker', set()),
        ('worker', 'greenq.Worker', {'info'}),
        ('short', 'greenq.GeventWorker', {'client|unblock'}),
    ],
)
def test_a_worker_needs_no_more_than_the_recipe(
    server: Server, admin: redis.Redis, producer: redis.Redis, user: str, worker_class: str, refused: set[str]
) -> None:
    queue = Queue(connection=producer)
    # Two slots, so that the gevent worker fills up and has to end its waits.
    slots = ('--concurrency', '2') if 'Gevent' in worker_class else ()
    with running_worker('-u', _url(server, user), '-w', worker_class, '-s', *slots) as worker:
        for job in _enqueue_one_of_each(queue):
            _wait_for(job, JobStatus.FINISHED)
        failing = queue.enqueue(jobs.fail, retry=Retry(max=1))
        _wait_for(failing, JobStatus.FAILED)
        sleeper = queue.enqueue(jobs.sleep, 60)
        _wait_for(sleeper, JobStatus.STARTED)
        send_stop_job_command(admin, sleeper.id)
        _wait_for(sleeper, JobStatus.STOPPED)
        worker.process.terminate()
        assert worker.wait() == 0
        assert 'permission' not in worker.output.lower(), worker.output
    assert _refused(admin) <= refused
    assert failing.get_status() == JobStatus.FAILED
    assert Job.fetch(failing.id, connection=admin).latest_result().type == Result.Type.FAILED  # type: ignore[union-attr]


def test_a_producer_may_enqueue(admin: redis.Redis, producer: redis.Redis) -> None:
    queue = Queue(connection=producer)
    made = _enqueue_one_of_each(queue)
    with producer.pipeline() as pipeline:
        queue.enqueue(jobs.add, 2, 2, pipeline=pipeline)
        pipeline.execute()
    assert {job.get_status() for job in made} == {JobStatus.QUEUED, JobStatus.DEFERRED, JobStatus.SCHEDULED}
    assert _refused(admin) == set()


def test_a_producer_may_do_nothing_else(admin: redis.Redis, producer: redis.Redis) -> None:
    queue = Queue(connection=producer)
    job = queue.enqueue(jobs.add, 1, 1)
    for forbidden in (queue.empty, job.delete, job.latest_result, lambda: queue.job_ids):
        with pytest.raises((NoPermissionError, redis.ResponseError)):
            forbidden()
    with pytest.raises((NoPermissionError, redis.ResponseError)):
        producer.set('others', 'key')
    assert Queue(connection=admin).job_ids == [job.id]


def test_the_additions_for_results_and_commands_suffice(server: Server, admin: Any) -> None:
    added = [word for line in ADDITIONS for word in line.split()]
    rules = dict(RECIPES)['producer'].replace('>producer-', '>reader-')
    admin.execute_command('ACL', 'SETUSER', 'reader', *rules.split(), *added)
    with server.client(username='reader', password='reader-password') as reader:
        job = Queue(connection=reader).enqueue(jobs.add, 1, 2)
        worked = run_cli('worker', '--burst', '-u', _url(server, 'worker'), '-w', 'greenq.SimpleWorker')
        assert worked.returncode == 0, worked.stderr
        found = Job.fetch(job.id, connection=reader)
        assert found.return_value() == 3
        assert found.latest_result(timeout=1) is not None
        assert len(found.results()) == 1
        send_shutdown_command(reader, 'nobody')
        send_stop_job_command(reader, job.id)
    assert _refused(admin) == set()


def test_what_a_user_may_not_do_is_told_in_one_line(server: Server, producer: redis.Redis) -> None:
    refused = run_cli('empty', '-u', _url(server, 'producer'), 'default')
    assert refused.returncode == 1
    assert refused.stderr.count('\n') == 1
    # Redis and Valkey have words of their own for it.
    assert "can't run this command" in refused.stderr or 'has no permissions' in refused.stderr


def test_a_wrong_password_is_told_in_one_line(server: Server) -> None:
    refused = run_cli('info', '-u', f'redis://worker:wrong@127.0.0.1:{server.port}')
    assert refused.returncode == 1
    assert 'refuses the login' in refused.stderr
    assert 'wrong@' not in refused.stderr
