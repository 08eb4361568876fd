"""`greenq worker` as a supervisor: its workers are the same command in fresh interpreters, patched from their start.

The command line is read by a process that then makes way for one with nothing but this: a supervisor lives as long as
its workers, and its memory is theirs to lack.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, NamedTuple, NoReturn

from greenq import bootstrap
from greenq.child_process import ChildProcess
from greenq.custody import Custody
from greenq.logutils import setup_loghandlers
from greenq.pulse import Pulse
from greenq.supervisor import RECYCLE, Supervisor, WorkerData


class WorkerCommand(ChildProcess):
    """This process's command line as a child process that is a worker of the given name."""

    def __init__(self, name: str):
        super().__init__(Pulse.shared())
        self._name = name

    def start(self) -> None:
        """Starts it."""
        self._spawn(bootstrap.own_command(), {bootstrap.NAME_VARIABLE: self._name, bootstrap.PATCH_VARIABLE: '1'})


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


class Order(NamedTuple):
    """What a supervisor needs to know of its command line.

    `worker_name`: what the first of the `processes` is called, None for random names. `grace` (s): what workers give
    their jobs when told to stop. `worker_ttl` (s): how long RQ's record of one lives without a beat. `connection`: the
    options that say where Redis is, by name.
    """

    processes: int
    worker_name: str | None
    grace: float
    worker_ttl: int
    level: str
    date_format: str
    log_format: str
    connection: dict[str, Any]

    def give(self) -> NoReturn:
        """Replaces this process by the supervisor."""
        bootstrap.restart_supervising(json.dumps(self))


def obey(text: str) -> NoReturn:
    """Runs the workers of an order until they are told to stop or are done; exits with the status of the command."""
    order = Order(*json.loads(text))
    # A supervisor that waited for a reader of its log would replace no worker meanwhile.
    setup_loghandlers(order.level, order.date_format, order.log_format, name='greenq.supervisor', may_wait=False)
    custody = Custody(lambda: _connect(order), order.worker_ttl)
    supervisor = CommandSupervisor(order.processes, order.worker_name, order.grace, custody)
    supervisor.supervise(respawn=True)
    sys.exit(supervisor.failed_start or 0)


def _connect(order: Order) -> Any:
    from greenq.cli.config import read_config

    return read_config(**order.connection).connection
