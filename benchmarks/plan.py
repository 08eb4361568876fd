"""Which measurements a run consists of, in which order, and their execution one after the other."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from benchmarks import workloads
from benchmarks.contenders import Installed
from benchmarks.figures import Results
from benchmarks.processes import ROOT
from benchmarks.progress import Progress
from benchmarks.servers import Server
from benchmarks.session import Lost, Session
from benchmarks.workloads import Scale

NAMES = ('noop', 'latency', 'redis', 'naps', 'http', 'enqueue', 'memory', 'backlog', 'processes')
#: Measured in the first round only: they hardly vary, and take long.
ONCE = frozenset({'redis', 'memory'})


@dataclass(frozen=True)
class Step:
    """One contender, one worker, one or more workloads."""

    installed: Installed
    title: str
    run: Callable[[Step], None]

    def __str__(self) -> str:
        return f'{self.title}: {self.installed.name}'


@dataclass
class Plan:
    """A run. Rounds are outermost, then workloads, then contenders: what is compared is measured close together."""

    contenders: Sequence[Installed]
    server: Server
    rounds: int
    wanted: frozenset[str]
    scale: Scale
    results: Results
    http_url: str = ''

    def execute(self, progress: Progress) -> None:
        """Run all steps. One that fails is reported in the results, and the others go on."""
        steps = list(self._steps())
        progress.begin(len(steps))
        for step in steps:
            progress.advance(str(step))
            began = time.monotonic()
            try:
                step.run(step)
            except (Lost, RuntimeError, RedisError, OSError, KeyError, TimeoutError) as error:
                self.results.failures.append(f'{step}: {error}')
            self.results.seconds[str(step)] = round(time.monotonic() - began, 2)
            self.server.clear()
        progress.end()

    def _steps(self) -> Iterator[Step]:
        for number in range(1, self.rounds + 1):
            for title, run, applies in self._groups(is_first=number == 1):
                # A different order in each round: none is always the one after the largest.
                turn = number - 1
                for installed in (*self.contenders[turn:], *self.contenders[:turn]):
                    if applies(installed):
                        yield Step(installed, f'round {number}/{self.rounds}, {title}', run)

    def _groups(self, is_first: bool) -> Iterator[tuple[str, Callable[[Step], None], Callable[[Installed], bool]]]:
        present = self.wanted if is_first else self.wanted - ONCE
        plain = [name for name in ('redis', 'noop', 'naps', 'latency') if name in present]
        if plain:
            yield f'{", ".join(plain)} at {workloads.PLAIN_SLOTS}', lambda step: self._plain(step, plain), _always
        if 'naps' in present:
            for slots in workloads.NAP_SLOTS[1:]:
                yield f'50-ms sleeps at {slots}', self._naps(slots), _has_slots(slots, is_first)
        if 'http' in present:
            yield 'HTTP calls', self._http, _always
        for name, measure, applies in (
            ('enqueue', workloads.enqueue, _enqueues),
            ('memory', workloads.memory, _always),
            ('backlog', workloads.backlog, _grows(is_first)),
            ('processes', workloads.processes, _grows(is_first)),
        ):
            if name in present:
                yield name, self._own_sessions(measure), applies

    def _plain(self, step: Step, names: Sequence[str]) -> None:
        with Session(step.installed, self.server, workloads.PLAIN_SLOTS) as session:
            if 'redis' in names:
                self.results.add(step.installed.name, workloads.redis_cost(session, self.scale))
            if 'noop' in names:
                self.results.add(step.installed.name, workloads.noop(session, self.scale))
            if 'naps' in names:
                self.results.add(step.installed.name, workloads.naps(session, self.scale))
            if 'latency' in names:
                self.results.add_latencies(step.installed.name, workloads.latency(session, self.scale))

    def _naps(self, slots: int) -> Callable[[Step], None]:
        def run(step: Step) -> None:
            with Session(step.installed, self.server, slots) as session:
                self.results.add(step.installed.name, workloads.naps(session, self.scale))

        return run

    def _http(self, step: Step) -> None:
        preload = ('requests',) if step.installed.contender.forks else ()
        with Session(step.installed, self.server, workloads.HTTP_SLOTS, preload=preload) as session:
            self.results.add(step.installed.name, workloads.http(session, self.scale, self.http_url))

    def _own_sessions(
        self, measure: Callable[[Installed, Server, Scale], Iterator[workloads.Figures]]
    ) -> Callable[[Step], None]:
        def run(step: Step) -> None:
            for figures in measure(step.installed, self.server, self.scale):
                self.results.add(step.installed.name, figures)

        return run


def _always(installed: Installed) -> bool:
    return True


def _has_slots(slots: int, is_first: bool) -> Callable[[Installed], bool]:
    """Those with fixed slots were measured with the smallest number; peers run at the largest number in the first round
    only, because none comes near the ideal there."""

    def applies(installed: Installed) -> bool:
        contender = installed.contender
        if contender.fixed_slots:
            return False
        return slots <= contender.most_slots and (is_first or not contender.is_peer or slots < workloads.NAP_SLOTS[-1])

    return applies


def _enqueues(installed: Installed) -> bool:
    """One kind of worker of each queue will do: all have the same producer."""
    return installed.name not in ('fork', 'rq-simple', 'celery-prefork')


def _grows(is_first: bool) -> Callable[[Installed], bool]:
    """greenq in each round; the floor once, for comparison."""
    return lambda installed: (
        workloads.has_backlog(installed.contender) and (is_first or installed.contender.is_supervised)
    )


@contextmanager
def running_web_server() -> Iterator[str]:
    """The URL of an HTTP server that answers after 50 ms."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.web', str(workloads.NAP_SECONDS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        select.select([process.stdout], [], [], 20)
        yield f'http://127.0.0.1:{int(process.stdout.readline())}/'
    finally:
        process.kill()
        process.communicate()
