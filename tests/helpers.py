"""What tests of several folders need: waiting for facts, and running greenq's commands as a user does. No fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from greenq.connections import default_url
from greenq.defaults import RQ_KEY_PREFIX

ROOT = Path(__file__).parent.parent


def wait_until(
    predicate: Callable[[], Any], timeout: float = 10, interval: float = 0.01, description: str = ''
) -> None:
    """Return once the predicate is true; `AssertionError` if it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f'not within {timeout} s: {description or predicate}')
        time.sleep(interval)


def command_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment with changes; None removes a variable."""
    merged = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def run_cli(
    *args: str, env: Mapping[str, str | None] | None = None, timeout: float = 30, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m greenq ...` to its end. `env` changes this process's environment."""
    return subprocess.run(
        [sys.executable, '-m', 'greenq', *args],
        cwd=ROOT,
        env=command_environment(env),
        timeout=timeout,
        input=input,
        capture_output=True,
        text=True,
        check=False,
    )


class WorkerProcess:
    """A `greenq worker` that runs now."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything that it has written so far, on either stream."""
        return self._log.read_text(errors='replace')

    def wait(self, timeout: float = 30) -> int:
        """Its exit status."""
        return self.process.wait(timeout)

    def wait_until_registered(self, url: str, timeout: float = 20) -> None:
        with redis.Redis.from_url(url) as client:
            wait_until(
                lambda: client.exists(f'{RQ_KEY_PREFIX}:worker:{self.name}') or self.process.poll() is not None,
                timeout,
                description=f'worker {self.name} registers',
            )
        if self.process.poll():
            raise AssertionError(f'the worker ended with status {self.process.returncode}:\n{self.output}')

    def end(self, timeout: float) -> None:
        """End it and its children, by force if it does not obey."""
        family = _family(self.pid) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in family:
            if child.is_running():
                child.kill()


@contextmanager
def worker_process(
    *args: str,
    url: str | None = None,
    env: Mapping[str, str | None] | None = None,
    wait_ready: bool = True,
    end_timeout: float = 10,
) -> Iterator[WorkerProcess]:
    """Run `python -m greenq worker ...` during the block; its name is made up unless `args` hold `--name`.

    `wait_ready` waits until it is registered, or has ended with status 0, as in burst mode.
    """
    url = url or default_url()
    name = args[args.index('--name') + 1] if '--name' in args else f'test-{uuid.uuid4().hex[:12]}'
    named = args if '--name' in args else ('--name', name, *args)
    with tempfile.TemporaryDirectory(prefix='greenq-worker-') as folder:
        log = Path(folder) / 'output'
        with log.open('wb') as output:
            process = subprocess.Popen(
                [sys.executable, '-m', 'greenq', 'worker', '--url', url, *named],
                cwd=ROOT,
                env=command_environment(env),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        worker = WorkerProcess(name, process, log)
        try:
            if wait_ready:
                worker.wait_until_registered(url)
            yield worker
        finally:
            worker.end(end_timeout)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
