"""Runs files of RQ's suite, each in a process of its own on a private server; hangs and crashes cost one test each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import psutil
import redis

from greenq import embedded
from tests.conformance.suite import NOT_COUNTED

ROOT = Path(__file__).parents[2]
HOOKS = Path(__file__).parent / 'hooks'
MAX_CRASHES = 4


class Result(NamedTuple):
    """How a test ended: passed, failed, skipped or crashed (or hung); and the first line of why."""

    outcome: str
    reason: str


#: `file::class::name` -> result; a file that cannot be imported has its own name for a key.
Results = dict[str, Result]


def run(folder: Path, files: Sequence[str], jobs: int, done: Callable[[str, Results], None]) -> Results:
    """Run files of the suite that is laid out in a folder; tells `done` about each file."""
    everything: Results = {}
    with ExitStack() as stack:
        ports: SimpleQueue[int] = SimpleQueue()
        for number in range(jobs):
            ports.put(stack.enter_context(private_server(folder / f'server-{number}')))
        processes = stack.enter_context(_processes())
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

        def run_one(file: str) -> None:
            port = ports.get()
            try:
                results = _FileRun(folder, file, port, processes).run()
            finally:
                ports.put(port)
            everything.update(results)
            done(file, results)

        list(pool.map(run_one, files))
    return everything


@contextmanager
def private_server(folder: Path) -> Iterator[int]:
    """A server with nothing in it; gives its port."""
    with embedded.start(folder) as server, server.connection() as client:
        port = _free_port()
        client.config_set('appendonly', 'no')
        client.config_set('port', port)
        yield port
        server.stop(wait=10)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def _processes() -> Iterator[set[int]]:
    """The sessions that run now; what is left of them at the end is killed."""
    sessions: set[int] = set()
    try:
        yield sessions
    finally:
        for session in sessions:
            _end_session(session)


def _end_session(session: int) -> None:
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


class _FileRun:
    """One file of the suite on one server: again, without what has run, after each crash."""

    def __init__(self, folder: Path, file: str, port: int, sessions: set[int]):
        self._folder = folder
        self._file = file
        self._port = port
        self._sessions = sessions
        self._report = folder / f'{file}.report'
        self._results: Results = {}

    def run(self) -> Results:
        for _ in range(MAX_CRASHES):
            self._report.write_text('')
            with redis.Redis(port=self._port) as client:
                client.flushall()
            self._run_pytest()
            culprit = self._read_report()
            if culprit is None:
                break
            self._results[culprit] = Result('crashed', 'the process ended in it, or had to be ended')
        return self._results

    def _run_pytest(self) -> None:
        done = [f'--deselect=tests/{test}' for test in [*self._results, *NOT_COUNTED]]
        options = ['-q', '-p', 'conformance_report', '-p', 'no:cacheprovider', '-p', 'no:faulthandler']
        with (self._folder / f'{self._file}.log').open('ab') as log:
            process = subprocess.Popen(
                [sys.executable, '-m', 'pytest', *options, *done, f'tests/{self._file}'],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._sessions.add(process.pid)
            try:
                process.wait()
            finally:
                _end_session(process.pid)
                self._sessions.discard(process.pid)

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(('RQ_', 'GREENQ_', 'REDIS_'))}
        return {
            **clean,
            'CONFORMANCE_PORT': str(self._port),
            'CONFORMANCE_PYTHON': sys.executable,
            'CONFORMANCE_REPORT': str(self._report),
            'PATH': os.pathsep.join([str(HOOKS / 'bin'), clean.get('PATH', os.defpath)]),
            'PYTHONDONTWRITEBYTECODE': '1',
            'PYTHONPATH': os.pathsep.join(map(str, [HOOKS, self._folder, ROOT])),
            'RUN_SLOW_TESTS_TOO': '1',
        }

    def _read_report(self) -> str | None:
        """Takes in what was reported; returns the test that began and did not end."""
        running = None
        for line in self._report.read_text().splitlines():
            event = json.loads(line)
            if 'broken' in event:
                self._results[self._file] = Result('failed', event['broken'])
            elif 'began' in event:
                running = event['began'].removeprefix('tests/')
            else:
                self._results[event['ended'].removeprefix('tests/')] = Result(event['outcome'], event['reason'])
                running = None
        return running
