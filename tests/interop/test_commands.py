"""Commands of one package to a worker process of the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from greenq.store import keys
from tests.helpers import ROOT, command_environment, wait_until, worker_process
from tests.interop import jobs
from tests.interop.packages import GREENQ, RQ


@contextmanager
def rq_worker(url: str, name: str, connection: redis.Redis) -> Iterator[subprocess.Popen[bytes]]:
    """`rq worker` during the block."""
    program = Path(sys.executable).with_name('rq')
    process = subprocess.Popen(
        [program, 'worker', '--url', url, '--name', name, '--path', str(ROOT)],
        env=command_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: connection.pubsub_numsub(keys.channel(name))[0][1] == 1, 20, description='rq listens')
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_rq_commands_a_greenq_worker(connection: redis.Redis, server_url: str) -> None:
    with worker_process('--name', 'green', '-w', 'greenq.Worker', url=server_url) as process:
        wait_until(lambda: connection.pubsub_numsub(keys.channel('green'))[0][1] == 1, description='it listens')
        job = RQ.queue(connection).enqueue(jobs.sleep, 60)
        wait_until(lambda: job.get_status() == 'started' and RQ.fetch(connection, job.id).worker_name == 'green')
        RQ.command.send_stop_job_command(connection, job.id)
        wait_until(lambda: job.get_status() == 'stopped', 20, description='the job is stopped')
        RQ.command.send_shutdown_command(connection, 'green')
        assert process.wait(20) == 0
    assert RQ.Worker.all(connection=connection) == []


def test_greenq_commands_an_rq_worker(connection: redis.Redis, server_url: str) -> None:
    with rq_worker(server_url, 'old', connection) as process:
        job = GREENQ.queue(connection).enqueue(jobs.sleep, 60)
        wait_until(lambda: job.get_status() == 'started' and job.get_executions() != [])
        GREENQ.command.send_stop_job_command(connection, job.id)
        wait_until(lambda: job.get_status() == 'stopped', 20, description='the job is stopped')
        GREENQ.command.send_shutdown_command(connection, 'old')
        assert process.wait(20) == 0
    assert GREENQ.Worker.all(connection=connection) == []
