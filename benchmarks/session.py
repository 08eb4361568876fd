"""A worker that runs, with its producer: what the workloads measure with."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contenders import Installed
from benchmarks.processes import ROOT, Memory, Tree
from benchmarks.records import Records, missing_and_doubled
from benchmarks.servers import Cost, Server
from benchmarks.setting import environment

#: How long (s) a worker may take until its first jobs have run.
START_SECONDS = 60.0
#: Jobs are given up as lost when none has ended for so long (s).
STALL_SECONDS = 15.0
#: After the last job, what the worker and the server still do about it is counted for so long (s).
SETTLE_SECONDS = 0.2
#: What `hold` waits for (s); the worker is killed long before.
HOLD_SECONDS = 120.0


class Lost(Exception):
    """Jobs did not run."""


class Drain(NamedTuple):
    """What a worker took for a full queue: seconds, the worker's CPU time per job (us), the server's cost per job."""

    #: What filling the queue took, as fast as the producer can.
    filling_seconds: float
    seconds: float
    worker_us: float
    server: Cost
    doubled: int


class Producer:
    """The process that enqueues, in the contender's environment."""

    def __init__(self, installed: Installed, settings: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open('ab') as errors:
            self._process = subprocess.Popen(
                installed.contender.producer_command(installed.bin_folder),
                cwd=ROOT,
                env={**environment(**settings), 'PYTHONPATH': str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, do: str, job: str, count: int, args: Sequence[Any] = (), first: int = 0) -> Any:
        """What `benchmarks.produce` answers to this."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {'do': do, 'job': job, 'first': first, 'count': count, 'args': list(args)}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ''
        if not answer:
            last = (self._log.read_text(errors='replace').strip().splitlines() or ['(no output)'])[-1]
            raise RuntimeError(f'the producer ended: {last}')
        return json.loads(answer)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


class Session:
    """A context manager: the producer and, if `slots` is given, a worker that has run its first jobs."""

    def __init__(
        self,
        installed: Installed,
        server: Server,
        slots: int = 0,
        processes: int = 1,
        preload: Sequence[str] = (),
    ) -> None:
        self.contender = installed.contender
        self.server = server
        self.slots = self.contender.slots(slots) if slots else 0
        self._installed = installed
        self._processes = processes
        self._preload = preload
        self._folder = tempfile.TemporaryDirectory(prefix='greenq-bench-')
        folder = Path(self._folder.name)
        self.records = Records(folder / 'records')
        self._queue = f'bench-{installed.name}'
        self._settings = {
            'url': server.url,
            'queue': self._queue,
            'slots': str(self.slots),
            'records': str(self.records.path),
            'preload': ' '.join(preload),
        }
        self._log = folder / 'worker.log'
        self.tree: Tree | None = None
        self.producer = Producer(installed, self._settings, folder / 'producer.log')

    def __enter__(self) -> Session:
        try:
            if self.slots:
                self.start_worker()
                self._warm_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end_worker()
        self.producer.end()
        self._folder.cleanup()

    # ---- the worker ----

    def start_worker(self, slots: int = 0) -> None:
        """Start it, without waiting until it is ready."""
        self.slots = self.contender.slots(slots) if slots else self.slots
        command = self.contender.worker_command(self._installed.bin_folder, self.server.url, self.slots, self._queue)
        copies = self._processes
        if self.contender.is_supervised and copies > 1:
            command[-1:-1] = ['--processes', str(copies)]
            copies = 1
        settings = environment(**{**self._settings, 'slots': str(self.slots)})
        self.tree = Tree(command, settings, self._log, copies, self.contender.is_supervised)

    def end_worker(self) -> None:
        """Kill it."""
        if self.tree is not None:
            self.tree.end()
            self.tree = None

    @property
    def worker(self) -> Tree:
        """Its processes."""
        assert self.tree is not None
        return self.tree

    def _warm_up(self) -> None:
        """Jobs that make all processes import what they need."""
        count = 20 if self._processes == 1 else 2 * self._processes * self.slots
        self.run('nap', 1 if self.contender.forks else count, (0.02,), START_SECONDS)

    # ---- jobs ----

    def run(self, job: str, count: int, args: Sequence[Any] = (), patience: float = STALL_SECONDS) -> None:
        """Enqueue jobs and wait until all have run."""
        self.records.reset()
        self.producer.ask('fill', job, count, args)
        self.wait(count, patience)
        time.sleep(SETTLE_SECONDS)

    def drain(self, job: str, count: int, args: Sequence[Any] = ()) -> Drain:
        """From letting the worker loose on a full queue until the last job has ended.

        The worker is stopped while the queue fills, so that neither its start nor the producer is measured.
        """
        self.worker.pause()
        self.records.reset()
        filling = self.producer.ask('fill', job, count, args)
        cost, cpu = self.server.cost(), self.worker.cpu_seconds()
        began = time.monotonic()
        self.worker.resume()
        self.wait(count)
        time.sleep(SETTLE_SECONDS)
        cost, cpu = self.server.cost() - cost, self.worker.cpu_seconds() - cpu
        records = self.records.read()
        missing, doubled = missing_and_doubled(records, count)
        if missing:
            raise Lost(f'{missing} of {count} jobs did not run')
        seconds = max(record.ended for record in records) - began
        return Drain(filling, seconds, cpu / count * 1e6, cost.per(count), doubled)

    def enqueue_one_by_one(self, job: str, count: int) -> float:
        """Seconds that it takes while the worker stands still; returns when all have run."""
        self.worker.pause()
        self.records.reset()
        seconds: float = self.producer.ask('one_by_one', job, count)
        self.worker.resume()
        self.wait(count)
        return seconds

    def wait(self, count: int, patience: float = STALL_SECONDS) -> None:
        """Until so many jobs have left a record."""
        seen, since = -1, time.monotonic()
        while (present := self.records.count()) < count:
            if present > seen:
                seen, since = present, time.monotonic()
            elif time.monotonic() - since > patience:
                raise Lost(f'{count - seen} of {count} jobs did not run; the worker said: {self.worker.last_words()}')
            self.worker.check()
            time.sleep(0.005)

    def hold(self, count: int) -> Memory:
        """What the worker takes with so many jobs in flight. Afterwards only its end is left to it."""
        self.records.reset()
        self.producer.ask('fill', 'hold', count, (HOLD_SECONDS,))
        self.wait(count)
        time.sleep(1.0)
        return self.worker.memory()
