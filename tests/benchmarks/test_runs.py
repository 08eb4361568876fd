"""The commands run, on real servers and real workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers import ROOT


def run_benchmarks(*args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks', *args],
        cwd=ROOT,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def figures_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_enqueueing_is_measured_and_written(tmp_path: Path) -> None:
    file = tmp_path / 'figures.json'

    result = run_benchmarks('--quick', '--only', 'gevent', '--workloads', 'enqueue', '--json', str(file))

    assert result.returncode == 0, result.stderr
    document = figures_of(file)
    figures = document['medians']['gevent']
    assert figures['enqueue.one_round_trips'] == 1
    assert figures['enqueue.bulk_per_second'] > figures['enqueue.one_per_second'] > 0
    assert document['settings']['versions']['gevent'].keys() == {'greenq', 'redis', 'gevent'}
    assert 'round trips of enqueueing a job' in result.stdout


def test_a_given_database_with_keys_is_refused_and_left_alone(server_url: str, connection: redis.Redis) -> None:
    connection.set('rq:precious', '1')

    result = run_benchmarks('--quick', '--only', 'gevent', '--workloads', 'enqueue', '--url', server_url)

    assert result.returncode == 1
    assert 'holds 1 keys' in result.stderr
    assert connection.get('rq:precious') == b'1'


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    result = run_benchmarks('--only', 'gevent,sidekiq')

    assert result.returncode == 2
    assert 'sidekiq is not known. Use some of gevent, fork,' in result.stderr


@pytest.mark.slow
def test_a_quick_run_measures_everything_of_the_gevent_worker(tmp_path: Path) -> None:
    file = tmp_path / 'figures.json'

    result = run_benchmarks('--quick', '--only', 'gevent', '--json', str(file))

    assert result.returncode == 0, result.stdout + result.stderr
    document = figures_of(file)
    assert document['failures'] == []
    assert document['medians']['gevent'].keys() >= {
        'noop.jobs_per_second',
        'noop.worker_us',
        'noop.commands',
        'noop.round_trips',
        'naps_100.percent_of_ideal',
        'naps_5000.jobs_per_second',
        'http.jobs_per_second',
        'latency.p50_ms',
        'latency.p99_ms',
        'idle.commands_per_second',
        'single.round_trips',
        'memory.idle_mib',
        'memory.1000_kib_per_job',
        'backlog_1k.jobs_per_second',
        'processes_2.naps_per_second',
    }
    assert all(value >= 0 for value in document['medians']['gevent'].values())
    assert 0 < document['medians']['gevent']['naps_100.percent_of_ideal'] <= 100
    assert document['medians']['gevent']['noop.doubled'] == 0


@pytest.mark.slow
@pytest.mark.parametrize('contender', ['fork', 'floor', 'floor-rq'])
def test_the_others_run(contender: str, tmp_path: Path) -> None:
    file = tmp_path / 'figures.json'

    result = run_benchmarks('--quick', '--only', contender, '--workloads', 'noop,latency,naps', '--json', str(file))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = figures_of(file)['medians'][contender]
    assert figures['noop.jobs_per_second'] > 0
    assert 0 < figures['naps_fixed.percent_of_ideal' if contender == 'fork' else 'naps_100.percent_of_ideal'] <= 100
