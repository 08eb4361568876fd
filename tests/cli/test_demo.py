"""`greenq demo` as a user runs it: the table, the exit status, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import redis

from greenq.cli.demo import _first_line
from greenq.store import keys
from tests.helpers import ROOT, command_environment, run_cli, wait_until


class _Pages(ThreadingHTTPServer):
    """A web server whose answers wait until they may go."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _PagesHandler)
        self.may_answer = threading.Event()
        self.was_asked = threading.Event()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}/'


class _PagesHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Pages)
        self.server.was_asked.set()
        self.server.may_answer.wait(30)
        # Whoever asked may have been stopped meanwhile.
        with suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        if self.path == '/missing':
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'four words of text')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[_Pages]:
    with _Pages() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


@contextmanager
def running_demo(tmp_path: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that runs during the block, with `tmp_path` for its temporary files."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'greenq', 'demo', *args],
        cwd=ROOT,
        env=command_environment({'TMPDIR': str(tmp_path)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def server_url(process: subprocess.Popen[str]) -> str:
    """What the demo says its server's URL is."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith('server: unix://'), line
    return line.removeprefix('server: ').strip()


def row(output: str, worker: str) -> list[str]:
    """The cells of a worker's row of the table, after its name."""
    match = re.search(rf'^{re.escape(worker)}  +([^:\n]*)$', output, re.MULTILINE)
    assert match, output
    return match.group(1).split()


def test_both_workers_run_and_are_compared(tmp_path: Path) -> None:
    result = run_cli(
        'demo', '--jobs', '60', '--fork-jobs', '3', env={'TMPDIR': str(tmp_path), 'RQ_SENTRY_DSN': 'nonsense'}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert not result.stderr
    assert 'greenq.GeventWorker: 60 of 60 jobs' in result.stdout
    jobs, seconds, rate, ratio, failed, lost = row(result.stdout, 'greenq.GeventWorker')
    assert (jobs, failed, lost) == ('60', '0', '0')
    # A page takes 50 ms, so both are bounded by what was not waited for.
    assert float(seconds) >= 0.05
    assert float(rate) == pytest.approx(60 / float(seconds), rel=0.1)
    assert float(ratio.removesuffix('x')) > 1
    jobs, seconds, _, ratio, failed, lost = row(result.stdout, 'greenq.Worker')
    assert (jobs, ratio, failed, lost) == ('3', '1.0x', '0', '0')
    assert float(seconds) >= 3 * 0.05
    assert not list(tmp_path.iterdir())


def test_own_urls_are_fetched_once_each_and_failures_are_told(tmp_path: Path, pages: _Pages) -> None:
    pages.may_answer.set()
    with _Pages() as closed:
        refused = closed.url
    urls = tmp_path / 'urls'
    urls.write_text(f'# mine\n{pages.url}\n\n{refused}\n{pages.url}missing\n')
    result = run_cli('demo', '--urls', str(urls))
    assert result.returncode == 0, result.stdout + result.stderr
    for worker in ('greenq.GeventWorker', 'greenq.Worker'):
        jobs, _, _, _, failed, lost = row(result.stdout, worker)
        assert (jobs, failed, lost) == ('3', '2', '0')
        assert re.search(rf'^{worker}: 1 failed: urllib\.error\.URLError: .*refused', result.stdout, re.MULTILINE)
        assert f'{worker}: 1 failed: urllib.error.HTTPError: HTTP Error 404' in result.stdout


def test_a_lost_job_is_noticed(tmp_path: Path, pages: _Pages) -> None:
    urls = tmp_path / 'urls'
    urls.write_text(pages.url)
    options = ('--urls', str(urls), '--jobs', '3', '--concurrency', '1', '--fork-jobs', '0')
    with running_demo(tmp_path, *options) as process:
        with redis.Redis.from_url(server_url(process)) as client:
            assert pages.was_asked.wait(20)
            # One job runs, one is waiting to be taken out of every hand, the last one runs later.
            wait_until(lambda: client.llen(keys.queue('greenq.GeventWorker')) == 2)
            client.lpop(keys.queue('greenq.GeventWorker'))
        pages.may_answer.set()
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    jobs, _, _, ratio, failed, lost = row(output, 'greenq.GeventWorker')
    assert (jobs, ratio, failed, lost) == ('3', '-', '0', '1')
    assert 'greenq.GeventWorker: 1 lost: queued' in output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_takes_everything_with_it(tmp_path: Path, pages: _Pages, number: signal.Signals) -> None:
    urls = tmp_path / 'urls'
    urls.write_text(pages.url)
    with running_demo(tmp_path, '--urls', str(urls), '--jobs', '5') as process:
        url = server_url(process)
        with redis.Redis.from_url(url) as client:
            server = psutil.Process(int(client.info('server')['process_id']))
        assert pages.was_asked.wait(20)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode in (1, 128 + number)
    assert psutil.wait_procs([server, *children], timeout=5)[1] == []
    assert [path.name for path in tmp_path.iterdir()] == ['urls']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--urls', '/dev/null'], "There is no URL in '/dev/null'"),
        (['--urls', '/no/such'], "'/no/such'"),
        (['--jobs', '0'], '0 is not in the range'),
    ],
)
def test_what_makes_no_sense_is_refused(args: list[str], message: str) -> None:
    result = run_cli('demo', *args)
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        (None, 'no reason given'),
        ('Job stopped by user.', 'Job stopped by user.'),
        ('Traceback (most recent call last):\n  File "x"\n    y\nValueError: a\nb\n', 'ValueError: a'),
        (
            'Traceback (most recent call last):\n  File\nOSError: a\n\nDuring handling, another exception:\n\n'
            'Traceback (most recent call last):\n  File\nKeyError: 1\n',
            'KeyError: 1',
        ),
    ],
)
def test_the_first_line_of_an_exception(text: str | None, line: str) -> None:
    assert _first_line(text) == line
