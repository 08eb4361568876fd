"""`greenq server`, as somebody types it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from greenq import embedded
from tests.embedded.conftest import is_running
from tests.helpers import ROOT, run_cli

Serve = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Start the command on the test's directory; it is killed after the test."""
    with ExitStack() as stack:

        def start(*args: str) -> subprocess.Popen[str]:
            command = [sys.executable, '-m', 'greenq', 'server', '--path', str(home), *args]
            process = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            return process

        yield start


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.communicate(timeout=10)
    return line


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_url_and_ends_well_with_its_server(serve: Serve, number: signal.Signals) -> None:
    process = serve()
    with redis.Redis.from_url(first_line(process)) as client:
        pid = client.info('server')['process_id']
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, '', '')
    assert not is_running(pid)


def test_it_leaves_the_server_to_others(serve: Serve, home: Path) -> None:
    process = serve()
    url = first_line(process)
    with embedded.start(home) as server:
        assert server.url == url
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert is_running(server.pid)


def test_it_listens_on_a_port_of_this_machine_if_asked(serve: Serve, home: Path) -> None:
    port = free_port()
    process = serve('--port', str(port))
    assert first_line(process) == f'unix://{home}/greenq.sock'
    assert first_line(process) == f'redis://127.0.0.1:{port}'
    with redis.Redis(port=port) as client:
        assert client.config_get('bind') == {'bind': '127.0.0.1'}
    with embedded.start(home) as server, server.connection() as client:
        process.terminate()
        process.communicate(timeout=20)
        assert client.config_get('port') == {'port': '0'}


def test_a_port_in_use_is_named(home: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
        run = run_cli('server', '--path', str(home), '--port', str(port))
    assert run.returncode != 0
    assert f'cannot listen on port {port}' in run.stderr
    assert 'Traceback' not in run.stderr


def test_an_impossible_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    run = run_cli('server', '--path', str(tmp_path / 'file' / 'data'))
    assert run.returncode != 0
    assert len(run.stderr.splitlines()) == 1
    assert str(tmp_path / 'file' / 'data') in run.stderr
