"""RQ 2.12 and greenq, each in a process of its own; RQ's has a private environment, made once per machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from greenq.store import keys
from tests.helpers import ROOT, command_environment, wait_until

VERSION = '2.12.0'


class NotInstallable(Exception):
    """pip cannot install RQ here; the message is its last line."""


def environment_of_rq2() -> Path:
    """The interpreter of an environment that holds RQ 2.12 and redis-py; `NotInstallable` if pip fails."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'greenq-tests'
    folder = cache / f'rq-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}'
    python = folder / 'bin' / 'python'
    if python.exists():
        return python
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _install(Path(scratch) / 'made')
            # Whoever comes second, of two sessions that begin at once, uses what the first has made.
            if not folder.exists():
                (Path(scratch) / 'made').rename(folder)
    except (OSError, subprocess.SubprocessError) as problem:
        raise NotInstallable(str(problem)) from problem
    return python


def _install(folder: Path) -> None:
    pip = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--retries', '1', '--timeout', '10']
    for command in ([sys.executable, '-m', 'venv', folder], [folder / 'bin/python', *pip, f'rq=={VERSION}', 'redis']):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise NotInstallable((done.stderr.strip() or 'no reason given').splitlines()[-1])


class Side:
    """An agent of one package: `side.enqueue('add', 1)` is carried out in its process."""

    def __init__(self, package: str, python: Path, url: str) -> None:
        self.package = package
        self.python = python
        self.url = url
        self._log = tempfile.NamedTemporaryFile(prefix='greenq-agent-')  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, '-m', 'tests.interop.rq2_agent', package, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __repr__(self) -> str:
        return self.package

    def __getattr__(self, order: str) -> Callable[..., Any]:
        return partial(self._do, order)

    def _do(self, order: str, *args: Any, **options: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({'do': order, 'args': args, 'options': options}).encode() + b'\n')
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f'the agent of {self.package} is gone:\n{Path(self._log.name).read_text()[-4000:]}'
        reply = json.loads(line)
        assert 'error' not in reply, reply['error']
        return reply['value']

    @contextmanager
    def running_worker(self, name: str, connection: redis.Redis, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A forking worker of this package, started by its command, that listens to commands during the block."""
        program = ['rq.cli'] if self.package == 'rq' else ['greenq']
        extra: Sequence[str] = ['--path', str(ROOT)] if self.package == 'rq' else ['-w', 'greenq.Worker']
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [self.python, '-m', *program, 'worker', '--url', self.url, '--name', name, *extra, *options],
                cwd=ROOT,
                env=command_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                wait_until(lambda: connection.pubsub_numsub(keys.channel(name))[0][1] == 1, 20, description='listens')
                yield process
            except BaseException:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors='replace'))
                raise
            finally:
                if process.poll() is None:
                    process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(10)
        self._log.close()
