"""`greenq cron` as a user types it: it enqueues, it stops when asked, and two of them do not enqueue twice."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from greenq import cron_scheduler_registry
from greenq.cron import CronScheduler, get_cron_job_history_key, get_cron_job_ids
from greenq.queue import Queue
from tests.helpers import ROOT, run_cli, wait_until

CONFIG = """
from greenq import cron
from tests.cli.sample import echo

cron.register(echo, 'work', args=('tick',), interval=1, name='each second')
cron.register(echo, 'work', cron='0 9 * * *', name='daily')
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'jobs.py'
    path.write_text(CONFIG)
    return path


@contextmanager
def cron_process(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, '-m', 'greenq', 'cron', str(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ticks(connection: redis.Redis) -> list[float]:
    history: Any = connection.zrange(get_cron_job_history_key('each second'), 0, -1, withscores=True)
    return [score for _, score in history]


def wait_for_ticks(connection: redis.Redis, count: int) -> None:
    wait_until(lambda: len(ticks(connection)) >= count, timeout=20)


def wait_for_scheduler(connection: redis.Redis, pid: int) -> None:
    wait_until(lambda: pid in {scheduler.pid for scheduler in CronScheduler.all(connection)}, timeout=20)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_enqueues_until_it_is_told_to_stop(connection: redis.Redis, config: Path, number: signal.Signals) -> None:
    with cron_process(config) as process:
        wait_for_ticks(connection, 2)
        (scheduler,) = CronScheduler.all(connection)
        assert (scheduler.pid, scheduler.config_file) == (process.pid, str(config))
        assert [job.name for job in scheduler.get_jobs()] == ['each second', 'daily']
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
    assert 'Registered tests.cli.sample.echo to run on work every 1 seconds' in output
    assert cron_scheduler_registry.get_keys(connection) == []
    jobs = Queue('work', connection=connection).jobs
    assert [job.id for job in reversed(jobs)] == get_cron_job_ids('each second', connection)
    assert {job.args for job in jobs} == {('tick',)}


@pytest.mark.slow
def test_goes_on_after_lost_connections(connection: redis.Redis, config: Path) -> None:
    with cron_process(config) as process:
        for count in (1, 3, 5):
            wait_for_ticks(connection, count)
            connection.client_kill_filter(_type='normal', skipme=True)
        assert process.poll() is None


@pytest.mark.faults
def test_two_schedulers_of_which_one_is_killed_over_and_over_never_enqueue_a_tick_twice(
    connection: redis.Redis, config: Path
) -> None:
    with cron_process(config):
        for _ in range(8):
            with cron_process(config) as victim:
                wait_for_scheduler(connection, victim.pid)
                wait_for_ticks(connection, len(ticks(connection)) + 1)
                victim.kill()
    times = ticks(connection)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) >= 6
    assert min(gaps) > 0.5, gaps
    assert max(gaps) < 3, gaps
    assert Queue('work', connection=connection).count == len(times)


def test_logs_what_the_level_says(connection: redis.Redis, config: Path) -> None:
    config.write_text('1 / 0')
    assert 'Loading cron configuration' in run_cli('cron', str(config)).stdout
    assert run_cli('cron', '-l', 'error', str(config)).stdout == ''
    assert "Invalid value for '--logging-level'" in run_cli('cron', '--logging-level', 'LOUD', str(config)).stderr


@pytest.mark.parametrize(
    ('content', 'message'), [('1 / 0', 'ZeroDivisionError'), ('import no_such_module', 'no_such_module')]
)
def test_a_configuration_that_cannot_be_loaded_is_one_line(
    connection: redis.Redis, config: Path, content: str, message: str
) -> None:
    config.write_text(content)
    result = run_cli('cron', str(config))
    assert result.returncode == 1
    assert result.stderr.startswith(f'Error: Cannot load cron jobs from {str(config)!r}: ')
    assert message in result.stderr
    assert result.stderr.count('\n') == 1


def test_without_redis_it_says_so(config: Path) -> None:
    started = time.monotonic()
    result = run_cli('cron', '--url', 'redis://localhost:1', str(config))
    assert result.returncode == 1
    assert 'Cannot reach Redis at redis://localhost:1/0' in result.stderr
    assert time.monotonic() - started < 20
