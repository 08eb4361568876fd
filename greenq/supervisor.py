"""Starts worker processes, watches them, replaces those that die, and stops them all.

A supervisor runs no job and needs neither gevent nor, until something goes wrong, a connection to Redis. Subclasses
say how a worker's process is made. What it does in Redis for workers that cannot is in `custody`.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from greenq.child_process import stop_signals_blocked
from greenq.defaults import DEADLINE_GRACE_SECONDS
from greenq.worker.signals import SAME_REQUEST_SECONDS, SignalHandlers, WakePipe, signal_name

if TYPE_CHECKING:
    from types import FrameType

    from greenq.custody import Custody
    from greenq.pulse import Pulse

#: A worker that lived this long (s) was well; one that dies sooner makes the supervisor wait before it starts the next.
STEADY_SECONDS = 10
#: The longest such wait (s).
MAX_DELAY_SECONDS = 30
#: What a worker may take (s), beyond its grace, to leave after a stop; then it is killed.
LEAVE_SECONDS = 2
#: How often (s) the supervisor looks at its workers when no signal tells of an end.
LOOK_SECONDS = 0.5
#: A worker whose loop is silent for so long (s) hangs: the supervisor keeps its lease.
SILENT_SECONDS = 3.0
#: A worker that hangs although it has no job is killed after this long (s).
HANGING_SECONDS = 60.0
#: Exit status of a worker that wants to be replaced: it has grown too large or too old, or a job will not end.
RECYCLE = os.EX_TEMPFAIL


class Process(Protocol):
    """What a supervisor asks of a worker's process; those of multiprocessing have it too."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def start(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...
    def kill(self) -> None: ...


class WorkerData(NamedTuple):
    """A worker of the supervisor's."""

    name: str
    pid: int
    process: Process
    started_at: float = 0.0

    @property
    def pulse(self) -> Pulse | None:
        """Its signs of life; None for a process that gives none."""
        pulse: Pulse | None = getattr(self.process, 'pulse', None)
        return pulse


class Supervisor:
    """Keeps `num_workers` workers running.

    `custody` acts in Redis for workers that are dead or hang. `replaces_done`: whether a worker that ended well is
    replaced like one that died.
    """

    class Status(Enum):
        """What the supervisor is doing; STOPPED from the moment it is told to stop."""

        IDLE = 1
        STARTED = 2
        STOPPED = 3

    #: How the log lines begin.
    title = 'Supervisor'
    #: Whether a worker that ended well, and was not asked to, is replaced.
    replaces_done = False

    def __init__(self, num_workers: int, custody: Custody, log: logging.Logger):
        self.name = _random_name()
        self.num_workers = num_workers
        self.log = log
        self.status = self.Status.IDLE
        #: The workers that run, by their names.
        self.worker_dict: dict[str, WorkerData] = {}
        self._custody = custody
        self._wake: WakePipe | None = None
        self._restarts = _Restarts()
        self._stop = _Stop()
        self._overdue: set[str] = set()
        self._evicted: set[str] = set()
        self._done_count = 0
        #: Workers that were told to take no more jobs.
        self._quieted: set[str] = set()

    # ---- running ----

    def supervise(self, respawn: bool) -> None:
        """Runs the workers until a signal asks for a stop, or all have ended and are not to be replaced."""
        self.status = self.Status.STARTED
        self._stop = _Stop()
        self._wake = wake = WakePipe()
        handlers = SignalHandlers()
        handlers.install({signal.SIGCHLD: lambda signum, frame: wake.wake()})
        handlers.install({signal.SIGINT: self.request_stop, signal.SIGTERM: self.request_stop})
        handlers.install({signal.SIGTSTP: self._on_quiet})
        try:
            self._start_all()
            self._watch(wake, respawn)
        finally:
            handlers.restore()
            self._wake = None
            wake.close()
        self._custody.settle_debts()
        self.log.info('%s %s: all workers have ended', self.title, self.name)

    def _watch(self, wake: WakePipe, respawn: bool) -> None:
        while True:
            self.check_workers(respawn=respawn)
            self._pass_on_requests()
            self._look_at_pulses()
            self._custody.settle_debts()
            if not self.worker_dict and self._is_over(respawn):
                return
            wake.wait(LOOK_SECONDS)

    def _is_over(self, respawn: bool) -> bool:
        return self.status == self.Status.STOPPED or not respawn or self._done_count >= self.num_workers

    def _start_all(self) -> None:
        for _ in range(self.num_workers):
            self._start_another()

    def _start_another(self) -> None:
        """Starts one worker, by the settings that the subclass keeps."""
        name = self._new_name()
        process = self._new_process(name)
        # A stop that came between the two would miss this worker.
        with stop_signals_blocked():
            process.start()
            assert process.pid is not None
            self.worker_dict[name] = WorkerData(name, process.pid, process, time.monotonic())
        self.log.debug('%s %s: started worker %s with pid %d', self.title, self.name, name, process.pid)

    def _new_name(self) -> str:
        """A name that none of the workers has."""
        return _random_name()

    def _new_process(self, name: str) -> Process:
        """A process for a worker of this name, not started yet."""
        raise NotImplementedError(f'{type(self).__name__} must define _new_process(name)')

    # ---- looking after workers ----

    def check_workers(self, respawn: bool = True) -> None:
        """Forgets dead workers and, with `respawn`, starts others in their place, later if they die too fast."""
        self.reap_workers()
        if not respawn or self._stop.is_quiet or not self._restarts.are_due:
            return
        for _ in range(self._missing_count()):
            if self.status == self.Status.STOPPED:
                return
            self._start_another()

    def _missing_count(self) -> int:
        """Workers to start. One that takes no more jobs makes way for another at once, but not for ever more of them:
        there are never more than twice as many as asked for."""
        wanted = self.num_workers - self._done_count
        leaving = sum(bool(data.pulse and data.pulse.is_leaving) for data in self.worker_dict.values())
        return wanted - len(self.worker_dict) + min(leaving, wanted)

    def reap_workers(self) -> None:
        """Forgets the workers that have ended."""
        for worker_data in list(self.worker_dict.values()):
            if not worker_data.process.is_alive():
                self.handle_dead_worker(worker_data)

    def all_workers_have_stopped(self) -> bool:
        """Whether no worker is left."""
        self.reap_workers()
        return not self.worker_dict

    def handle_dead_worker(self, worker_data: WorkerData) -> None:
        """Called once for each worker that has ended."""
        self.worker_dict.pop(worker_data.name, None)
        exitcode = worker_data.process.exitcode
        self.log.info('%s %s: worker %s %s', self.title, self.name, worker_data.name, ended_how(exitcode))
        if exitcode == RECYCLE:
            pass
        elif exitcode:
            self._restarts.note_death(worker_data.started_at)
            self._report_death(worker_data, ended_how(exitcode))
        elif self.replaces_done:
            self._restarts.note_death(worker_data.started_at)
        else:
            self._done_count += 1
        if worker_data.pulse is not None:
            worker_data.pulse.close()

    def _report_death(self, worker_data: WorkerData, cause: str) -> None:
        """Its jobs run elsewhere at once; the one that killed it, if that is known, is to blame, its neighbours not."""
        name, pulse = worker_data.name, worker_data.pulse
        if name in self._evicted:
            self._custody.report_death(name, '', cause='did not leave in time when its worker was stopped')
        elif name in self._overdue:
            assert pulse is not None
            cause = 'a job kept its worker from running past a deadline, so the worker was killed'
            self._custody.report_death(name, pulse.current, is_overdue=True, cause=cause)
        else:
            culprit = pulse.current if pulse is not None else ''
            if culprit:
                self.log.error('%s %s: it was running execution %s', self.title, self.name, culprit)
            self._custody.report_death(name, culprit, cause=f'its worker {cause}')
        self._overdue.discard(name)
        self._evicted.discard(name)

    def _look_at_pulses(self) -> None:
        """A worker that hangs keeps its lease, until it is overdue: then it is killed."""
        for data in self.worker_dict.values():
            pulse = data.pulse
            if pulse is None or pulse.silence < SILENT_SECONDS:
                continue
            if self._is_overdue(pulse):
                self.log.error(
                    '%s %s: worker %s hangs in execution %s past a deadline, killing it',
                    self.title,
                    self.name,
                    data.name,
                    pulse.current or '(none)',
                )
                self._overdue.add(data.name)
                data.process.kill()
            else:
                self._custody.hold(data.name)

    @staticmethod
    def _is_overdue(pulse: Pulse) -> bool:
        if pulse.soonest < math.inf:
            # Looks included, nothing outlives its deadline by more than the grace.
            return time.monotonic() > pulse.soonest + DEADLINE_GRACE_SECONDS - 2 * LOOK_SECONDS
        return not pulse.jobs and pulse.silence > HANGING_SECONDS

    # ---- stopping ----

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Stops all: warm the first time, cold when asked again after a second. A handler of signals.

        While the supervisor runs it sets a flag only, else it tells the workers itself.
        """
        self.status = self.Status.STOPPED
        self._stop.request()
        if self._wake is not None:
            self._wake.wake()
        else:
            self._pass_on_requests()

    def _on_quiet(self, signum: int, frame: FrameType | None) -> None:
        self._stop.is_quiet = True
        if self._wake is not None:
            self._wake.wake()

    def _pass_on_requests(self) -> None:
        if self._stop.is_quiet:
            self._quiet_workers()
        if self._stop.take_request():
            self.log.info('%s %s: shutting down', self.title, self.name)
            self.stop_workers()
        if self._stop.since is not None:
            self._kill_stragglers(time.monotonic() - self._stop.since)

    def _quiet_workers(self) -> None:
        for name, worker_data in self.worker_dict.items():
            if name in self._quieted:
                continue
            if worker_data.pulse is not None and worker_data.pulse.has_begun:
                self.stop_worker(worker_data, signal.SIGTSTP)
            elif not self._custody.quiet(name):
                # It does not listen yet. The signal would freeze a process that has no handler for it.
                continue
            self._quieted.add(name)
            self.log.info('%s %s: worker %s takes no more jobs', self.title, self.name, name)

    def _kill_stragglers(self, waited: float) -> None:
        for worker_data in self.worker_dict.values():
            grace = 0 if self._stop.is_cold else self._grace_of(worker_data)
            if grace is not None and waited > grace + LEAVE_SECONDS:
                self.log.warning('%s %s: worker %s does not leave, killing it', self.title, self.name, worker_data.name)
                self._evicted.add(worker_data.name)
                worker_data.process.kill()

    def _grace_of(self, worker_data: WorkerData) -> float | None:
        """Seconds that a worker gives its jobs when told to stop; None if it waits for them."""
        return None

    def stop_workers(self) -> None:
        """Asks all workers to shut down; does not wait for them."""
        for worker_data in list(self.worker_dict.values()):
            self.stop_worker(worker_data)

    def stop_worker(self, worker_data: WorkerData, sig: signal.Signals = signal.SIGINT) -> None:
        """Sends a signal to a worker; one that has ended is fine."""
        if worker_data.process.is_alive():
            try:
                os.kill(worker_data.pid, sig)
            except ProcessLookupError:
                self.log.debug('%s %s: worker %s has ended already', self.title, self.name, worker_data.name)


def _random_name() -> str:
    return os.urandom(16).hex()


def ended_how(exitcode: int | None) -> str:
    """An exit status in words."""
    if exitcode is not None and exitcode < 0:
        return f'was killed by {signal_name(-exitcode)}'
    return 'ended well' if exitcode == 0 else f'ended with status {exitcode}'


class _Restarts:
    """When dead workers may be replaced: at once, unless the replacements die young as well."""

    def __init__(self) -> None:
        self._young_deaths = 0
        self._counted_at = 0.0
        self._due_at = 0.0

    @property
    def are_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def note_death(self, started_at: float) -> None:
        present = time.monotonic()
        if present - started_at >= STEADY_SECONDS:
            self._young_deaths = 0
        elif started_at >= self._counted_at:
            # Once for all that were started together.
            self._young_deaths += 1
            self._counted_at = present
            if self._young_deaths > 1:
                self._due_at = present + min(2.0 ** (self._young_deaths - 2), MAX_DELAY_SECONDS)


class _Stop:
    """The wish to stop, as signals express it."""

    def __init__(self) -> None:
        #: When the present kind of stop began; monotonic.
        self.since: float | None = None
        self.is_cold = False
        #: Whether workers are to take no more jobs.
        self.is_quiet = False
        self._is_new = False

    def request(self) -> None:
        present = time.monotonic()
        if self.since is None:
            self.since, self._is_new = present, True
        elif not self.is_cold and present - self.since >= SAME_REQUEST_SECONDS:
            self.since, self.is_cold, self._is_new = present, True, True

    def take_request(self) -> bool:
        """Whether there is a request that was not passed on."""
        is_new, self._is_new = self._is_new, False
        return is_new


__all__ = ['Process', 'RECYCLE', 'Supervisor', 'WorkerData', 'ended_how']
