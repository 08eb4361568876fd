"""Clients that greenq cannot work with are refused where they are given, in one line, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from greenq import Queue, SimpleWorker, Worker
from greenq.command import send_shutdown_command
from greenq.cron import CronScheduler
from greenq.exceptions import ConfigurationError
from greenq.executions import Execution
from greenq.group import Group
from greenq.job import Job
from greenq.registry import FinishedJobRegistry
from greenq.scheduler import RQScheduler
from greenq.worker_pool import WorkerPool
from tests.helpers import run_cli


@pytest.fixture
def decoding(connection: redis.Redis, server_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server_url, decode_responses=True) as client:
        yield client


USES: list[Callable[[Any], object]] = [
    lambda client: Queue(connection=client),
    lambda client: Queue.all(connection=client),
    lambda client: Job(connection=client),
    lambda client: Job.create(print, connection=client),
    lambda client: Job.fetch('id', connection=client),
    lambda client: Job.fetch_many(['id'], connection=client),
    lambda client: Job.exists('id', connection=client),
    lambda client: Worker(['default'], connection=client),
    lambda client: SimpleWorker(['default'], connection=client),
    lambda client: Worker.all(connection=client),
    lambda client: Worker.find_by_key('rq:worker:name', connection=client),
    lambda client: WorkerPool(['default'], connection=client),
    lambda client: FinishedJobRegistry(connection=client),
    lambda client: Execution('id', 'job', connection=client),
    lambda client: Group.create(connection=client),
    lambda client: RQScheduler(['default'], connection=client),
    lambda client: CronScheduler(connection=client),
    lambda client: send_shutdown_command(client, 'name'),
]


@pytest.mark.parametrize('use', USES)
def test_a_client_that_decodes_is_refused_everywhere(
    connection: redis.Redis, decoding: redis.Redis, use: Callable[[Any], object]
) -> None:
    with pytest.raises(ConfigurationError, match='decode_responses=True') as raised:
        use(decoding)
    assert '\n' not in str(raised.value)
    assert connection.dbsize() == 0


def test_a_url_that_asks_for_text_is_refused_in_one_line(server_url: str) -> None:
    refused = run_cli(
        'worker', '--burst', '-u', f'{server_url}{"&" if "?" in server_url else "?"}decode_responses=true'
    )
    assert refused.returncode == 1
    assert 'decode_responses=True' in refused.stderr
    assert refused.stderr.count('\n') == 1


def test_sentinel_settings_that_ask_for_text_are_refused_in_one_line(tmp_path: Path) -> None:
    settings = tmp_path / 'decoding_settings.py'
    settings.write_text(
        "SENTINEL = {'INSTANCES': [('127.0.0.1', 1)], 'CONNECTION_KWARGS': {'decode_responses': True}}\n"
    )
    refused = run_cli('worker', '--burst', '-c', str(settings), env={'GREENQ_REDIS_URL': None})
    assert refused.returncode == 1
    assert 'decode_responses=True' in refused.stderr
    assert refused.stderr.count('\n') == 1
