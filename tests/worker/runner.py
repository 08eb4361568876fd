"""Real worker processes that tests give orders to; each is reused, because starting one takes most of a second."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis

from greenq.store import keys
from tests.helpers import ROOT, wait_until

CLASSES = {
    'simple': 'greenq.SimpleWorker',
    'fork': 'greenq.Worker',
    'spawn': 'greenq.SpawnWorker',
    'gevent': 'greenq.GeventWorker',
}
WORK_ARGUMENTS = ('burst', 'max_jobs', 'max_idle_time', 'dequeue_strategy', 'logging_level', 'with_scheduler')


class Ended(NamedTuple):
    """How a worker's `work()` ended: what it returned, or the traceback of what it raised, and its duration."""

    result: bool | None
    error: str | None
    seconds: float


class Runner:
    """A process in which one worker after the other works."""

    def __init__(self, kind: str, url: str, patched: bool | None = None) -> None:
        self.kind = kind
        self.url = url
        self.worker_name = ''
        self.is_busy = False
        self._log = tempfile.NamedTemporaryFile(prefix='greenq-runner-')  # noqa: SIM115
        is_patched = kind == 'gevent' if patched is None else patched
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.worker.child', 'gevent' if is_patched else 'plain'],
            cwd=ROOT,
            env={**os.environ, 'GREENQ_REDIS_URL': url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What the workers have logged so far."""
        return Path(self._log.name).read_text(errors='replace')

    def begin(
        self,
        queues: str | Sequence[str] = 'default',
        worker_class: str | None = None,
        url: str | None = None,
        **options: Any,
    ) -> str:
        """Has a worker start; `options` are the class's arguments and those of `work()`. Returns its name."""
        self.worker_name = options.setdefault('name', f'{self.kind}-{uuid.uuid4().hex[:8]}')
        work = {name: options.pop(name) for name in WORK_ARGUMENTS if name in options}
        order = {
            'class': worker_class or CLASSES[self.kind],
            'queues': [queues] if isinstance(queues, str) else list(queues),
            'options': options,
            'work': work,
            'url': url or self.url,
        }
        assert self._process.stdin is not None
        self.is_busy = True
        self._process.stdin.write(json.dumps(order).encode() + b'\n')
        self._process.stdin.flush()
        return self.worker_name

    def end(self, timeout: float = 20) -> Ended:
        """Waits for the end of what was begun."""
        output = self._process.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], timeout)
        line = output.readline() if ready else b''
        if not line:
            state = 'is still at work' if self.is_alive else f'ended with status {self._process.poll()}'
            self.kill()
            raise AssertionError(f'{self.worker_name} {state} after {timeout} s:\n{self.output[-4000:]}')
        self.is_busy = False
        return Ended(**json.loads(line))

    def run(self, queues: str | Sequence[str] = 'default', **options: Any) -> Ended:
        """Has a worker work in burst mode to its end, which must be a good one."""
        self.begin(queues, **{'burst': True, **options})
        ended = self.end()
        assert ended.error is None, ended.error
        return ended

    def wait_for_state(self, connection: redis.Redis, *states: str) -> None:
        """Waits until the worker's record is in one of the states."""
        client: Any = connection
        expected = {state.encode() for state in states}
        wait_until(
            lambda: client.hget(keys.worker(self.worker_name), 'state') in expected,
            description=f'{self.worker_name} is {states}',
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal to the process."""
        self._process.send_signal(number)

    def stop(self, timeout: float = 20) -> Ended:
        """Stops the worker gently; its end must be a good one."""
        self.signal(signal.SIGTERM)
        ended = self.end(timeout)
        assert ended.error is None, ended.error
        return ended

    def kill(self) -> None:
        """Kills the process, as the kernel does when memory is short."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process and gives all back."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()


class Runners:
    """One runner of each kind, started when first asked for and anew when it has died; more on request."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shared: dict[str, Runner] = {}
        self._all: list[Runner] = []

    def __call__(self, kind: str) -> Runner:
        runner = self._shared.get(kind)
        if runner is None or not runner.is_alive:
            runner = self._shared[kind] = self.new(kind)
        return runner

    def new(self, kind: str, patched: bool | None = None) -> Runner:
        """A runner of one's own, which may be killed."""
        runner = Runner(kind, self._url, patched)
        self._all.append(runner)
        return runner

    def end_leftovers(self) -> None:
        """Kills what a failed test has left at work, so that it takes no other test's jobs."""
        for runner in self._all:
            if runner.is_busy and runner.is_alive:
                runner.kill()

    def close(self) -> None:
        for runner in self._all:
            runner.close()
