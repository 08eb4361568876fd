"""`greenq worker-pool`: workers that are patched if need be, replaced when they die, and stopped by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from click.testing import CliRunner

from greenq import Queue
from greenq.cli import main
from greenq.job import Job
from tests.cli.test_worker_command import WORKER_VARIABLES, _Inbox
from tests.helpers import ROOT, command_environment, run_cli, wait_until


def run_pool(*args: str) -> str:
    """Run a pool until its queues are empty. Returns what it wrote, after it has ended with status 0."""
    result = run_cli('worker-pool', '--burst', *args, env=WORKER_VARIABLES)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert 'Warning' not in output
    return output


@contextmanager
def pool_process(*args: str) -> Iterator[subprocess.Popen[bytes]]:
    """A pool that runs during the block."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'greenq', 'worker-pool', '--quiet', *args],
        cwd=ROOT,
        env=command_environment(WORKER_VARIABLES),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        family = children(process)
        process.kill()
        process.wait()
        for child in family:
            child.kill()


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The pool's workers, and what they have started."""
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def sleep_and_tell(url: str, seconds: float) -> None:
    """A job that says when it begins, and when it ends."""
    with redis.Redis.from_url(url) as client:
        client.rpush('rq:test:begun', os.getpid())
        time.sleep(seconds)
        client.rpush('rq:test:ended', os.getpid())


def begun(connection: redis.Redis) -> int:
    return connection.llen('rq:test:begun')


# ---- the workers ----


@pytest.mark.parametrize(('worker_class', 'patched'), [('gevent', True), ('simple', False), ('rq.Worker', False)])
def test_every_worker_is_of_the_class(connection: redis.Redis, worker_class: str, patched: bool) -> None:
    jobs = [Queue('mine', connection=connection).enqueue('tests.cli.sample.is_patched') for _ in range(4)]
    output = run_pool('-n', '2', '-w', worker_class, 'mine')
    assert output.count('Listening on') == 2
    assert [job.return_value(refresh=True) for job in jobs] == [patched] * 4


def test_every_worker_enqueues_what_is_due(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue_in(timedelta(seconds=1), 'tests.cli.sample.is_patched')
    with pool_process('-n', '2', '-w', 'gevent') as pool:
        wait_until(lambda: job.get_status(refresh=True) == 'finished')
        pool.terminate()
        assert pool.wait(10) == 0


def test_settings_and_options_reach_the_workers(connection: redis.Redis, tmp_path: Path) -> None:
    settings = tmp_path / 'settings.py'
    settings.write_text(
        "QUEUES = ['mine']\n"
        "DICT_CONFIG = {'version': 1, 'disable_existing_loggers': False,"
        "'formatters': {'f': {'format': 'MINE %(message)s'}},"
        "'handlers': {'h': {'class': 'logging.StreamHandler', 'formatter': 'f'}},"
        "'root': {'handlers': ['h'], 'level': 'INFO'}}\n"
    )
    job = Queue('mine', connection=connection).enqueue('tests.cli.sample.fail')
    output = run_pool('-w', 'simple', '-c', str(settings), '--exception-handler', 'tests.cli.sample.mark')
    assert 'MINE *** Listening on mine' in output
    assert Job.fetch(job.id, connection=connection).meta == {'marked': 1}


def test_exceptions_of_jobs_are_reported_to_sentry(connection: redis.Redis) -> None:
    pytest.importorskip('sentry_sdk')
    job = Queue(connection=connection).enqueue('tests.cli.sample.fail')
    with _Inbox() as inbox:
        thread = threading.Thread(target=inbox.serve_forever, args=[0.01])
        thread.start()
        try:
            run_pool('--sentry-dsn', f'http://public@127.0.0.1:{inbox.server_port}/1')
        finally:
            inbox.shutdown()
            thread.join()
    assert job.id.encode() in b''.join(inbox.received)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['-v', '-q'], '--verbose and --quiet'),
        (['-l', 'loud'], "Unknown logging level 'loud'"),
        (['--log-format', '%(x'], "Invalid --log-format '%(x'"),
        (['--exception-handler', 'no.such'], "Cannot import exception handler 'no.such'"),
        (['-u', 'redis://localhost:1'], 'Cannot reach Redis at redis://localhost:1/0: connection refused'),
        (['-q', '-n', '2', '-w', 'no.such.Worker'], "Cannot import worker class 'no.such.Worker'"),
        (
            ['-q', '-w', 'fork', '--concurrency', '3', '--grace', '2'],
            'concurrency and grace cannot be used with Worker',
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(connection: redis.Redis, args: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ['worker-pool', '--burst', *args])
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert result.output.count('\n') == 1, result.output


# ---- signals ----


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_jobs_finish(connection: redis.Redis, server_url: str, number: signal.Signals) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(sleep_and_tell, server_url, 1.5) for _ in range(3)]
    with pool_process('-n', '2') as pool:
        wait_until(lambda: begun(connection) == 2)
        pool.send_signal(number)
        assert pool.wait(10) == 0
    assert sorted(job.get_status(refresh=True).value for job in jobs) == ['finished', 'finished', 'queued']
    assert connection.llen('rq:test:ended') == 2


def test_a_second_signal_cuts_jobs_off(connection: redis.Redis, server_url: str) -> None:
    job = Queue(connection=connection).enqueue(sleep_and_tell, server_url, 60)
    with pool_process('--on-lost', 'requeue') as pool:
        wait_until(lambda: begun(connection) == 1)
        pool.send_signal(signal.SIGTERM)
        (key,) = connection.smembers('rq:workers')
        wait_until(lambda: connection.hexists(key, 'shutdown_requested_date'))
        # Two within a second are one wish.
        time.sleep(1.1)
        assert pool.poll() is None, 'a warm shutdown waits for the job'
        pool.send_signal(signal.SIGTERM)
        pool.wait(5)
    assert connection.llen('rq:test:ended') == 0
    assert job.get_status(refresh=True) in ('queued', 'failed')


def test_gevent_workers_give_back_what_outlasts_their_grace(connection: redis.Redis, server_url: str) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(sleep_and_tell, server_url, 60) for _ in range(4)]
    with pool_process('-n', '2', '-w', 'gevent', '--concurrency', '2', '--grace', '0.5') as pool:
        wait_until(lambda: begun(connection) == 4)
        asked_at = time.monotonic()
        pool.terminate()
        assert pool.wait(10) == 0
        assert time.monotonic() - asked_at < 0.5 + 2.5
    assert [job.get_status(refresh=True) for job in jobs] == ['queued'] * 4


@pytest.mark.slow
def test_a_worker_that_does_not_leave_is_killed(connection: redis.Redis, server_url: str) -> None:
    Queue(connection=connection).enqueue(sleep_and_tell, server_url, 60)
    with pool_process('-w', 'gevent', '--grace', '0.2') as pool:
        wait_until(lambda: begun(connection) == 1)
        (worker,) = children(pool)
        worker.suspend()
        pool.terminate()
        assert pool.wait(8) == 0
        assert not worker.is_running()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_job_runs_again(connection: redis.Redis, server_url: str) -> None:
    job = Queue(connection=connection).enqueue(sleep_and_tell, server_url, 1)
    with pool_process('-w', 'gevent') as pool:
        wait_until(lambda: begun(connection) == 1)
        (worker,) = children(pool)
        worker.kill()
        # Without the pool's word for it, others would wait 15 seconds for the lease to end.
        wait_until(lambda: begun(connection) == 2, timeout=8)
        wait_until(lambda: job.get_status(refresh=True) == 'finished')
        assert [child.pid for child in children(pool)] != [worker.pid]
        pool.terminate()
        assert pool.wait(10) == 0
    assert connection.lrange('rq:test:ended', 0, -1) == connection.lrange('rq:test:begun', 1, 1)


def test_a_quiet_pool_takes_no_more_jobs(connection: Any, server_url: str) -> None:
    """Forking workers know no signal for it: one that is sent to them all the same would freeze them."""
    with pool_process('-n', '2') as pool:
        wait_until(lambda: len(connection.smembers('rq:workers')) == 2)
        pool.send_signal(signal.SIGTSTP)
        names = [key.decode() for key in connection.smembers('rq:workers')]
        wait_until(lambda: [connection.hget(name, 'state') for name in names] == [b'suspended'] * 2)
        queue = Queue(connection=connection)
        queue.enqueue(sleep_and_tell, server_url, 0)
        for child in children(pool):
            assert child.status() != psutil.STATUS_STOPPED
        pool.terminate()
        assert pool.wait(10) == 0
    assert queue.count == 1
