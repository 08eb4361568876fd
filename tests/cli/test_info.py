"""`greenq info`: what it shows, and that programs which read RQ's raw lines can read its own."""

import subprocess
import sys
from typing import Any

import pytest
import redis
import rq
from click.testing import CliRunner

from greenq import Queue, SimpleWorker
from greenq.cli import main
from greenq.store import keys
from tests.helpers import command_environment, run_cli


def info(*args: str) -> str:
    result = CliRunner().invoke(main, ['info', *args])
    assert result.exit_code == 0, result.output
    return result.output


def rq_info(*args: str) -> str:
    environment = command_environment()
    command = [sys.executable, '-m', 'rq.cli', 'info', '-u', environment['GREENQ_REDIS_URL'], *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture
def populated(connection: redis.Redis) -> redis.Redis:
    """Queues `high` (3 jobs) and `low` (1 waiting, 1 failed), an idle worker of both, and a busy one of `low`."""
    for _ in range(3):
        Queue('high', connection=connection).enqueue('tests.cli.sample.echo')
    Queue('low', connection=connection, is_async=False).enqueue('tests.cli.sample.fail')
    Queue('low', connection=connection).enqueue('tests.cli.sample.echo')
    for name, queues, state in (('ann', ['high', 'low'], 'idle'), ('bob', ['low'], 'busy')):
        worker = SimpleWorker(queues, name=name, connection=connection)
        worker.register_birth()
        worker.set_state(state)
    return connection


def test_an_empty_server(connection: redis.Redis) -> None:
    lines = info().splitlines()
    assert lines[:3] == ['0 queues, 0 jobs total', '', '0 workers, 0 queues']
    assert lines[4].startswith('Updated: ')
    assert info('--raw') == ''
    assert info('-R', '-W') == '0 workers, 0 queues\n'


def test_queues_are_listed_with_bars_and_totals(populated: redis.Redis) -> None:
    assert info('--only-queues').splitlines() == [
        'high         |███ 3, 0 executing, 0 finished, 0 failed',
        'low          |█ 1, 0 executing, 0 finished, 1 failed',
        '2 queues, 4 jobs total',
    ]


def test_workers_are_listed_once_with_their_queues(populated: redis.Redis) -> None:
    lines = info('--only-workers').splitlines()
    assert lines[-1] == '2 workers, 2 queues'
    ann = next(line for line in lines if line.startswith('ann ('))
    assert ann.endswith(': idle high, low. jobs: 0 finished, 0 failed')
    assert len(lines) == 3


def test_workers_are_listed_by_queue(populated: redis.Redis) -> None:
    Queue('idle', connection=populated).enqueue('tests.cli.sample.echo')
    assert info('-R', '-W').splitlines() == [
        'high: ann (idle)',
        'idle: –',
        'low:  ann (idle), bob (busy)',
        '2 workers, 3 queues',
    ]


def test_only_the_named_queues_are_shown(populated: redis.Redis) -> None:
    output = info('high')
    assert '1 queues, 3 jobs total' in output
    assert '1 workers, 1 queues' in output
    assert 'bob' not in output


@pytest.mark.parametrize('flags', [['--raw'], ['--raw', '-R'], ['-Q'], ['-W'], ['-R', '-W'], ['-W', 'low']])
def test_rq_shows_the_same(populated: redis.Redis, flags: list[str]) -> None:
    # Neither order means anything: RQ has it from sets.
    assert sorted(info(*flags).splitlines()) == sorted(rq_info(*flags).splitlines())


def test_a_look_changes_nothing(populated: redis.Redis) -> None:
    # RQ's fails this job, because its worker seems to be lost.
    populated.zadd('rq:wip:low', {'lost:execution': 1})
    assert 'low 1, 1 executing' in info('--raw')
    assert populated.zcard('rq:wip:low') == 1


def test_an_interval_repeats_the_look_until_ctrl_c(populated: redis.Redis) -> None:
    code = (
        'import sys, time, greenq.cli; naps = []\n'
        'def nap(seconds):\n'
        '    naps.append(seconds)\n'
        '    if len(naps) == 2: raise KeyboardInterrupt\n'
        'time.sleep = nap\n'
        'greenq.cli.main(["info", "-Q", "--interval", "0.5"])'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=command_environment())
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('2 queues, 4 jobs total') == 2


def test_as_a_command(populated: redis.Redis) -> None:
    result = run_cli('info', '--raw', env={'GREENQ_WORKER_CLASS': 'gevent'})
    assert result.returncode == 0, result.stderr
    assert sorted(line.split()[:2] for line in result.stdout.splitlines()) == [
        ['queue', 'high'],
        ['queue', 'low'],
        ['worker', 'ann'],
        ['worker', 'bob'],
    ]
    assert result.stderr == ''


def test_what_rq_has_written_is_shown_as_rq_shows_it(connection: redis.Redis) -> None:
    queue = rq.Queue('theirs', connection=connection)
    queue.enqueue('tests.cli.sample.echo')
    worker = rq.SimpleWorker([queue], name='carl', connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_state('busy')
    output = info('--raw')
    assert 'queue theirs 1, 0 executing' in output
    assert 'worker carl (' in output
    assert ' busy theirs. jobs: 0 finished, 0 failed' in output
    assert sorted(output.splitlines()) == sorted(rq_info('--raw').splitlines())


def test_ten_thousand_queues_take_few_round_trips(connection: redis.Redis) -> None:
    server: Any = connection
    with server.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            key = keys.queue(f'q{number:05}')
            pipeline.sadd(keys.queues(), key)
            pipeline.rpush(key, 'a', 'b')
        pipeline.zadd(keys.registry('started', 'q00007'), {'c:d': 1})
        pipeline.zadd(keys.registry('finished', 'q00007'), {'e': 1, 'f': 9e9})
        pipeline.zadd(keys.registry('failed', 'q00007'), {'g': 1, 'h': -1, 'i': 9e9})
        pipeline.execute()
    before = server.info('stats')['total_reads_processed']

    lines = info('--raw').splitlines()

    assert server.info('stats')['total_reads_processed'] - before < 60
    assert len(lines) == 10_000 and lines[9_999] == 'queue q09999 2, 0 executing, 0 finished, 0 failed'
    assert lines[7] == 'queue q00007 2, 1 executing, 1 finished, 2 failed', 'neither cleaned nor counted: what expired'
