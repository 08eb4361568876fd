"""Workers of greenq and of RQ as a user starts them, with the means to harm them. It knows no jobs and no Redis."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from tests.faults import jobs
from tests.helpers import ROOT, wait_until

CLOCK = Path(__file__).parent / 'clock'


@dataclass(frozen=True)
class Library:
    """greenq or RQ."""

    name: str
    #: Jobs that one worker runs at once; None: as many as it is told to.
    slots: int | None

    @cached_property
    def api(self) -> Any:
        return importlib.import_module(self.name)

    def command(self, url: str, name: str, *options: str) -> list[str]:
        """The command line of a worker."""
        program = ['greenq', 'worker', '-w', 'greenq.GeventWorker']
        if self.name == 'rq':
            program = ['rq.cli', 'worker', '--path', str(ROOT)]
        return [sys.executable, '-m', *program, '--url', url, '--name', name, *options]

    def options(self, slots: int, grace: float | None, processes: int) -> list[str]:
        """What RQ has no word for is left out for it."""
        if self.name == 'rq':
            return []
        words = ['--concurrency', str(slots), '--processes', str(processes)]
        return words if grace is None else [*words, '--grace', str(grace)]


GREENQ = Library('greenq', None)
RQ = Library('rq', 1)
LIBRARIES = {library.name: library for library in (GREENQ, RQ)}


class Worker:
    """A worker's process with its children."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open('ab') as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that it has written so far."""
        return self.log.read_text(errors='replace')

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def family(self) -> list[psutil.Process]:
        """Its process and all that descend from it, the eldest first."""
        try:
            eldest = psutil.Process(self.pid)
            return [eldest, *eldest.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def children(self) -> list[psutil.Process]:
        """The processes in which its jobs run."""
        return self.family()[1:]

    def kill_child(self) -> None:
        """`kill -9` of the process in which its jobs run: greenq's worker under its supervisor, RQ's work horse."""
        wait_until(self.children, 60, description='a child to kill')
        self.children()[0].kill()

    def signal_all(self, number: signal.Signals) -> None:
        """Signals the eldest first, so that it starts nobody who is not signalled as well."""
        for process in self.family():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                pass

    def freeze(self) -> None:
        """Stops it in its tracks, with its children."""
        self.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal_all(signal.SIGCONT)

    def kill_all(self) -> None:
        """As the loss of its host does: all at one moment, and none does a last thing."""
        self.freeze()
        self.signal_all(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Signals its own process only, as an init system does."""
        if self.is_alive:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> float | None:
        """Seconds until it has ended; None if it does not within `timeout`."""
        began = time.monotonic()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began

    def end(self) -> None:
        """Ends it by force, whatever state it is in."""
        if self.is_alive:
            self.kill_all()


def environment(ledger: Path, clock_shift: float = 0.0) -> dict[str, str]:
    """What a worker finds in its environment: no address but the one on its command line."""
    values = {name: value for name, value in os.environ.items() if not name.endswith('REDIS_URL')}
    values[jobs.LEDGER_VARIABLE] = str(ledger)
    values['PYTHONUNBUFFERED'] = '1'
    if clock_shift:
        values['PYTHONPATH'] = str(CLOCK)
        values['GREENQ_FAULTS_CLOCK_SHIFT'] = str(clock_shift)
    return values
