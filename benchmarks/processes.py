"""A process with all its descendants, seen as one: stopped, continued, weighed, ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil

ROOT = Path(__file__).parent.parent
#: A supervisor is continued this long (s) after what it supervises, so that it does not find it silent.
SUPERVISOR_DELAY = 0.2


def end_on_sigterm() -> None:
    """Lets SIGTERM end this process as an error would, so that what it has started ends with it."""

    def leave(*_: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)


class Memory(NamedTuple):
    """Proportional set size in MiB: of all processes, and of the largest alone."""

    total: float
    largest: float


class Tree:
    """Copies of a command, each with whatever it starts."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, copies: int, is_supervised: bool
    ) -> None:
        self._log = log
        self._is_supervised = is_supervised
        with log.open('ab') as output:
            self._roots = [
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**environment, 'PYTHONPATH': str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                for _ in range(copies)
            ]

    def check(self) -> None:
        """Raises `RuntimeError` if one of the copies has ended."""
        for root in self._roots:
            if root.poll() is not None:
                raise RuntimeError(f'the worker ended with status {root.returncode}: {self.last_words()}')

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self._log.read_text(errors='replace').strip().splitlines()
        return ' / '.join(lines[-4:]) or '(no output)'

    def pause(self) -> None:
        """Stop all, parents first; returns when they stand still."""
        processes = self._processes()
        for process in processes:
            _signal(process, signal.SIGSTOP)
        for process in processes:
            while _status(process) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, None):
                time.sleep(0.001)

    def resume(self) -> None:
        """Continue all, children first."""
        roots = {root.pid for root in self._roots}
        processes = self._processes()[::-1]
        if self._is_supervised:
            for process in processes:
                if process.pid not in roots:
                    _signal(process, signal.SIGCONT)
            time.sleep(SUPERVISOR_DELAY)
        for process in processes:
            _signal(process, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Used so far by all, and by those of their children that have ended."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
        return total

    def memory(self) -> Memory:
        """What it takes now."""
        sizes = [size for process in self._processes() if (size := _pss_mib(process.pid))]
        return Memory(sum(sizes), max(sizes))

    def end(self) -> None:
        """Kill all, and wait until they are gone."""
        processes = self._processes()
        for process in processes:
            _signal(process, signal.SIGKILL)
        for root in self._roots:
            root.wait()
        psutil.wait_procs(processes, timeout=10)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for root in self._roots:
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(root.pid)
                found += [parent, *parent.children(recursive=True)]
        return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        os.kill(process.pid, number)


def _status(process: psutil.Process) -> str | None:
    try:
        return str(process.status())
    except psutil.Error:
        return None


def _pss_mib(pid: int) -> float:
    try:
        text = Path(f'/proc/{pid}/smaps_rollup').read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith('Pss:')), 0.0)
