"""What all workers share: the order of start and stop, and the loop. It names no Redis command.

A worker is put together in layers, a file each: `record` (as Redis knows it), `wiring` (settings and parts),
`attempts` (one job), `upkeep` (everything else), and this. Subclasses say how a job is executed (`execute_job`).
"""

import math
import os
import random
import signal
import time
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from greenq.defaults import (
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
)
from greenq.exceptions import StopRequested
from greenq.job import Job
from greenq.logutils import green, setup_loghandlers
from greenq.queue import Queue
from greenq.scheduler import RQScheduler
from greenq.store import membership
from greenq.store.membership import Recovered
from greenq.store.transitions import Claimed
from greenq.suspension import is_suspended
from greenq.utils import (
    now,
)
from greenq.version import VERSION
from greenq.worker.in_flight import triple
from greenq.worker.reconnect import Backoff
from greenq.worker.record import WorkerStatus
from greenq.worker.signals import SAME_REQUEST_SECONDS, signal_name

if TYPE_CHECKING:
    pass

from greenq.worker.attempts import Interrupted
from greenq.worker.upkeep import Upkeep
from greenq.worker.wiring import COMMAND_SECONDS, DequeueStrategy

#: What workers log by.
LOGGERS = ('greenq.worker', 'greenq.job')
#: Why a job failed that had begun when its worker had to leave.
CUT_OFF = 'interrupted by the shutdown of its worker'
#: A wait for work is interrupted this often (s) to look after everything else.
WAIT_SECONDS = 1.0


class BaseWorker(Upkeep):
    """RQ's worker, but for how a job is executed."""

    # Start and stop

    def work(
        self,
        burst: bool = False,
        logging_level: str | int | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy | str = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Takes and executes jobs until it is told to stop; returns whether it executed any.

        `burst`: stop when the queues are empty. `max_jobs`: stop after so many. `max_idle_time`: stop after so many
        seconds without a job. `dequeue_strategy`: order of the queues.
        """
        self._dequeue_strategy = _checked_strategy(dequeue_strategy)
        self._renew_parts()
        # First, so that no signal finds a worker that is registered and cannot sign off.
        self._install_signal_handlers()
        try:
            self.bootstrap(logging_level, date_format, log_format)
            try:
                if with_scheduler:
                    self._start_scheduler(burst, logging_level, date_format, log_format)
                return self._run(burst, max_jobs, max_idle_time)
            finally:
                self.teardown()
        finally:
            self._signal_handlers.restore()

    def bootstrap(
        self,
        logging_level: str | int | None = 'INFO',
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """All that comes before the first job: logging, registration, commands."""
        for name in LOGGERS:
            setup_loghandlers(logging_level, date_format, log_format, name=name)
        self.register_birth()
        self.log.info('Worker %s: started with PID %d, version %s', self.name, os.getpid(), VERSION)
        self.subscribe()
        self.set_state(WorkerStatus.STARTED)
        self.log.info('*** Listening on %s...', green(', '.join(self.queue_names())))

    def register_birth(self) -> None:
        """Registers the worker and recovers what a dead namesake held; ValueError if a live one has its name."""
        if self._join() != 'ok':
            raise ValueError(
                f'There exists an active worker named {self.name!r} already: stop it, or give this one another name'
            )
        self._recover_orphans()

    def register_death(self) -> None:
        """Ends the registration; whatever was left behind is recoverable at once."""
        membership.depart(self._beat_client, self.name, self._token, self.queue_names(), linger_ms=self._linger * 1000)

    #: Seconds that the server may still park something for this worker.
    _linger = 0

    def teardown(self) -> None:
        """The order matters: nothing new, then the outcomes, then commands, and the registration last of all."""
        if self.is_horse:
            return
        if self.scheduler:
            self.stop_scheduler()
        self._finisher.flush(give_up_after=COMMAND_SECONDS)
        self.unsubscribe()
        try:
            self._linger = 0 if self._end_waits() else self._waiter.block_seconds * 2
            self._give_back_all()
            self.register_death()
        except RedisError as error:
            self.log.error('Worker %s: cannot sign off, its lease will end by itself: %s', self.name, error)
        self._waiter.close()
        self._wake.close()
        self._close_clients()

    def _give_back_all(self, cause: str = 'shutdown', *, innocent: bool = False) -> None:
        """Returns what still runs, or was claimed and never began, to the front of its queue; what was cut off and has
        the rule to fail then fails, or is retried if it may."""
        self._settle_cut_off()
        left = self.executions.triples()
        if left:
            self._release(left, cause, innocent=innocent)
            self.log.warning('Worker %s: %d interrupted job(s) went back to their queues', self.name, len(left))
            self.executions.clear()

    def _settle_cut_off(self) -> None:
        for execution in list(self.executions.values()):
            job = execution._job
            if execution.has_begun and job is not None and self._fails_if_lost(job, execution.queue_name):
                self._settle_adopted(Recovered(*triple(execution), 'adopted', cause=CUT_OFF))
        self._finisher.flush(give_up_after=COMMAND_SECONDS)

    # Stopping

    def _install_signal_handlers(self) -> None:
        self._signal_handlers.install({signal.SIGINT: self._on_signal, signal.SIGTERM: self._on_signal})

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._stop_requested:
            self.request_force_stop(signum, frame)
        else:
            self.request_stop(signum, frame)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Warm shutdown: no new jobs, the running ones finish. Only sets a flag, since signal handlers call it."""
        self._shutdown_requested_date = now()
        self._stop_requested = True
        self._wake.wake()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Cold shutdown: running jobs are cut off. Only sets a flag, since signal handlers call it."""
        requested = self._shutdown_requested_date
        if requested and now() - requested < timedelta(seconds=SAME_REQUEST_SECONDS):
            return
        self._force_stop_requested = True
        self._wake.wake()

    def request_quiet(self, signum: int | None, frame: FrameType | None) -> None:
        """Takes no more jobs, and stays until it is told to stop. Only sets a flag, since signal handlers call it."""
        self._is_quiet = True
        self._wake.wake()

    def _note_stop(self) -> None:
        """Tells of a requested stop, once, outside the signal handler."""
        if self._stop_requested and not self._stop_noted:
            self._stop_noted = True
            self.handle_warm_shutdown_request()
            if self.executions:
                self.set_shutdown_requested_date()

    def handle_warm_shutdown_request(self) -> None:
        """Called once when a warm shutdown was requested."""
        self.log.info('Worker %s [PID %d]: warm shut down requested', self.name, os.getpid())

    # The loop

    def _run(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        completed_jobs = 0
        backoff = Backoff()
        while max_jobs is None or completed_jobs < max_jobs:
            try:
                if not self._work_once(burst, max_idle_time):
                    break
                completed_jobs += 1
                backoff.reset()
            except StopRequested:
                self._note_stop()
                break
            except RedisError as error:
                self.log.error('Worker %s: Redis: %s; trying again', self.name, error)
                self._note_activity()
                backoff.sleep()
            except Exception:
                self.log.exception('Worker %s: found an unhandled exception, quitting...', self.name)
                break
        self.log.info('Worker %s: executed %d job(s), quitting', self.name, completed_jobs)
        return bool(completed_jobs)

    def _work_once(self, burst: bool, max_idle_time: int | None) -> bool:
        """Takes a job and executes it; returns False when it is time to go."""
        # Something is left if Redis failed between its claim and its start.
        self._give_back_all()
        if self._stop_requested:
            raise StopRequested
        result = self.dequeue_job_and_maintain_ttl(None if burst else self.dequeue_timeout, max_idle_time)
        if result is None:
            return False
        self.execute_job(*result)
        return True

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Executes a job that was claimed: what a subclass is about."""
        raise NotImplementedError(f'{type(self).__name__} must define execute_job(job, queue)')

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job and its queue, kept alive by beats while it waits.

        `timeout` None does not wait. Returns None when there is none, or after `max_idle_time` seconds without one.
        """
        idle_since = time.monotonic()
        if not self.executions and self._state != WorkerStatus.IDLE:
            self.set_state(WorkerStatus.IDLE)
        self.procline('Listening on ' + ','.join(self.queue_names()))
        while True:
            if self._stop_requested or self._heart.is_superseded:
                raise StopRequested
            self._look_after()
            if self._is_quiet:
                self._stay_quiet()
                continue
            begun = None if self._waiter.is_watching else self._take(burst=timeout is None)
            if begun is not None:
                return begun
            idle_left = math.inf if max_idle_time is None else idle_since + max_idle_time - time.monotonic()
            if not self._waiter.parked_count and (timeout is None or idle_left <= 0):
                return None
            self._waiter.wait(max(0.0, min(idle_left, WAIT_SECONDS)))

    def _stay_quiet(self) -> None:
        if self._state != WorkerStatus.SUSPENDED:
            self.log.info('Worker %s: takes no more jobs until it is told to stop', self.name)
            self._end_waits()
            self.set_state(WorkerStatus.SUSPENDED)
        self._wake.wait(WAIT_SECONDS)

    def _take(self, burst: bool) -> tuple[Job, Queue] | None:
        """Claims a job and makes sure that nothing else waits for this worker while it runs."""
        begun = None
        while begun is None:
            claimed = self._claim(1)
            if claimed is None:
                self._end_waits()
                self.check_for_suspension(burst)
                return None
            if not claimed:
                return None
            begun = self._begin(claimed[0])
        self._end_waits()
        return begun

    def _end_waits(self) -> bool:
        """Ends the waits for work; what was parked goes back to its queue. False if the server may still park some."""
        is_certain = not self._waiter.is_waiting or self._waiter.withdraw()
        if self._waiter.parked_count:
            membership.unpark(self._client, self.name)
            self._waiter.parked_count = 0
        return is_certain

    def _claim(self, count: int) -> list[Claimed] | None:
        """Claims at most `count` jobs; None while workers are suspended."""
        claimed = self._fetcher.fetch([queue.name for queue in self._ordered_queues], count)
        if claimed:
            self._waiter.taken(len(claimed))
            self._note_claimed(claimed)
        elif claimed is not None:
            self._waiter.parked_count = 0
        return claimed

    def _note_claimed(self, claimed: list[Claimed]) -> None:
        self._note_activity()
        self._state = WorkerStatus.BUSY

    def _begin(self, claimed: Claimed) -> tuple[Job, Queue] | None:
        """Job and queue of what was claimed; None for a job too damaged to be one, which is failed here."""
        queue = self._queue_named(claimed.queue)
        execution = self._new_execution(claimed)
        try:
            job = self.job_class.from_hash(claimed.job_id, claimed.hash, self.connection, self.serializer)
        except Exception as error:
            self._fail_damaged(execution, error)
            return None
        self._mark_started(job, execution)
        self.reorder_queues(reference_queue=queue)
        self._announce(job, queue)
        return job, queue

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Sets the order for the next job, after one from `reference_queue`, by the dequeue strategy."""
        strategy = _checked_strategy(self._dequeue_strategy)
        if strategy == DequeueStrategy.ROUND_ROBIN:
            at = self._ordered_queues.index(reference_queue) + 1
            self._ordered_queues = self._ordered_queues[at:] + self._ordered_queues[:at]
        elif strategy == DequeueStrategy.RANDOM:
            random.shuffle(self._ordered_queues)

    def check_for_suspension(self, burst: bool) -> None:
        """Waits while workers are suspended; in burst mode it stops instead."""
        state_before = None
        while not self._stop_requested and is_suspended(self.connection):
            if burst:
                self.log.info('Worker %s: suspended in burst mode, exiting; there may be jobs left', self.name)
                raise StopRequested
            if state_before is None:
                self.log.info('Worker %s: suspended, run `greenq resume` to resume', self.name)
                state_before = self.get_state()
                self.set_state(WorkerStatus.SUSPENDED)
            self._look_after()
            time.sleep(1)
        if state_before is not None:
            self.set_state(state_before)

    # Scheduler

    def _start_scheduler(self, burst: bool, logging_level: str | int | None, date_format: str, log_format: str) -> None:
        level = self.log.level if logging_level is None else logging_level
        self.scheduler = RQScheduler(self.queues, self.connection, 1, level, date_format, log_format, self.serializer)
        if burst:
            self.scheduler.run_once()
        else:
            self.scheduler.run_in_thread()

    def stop_scheduler(self) -> None:
        """Stops the scheduler that this worker started."""
        self.scheduler.stop()


def _checked_strategy(strategy: DequeueStrategy | str | None) -> DequeueStrategy:
    try:
        return DequeueStrategy(strategy or DequeueStrategy.DEFAULT)
    except ValueError:
        raise ValueError(
            f'Dequeue strategy {strategy!r} is not allowed. Use `default`, `random` or `round_robin`.'
        ) from None


__all__ = ['BaseWorker', 'DequeueStrategy', 'Interrupted', 'WorkerStatus', 'signal_name', 'triple']
