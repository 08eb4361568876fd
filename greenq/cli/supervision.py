"""`greenq worker` as a supervisor: its workers are the same command in fresh interpreters, patched from their start."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from greenq import bootstrap
from greenq.child_process import ChildProcess
from greenq.custody import Custody
from greenq.pulse import VARIABLE, Pulse
from greenq.supervisor import RECYCLE, Supervisor, WorkerData

#: Names the worker in a process of its own.
NAME_VARIABLE = 'GREENQ_WORKER_NAME'


def is_supervised() -> bool:
    """Whether this process is a worker's that a supervisor has started."""
    return VARIABLE in os.environ


class WorkerCommand(ChildProcess):
    """This process's command line as a child process that is a worker of the given name."""

    def __init__(self, name: str):
        super().__init__(Pulse.shared())
        self._name = name

    def start(self) -> None:
        """Starts it."""
        self._spawn(bootstrap.own_command(), {NAME_VARIABLE: self._name, bootstrap.PATCH_VARIABLE: '1'})


class CommandSupervisor(Supervisor):
    """Keeps `processes` workers of this command running.

    `worker_name`: what the first is called; the others get a number after it. None: random names. `grace` (s) is what
    the workers give their jobs when told to stop.
    """

    def __init__(self, processes: int, worker_name: str | None, grace: float, custody: Custody):
        super().__init__(processes, custody, logging.getLogger('greenq.supervisor'))
        self._worker_name = worker_name
        self._grace = grace
        self._any_began = False
        #: Exit status of a worker that could not start, if none ever could.
        self.failed_start: int | None = None

    def _new_name(self) -> str:
        if self._worker_name is None:
            return super()._new_name()
        names = [self._worker_name, *(f'{self._worker_name}.{n}' for n in range(2, len(self.worker_dict) + 2))]
        return next(name for name in names if name not in self.worker_dict)

    def _new_process(self, name: str) -> WorkerCommand:
        return WorkerCommand(name)

    def _grace_of(self, worker_data: WorkerData) -> float | None:
        return self._grace

    def handle_dead_worker(self, worker_data: WorkerData) -> None:
        """As for every supervisor; where not one worker could ever start, another try would fare no better."""
        pulse, exitcode = worker_data.pulse, worker_data.process.exitcode
        if exitcode in (0, RECYCLE) or (pulse is not None and pulse.has_begun):
            self._any_began = True
        elif not self._any_began and exitcode is not None and exitcode > 0:
            self.failed_start = exitcode
            self.request_stop()
        super().handle_dead_worker(worker_data)

    def _report_death(self, worker_data: WorkerData, cause: str) -> None:
        # One that never began has left nothing, and Redis may be what it could not reach.
        if worker_data.pulse is not None and worker_data.pulse.has_begun:
            super()._report_death(worker_data, cause)


def supervise(
    processes: int, worker_name: str | None, grace: float, connect: Callable[[], Any], worker_ttl: int
) -> int:
    """Runs the workers until they are told to stop or are done; returns the exit status of the command."""
    supervisor = CommandSupervisor(processes, worker_name, grace, Custody(connect, worker_ttl))
    supervisor.supervise(respawn=True)
    return supervisor.failed_start or 0
