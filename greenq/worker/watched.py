"""A gevent worker as its supervisor and its operator see it: signs of life, what keeps its hub from running, jobs that
will not end, and when it takes no more jobs. It executes none."""

import math
import os
import signal
import time
from collections.abc import Iterator
from linecache import getline
from types import FrameType
from typing import Any

import gevent
from gevent import get_hub
from greenlet import getcurrent, greenlet

from greenq.defaults import DEADLINE_GRACE_SECONDS, DEFAULT_BLOCK_WARNING_SECONDS
from greenq.executions import Execution
from greenq.pulse import Pulse
from greenq.worker import hub_watch
from greenq.worker.attempts import Interrupted
from greenq.worker.base import BaseWorker
from greenq.worker.deadlines import GeventDeathPenalty
from greenq.worker.hub_watch import Blockage, HubWatch
from greenq.worker.lifespan import Lifespan, resident_mib
from greenq.worker.record import WorkerStatus
from greenq.worker.switches import Switches

#: How often (s) the worker looks at itself.
GUARD_SECONDS = 1.0


class WatchedWorker(BaseWorker):
    """`max_memory` (MiB) and `max_age` (s): the worker ends once it is larger or older and its jobs are done.
    `block_warning`: a job that keeps all others from running for longer than this (s) is logged; 0 logs none."""

    _pulse: Pulse
    _is_supervised = False
    #: Why it takes no more jobs though nobody has asked it to stop; '' while it does.
    _recycles_for = ''
    _is_replaced = False
    #: When it leaves whatever still runs (monotonic).
    _leaves_at = math.inf

    def __init__(
        self,
        *args: Any,
        max_memory: float | None = None,
        max_age: float | None = None,
        block_warning: float = DEFAULT_BLOCK_WARNING_SECONDS,
        **kwargs: Any,
    ):
        for name, value in (('max_memory', max_memory), ('max_age', max_age)):
            if value is not None and value <= 0:
                raise ValueError(f'{name} {value!r} is not allowed. Use a number above 0, or None.')
        if block_warning < 0:
            raise ValueError(f'block_warning {block_warning!r} is not allowed. Use a number of seconds of at least 0.')
        super().__init__(*args, **kwargs)
        self.max_memory = max_memory
        self.max_age = max_age
        self.block_warning = block_warning

    # What the worker that executes says of itself

    def _busy_count(self) -> int:
        """Jobs in hand."""
        raise NotImplementedError(f'{type(self).__name__} must define _busy_count()')

    def _find(self, target: greenlet) -> tuple[greenlet, Execution | None]:
        """The slot that a greenlet is, or works for (else the greenlet), and its execution, if it has one."""
        raise NotImplementedError(f'{type(self).__name__} must define _find()')

    def _execution_id_of(self, target: greenlet) -> str:
        """The execution that a greenlet, which is no slot, works for; '' for none."""
        raise NotImplementedError(f'{type(self).__name__} must define _execution_id_of()')

    def _give_up(self, execution: Execution, error: BaseException) -> None:
        """Fails what will not end by itself."""
        raise NotImplementedError(f'{type(self).__name__} must define _give_up()')

    def _wake_up(self) -> None:
        """Ends all waiting; called by signal handlers."""
        raise NotImplementedError(f'{type(self).__name__} must define _wake_up()')

    # Start and stop

    def _take_pulse(self) -> Switches | None:
        """Before anything else. What follows the switches of greenlets, if somebody wants to know."""
        self._check_memory()
        inherited = Pulse.inherited()
        if inherited is not None:
            self._pulse, self._is_supervised = inherited, True
        elif '_pulse' not in self.__dict__:
            self._pulse = Pulse()
        self._parent_pid = os.getppid()
        self.exit_status = self.block_count = 0
        self._recycles_for, self._is_replaced, self._leaves_at = '', False, math.inf
        idle = (get_hub(), getcurrent())
        self._switches = Switches(self._pulse, self._execution_id_of, idle) if self._is_supervised else None
        self._hub_watch = HubWatch(self._pulse, self._find, self._busy_count, Interrupted, self.block_warning)
        return self._switches

    def _check_memory(self) -> None:
        used = resident_mib()
        if self.max_memory is not None and used > self.max_memory:
            raise ValueError(
                f'max_memory {self.max_memory:g} (MiB) is not enough: the worker takes {used:.0f} before its first job'
            )

    def _start_watch(self) -> None:
        GeventDeathPenalty.publish_soonest(self._pulse)
        self._lifespan = Lifespan(self.max_memory, self.max_age)
        self._hub_watch.start()
        if self._switches is not None:
            self._switches.start()
        self._guard_greenlet = gevent.spawn(self._guard_forever)

    def _stop_watch(self) -> None:
        self._guard_greenlet.kill()
        if self._switches is not None:
            self._switches.stop()
        self._hub_watch.stop()
        GeventDeathPenalty.publish_soonest(None)
        self._report_blockages()

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()
        self._signal_handlers.install({signal.SIGTSTP: self.request_quiet})

    def request_stop(self, signum: int | None, frame: FrameType | None) -> None:
        """Warm shutdown; wakes whatever the worker waits for."""
        super().request_stop(signum, frame)  # type: ignore[arg-type]
        self._wake_up()

    def request_quiet(self, signum: int | None, frame: FrameType | None) -> None:
        """As for every worker; wakes whatever the worker waits for."""
        super().request_quiet(signum, frame)
        self._wake_up()

    def _idle_state(self) -> str:
        return WorkerStatus.SUSPENDED.value if self._is_quiet else super()._idle_state()

    def _recycle(self, reason: str, within: float = math.inf, *, is_replaced: bool = True) -> None:
        """Takes no more jobs and ends when those at work have ended, or in so many seconds; its supervisor, if it has
        one, starts another in its place."""
        self._leaves_at = min(self._leaves_at, time.monotonic() + within)
        if not self._recycles_for:
            self._recycles_for = reason
            self._is_replaced = is_replaced and self._is_supervised
            self.log.info('Worker %s: takes no more jobs and ends, because %s', self.name, reason)
            if self._is_replaced:
                self._pulse.leave()
        self._wake.wake()
        self._wake_up()

    def _note_end(self) -> None:
        self.exit_status = os.EX_TEMPFAIL if self._is_replaced and not self._stop_requested else 0

    # The guard

    def _guard_forever(self) -> None:
        while True:
            try:
                self._guard()
            except Exception:
                self.log.exception('Worker %s: cannot look at itself', self.name)
            gevent.sleep(GUARD_SECONDS)

    def _guard(self) -> None:
        self._hub_watch.beat()
        self._report_blockages()
        for block in GeventDeathPenalty.stuck(hub_watch.GIVE_UP_SECONDS):
            self._end_stuck(block)
        if self._is_supervised and os.getppid() != self._parent_pid and not self._stop_requested:
            self.log.warning('Worker %s: its supervisor is gone', self.name)
            self.request_stop(None, None)
        excess = '' if self._recycles_for or self._is_quiet else self._lifespan.excess()
        if excess:
            self._recycle(excess)

    def _end_stuck(self, block: GeventDeathPenalty) -> None:
        """The job of a block that is long past its deadline fails, and its outcome, should there ever be one, is
        dropped. What goes on in its greenlet only a new process gets rid of."""
        _, execution = self._find(block.greenlet)
        block.give_up(Interrupted())
        late = time.monotonic() - block.deadline
        if execution is None:
            self.log.error('Worker %s: something swallows its deadline, for %.0f seconds now', self.name, late)
            return
        what = f'job {execution.job_id} ({_function_of(execution)})'
        self.log.error('Worker %s: %s swallows its deadline, for %.0f seconds now; it fails', self.name, what, late)
        if execution.id in self.executions:
            self._give_up(execution, block.error(f'; it did not end when told to, for {late:.0f} seconds'))
        if self._is_supervised:
            self._recycle(f'{what} does not end', within=DEADLINE_GRACE_SECONDS)

    def _on_stuck_loop(self) -> None:
        gevent.spawn(self._end_stuck_loop)

    def _end_stuck_loop(self) -> None:
        self.log.error('Worker %s: a coroutine neither waits nor ends; others get a new loop', self.name)
        if self._is_supervised:
            self._recycle('a coroutine neither waits nor ends', within=DEADLINE_GRACE_SECONDS)

    def _give_back_all(self, cause: str = 'shutdown', *, innocent: bool = False) -> None:
        if self._recycles_for and not self._stop_requested:
            # Only what another job has done cuts jobs off when a worker is replaced.
            cause, innocent = f'its worker was replaced, because {self._recycles_for}', True
        super()._give_back_all(cause, innocent=innocent)

    def _report_blockages(self) -> None:
        for blockage in self._hub_watch.take_blockages():
            self.block_count += 1
            execution: Execution | None = blockage.found
            who = 'something' if execution is None else f'job {execution.job_id} ({_function_of(execution)})'
            self.log.warning(
                'Worker %s: %s kept all jobs from running for %.1f seconds (%.1f of them computing)%s',
                self.name,
                who,
                blockage.seconds,
                blockage.computing,
                ''.join(_told(blockage)),
            )

    def _counts(self) -> dict[str, int]:
        return {**super()._counts(), 'greenq_blocks': self.block_count}


def _function_of(execution: Execution) -> str:
    job = execution._job
    try:
        return str(job.func_name) if job is not None else 'unknown function'
    except Exception:
        return 'unreadable function'


def _told(blockage: Blockage) -> Iterator[str]:
    """The stack as text, without what the worker itself has there."""
    frames = blockage.stack
    begin = next(
        (n + 1 for n, (file, _, name) in enumerate(frames) if name == '_call' and file.endswith('job_call.py')), 0
    )
    for file, line, name in frames[begin:] or frames:
        yield f'\n  File "{file}", line {line}, in {name}'
        code = getline(file, line).strip()
        if code:
            yield f'\n    {code}'
