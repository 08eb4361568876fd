"""The worker that runs a thousand jobs at once in one process: each slot is a greenlet.

Only this file, `intake`, `watched`, their parts and the bootstrap know gevent.
"""

import time
from collections.abc import Callable
from functools import cached_property
from types import FrameType
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import Event
from greenlet import getcurrent, greenlet
from redis.exceptions import RedisError

from greenq.callbacks import execute_stopped_callback
from greenq.connections import worker_connection
from greenq.defaults import DEFAULT_CONCURRENCY, DEFAULT_GRACE_SECONDS
from greenq.executions import Execution
from greenq.job import Job, JobStatus, current_job_finders
from greenq.queue import Queue
from greenq.store.held import held
from greenq.store.membership import Recovered
from greenq.utils import now
from greenq.worker.appetite import Appetite
from greenq.worker.aside import Aside
from greenq.worker.attempts import Interrupted
from greenq.worker.base import LOGGERS
from greenq.worker.coroutines import CoroutineLoop
from greenq.worker.deadlines import GeventDeathPenalty
from greenq.worker.finisher import Finisher
from greenq.worker.intake import Intake
from greenq.worker.log_writer import LogWriters
from greenq.worker.outcomes import Outcome
from greenq.worker.patched import greenlets_end_alone, prepare_process
from greenq.worker.quick_look import quick_looking
from greenq.worker.readable import Readable
from greenq.worker.slots import Ready, Slots
from greenq.worker.switches import Switches
from greenq.worker.wiring import COMMAND_SECONDS

#: Connections that all jobs share for what they do with greenq themselves (meta, enqueueing...).
JOB_CONNECTIONS = 20
#: Interrupted jobs have this long (s) to unwind before the worker leaves.
UNWIND_SECONDS = 1.0


_JOB_LOCAL = 'greenq job'


def _job_of_greenlet() -> Job | None:
    """The job whose greenlet, or whose greenlet's greenlet, is running."""
    return _job_of(getcurrent())


def _job_of(target: greenlet) -> Job | None:
    tree_locals = getattr(target, 'spawn_tree_locals', None)
    return tree_locals.get(_JOB_LOCAL) if tree_locals else None


current_job_finders.append(_job_of_greenlet)


class Stopped(Interrupted):
    """Raised into a job that was stopped on request."""


class GeventWorker(Intake):
    """Runs up to `concurrency` jobs at once; on shutdown running jobs have `grace` seconds before they are
    interrupted, and go back to the front of their queue."""

    death_penalty_class = GeventDeathPenalty
    needs_monkey_patching = True
    records_at_claim = False
    accepts_concurrency = True
    on_lost = 'requeue'

    def __init__(
        self,
        *args: Any,
        concurrency: int = DEFAULT_CONCURRENCY,
        grace: float = DEFAULT_GRACE_SECONDS,
        **kwargs: Any,
    ):
        if concurrency < 1:
            raise ValueError(f'concurrency {concurrency!r} is not allowed. Use a number of at least 1.')
        if grace < 0:
            raise ValueError(f'grace {grace!r} is not allowed. Use a number of seconds of at least 0.')
        super().__init__(*args, **kwargs)
        self.concurrency = concurrency
        self.grace = grace
        self._reset_slots()

    def _reset_slots(self, switches: Switches | None = None) -> None:
        self._slots = Slots(self.concurrency, self._execute_claimed, switches)
        self._appetite = Appetite(self._slots, self.concurrency)
        #: Greenlets that settle what became of jobs whose slot has gone on.
        self._aside = Aside()
        self._outcome_waits = Event()
        self._background: list[Any] = []
        self._is_leaving = False
        self._stopped_executions: set[str] = set()
        self._unreturned: list[tuple[str, str, str]] = []

    def _connection_class(self) -> Any:
        return quick_looking(super()._connection_class())

    @cached_property
    def _client(self) -> Any:
        return held(self._new_client())

    def _waiter_options(self) -> dict[str, Any]:
        return {'await_readable': Readable().wait, 'claims': self._fetcher}

    @cached_property
    def _finisher(self) -> Finisher:
        return Finisher(held(self._new_client()), self.name, self._idle_state)

    @cached_property
    def _job_connection(self) -> Any:
        return worker_connection(self.connection, max_connections=JOB_CONNECTIONS, blocking=True)

    @cached_property
    def _coroutine_connection(self) -> Any:
        return worker_connection(self.connection, max_connections=JOB_CONNECTIONS, blocking=True)

    @cached_property
    def _coroutines(self) -> CoroutineLoop:
        return CoroutineLoop(self._on_stuck_loop)

    # Start and stop

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As for every worker; what a job's greenlets raise is no concern of the main greenlet, where this runs."""
        with greenlets_end_alone():
            return super().work(*args, **kwargs)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """As for every worker; refuses to start in a process that is not patched."""
        prepare_process(self.concurrency)
        self._reset_slots(self._take_pulse())
        super().bootstrap(*args, **kwargs)
        self._start_watch()
        self._log_writers = LogWriters(LOGGERS)
        self._background = [gevent.spawn(self._commit_forever), gevent.spawn(self._look_after_forever)]

    def teardown(self) -> None:
        """What runs has its grace, what was not begun goes back, then as for every worker."""
        commit, look_after = self._background
        try:
            self._let_go_of_unbegun()
            self._drain()
            self._is_leaving = True
            self._outcome_waits.set()
            commit.join(COMMAND_SECONDS)
            look_after.kill()
            super().teardown()
        finally:
            gevent.killall([commit, look_after])
            self._stop_watch()
            self._coroutines.close()
            self._log_writers.close()

    def _drain(self) -> None:
        slots = self._slots
        give_up_at = min(time.monotonic() + self.grace, self._leaves_at)
        while slots.running and not self._force_stop_requested and time.monotonic() < give_up_at:
            slots.freed.clear()
            slots.freed.wait(min(1.0, max(give_up_at - time.monotonic(), 0)))
        if slots.running:
            self.log.warning('Worker %s: interrupting %d job(s)', self.name, len(slots.running))
            for target in list(slots.running.values()):
                get_hub().loop.run_callback(GeventDeathPenalty.interrupt, target, Interrupted())
            until = time.monotonic() + UNWIND_SECONDS
            while slots.running and time.monotonic() < until:
                slots.freed.clear()
                slots.freed.wait(0.05)
        self._aside.join(UNWIND_SECONDS)

    def request_stop(self, signum: int | None, frame: FrameType | None) -> None:
        """Warm shutdown; jobs that let no other run have no more than the grace either."""
        super().request_stop(signum, frame)
        if self._background:
            self._hub_watch.interrupts_at = time.monotonic() + self.grace

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Cold shutdown: the grace is over at once."""
        super().request_force_stop(signum, frame)
        if self._background and self._force_stop_requested:
            self._hub_watch.interrupts_at = time.monotonic()
        self._wake_up()

    def _wake_up(self) -> None:
        get_hub().loop.run_callback_threadsafe(self._slots.freed.set)

    # Slots

    def _execute_claimed(self, item: Ready) -> None:
        """Executes one claimed job; whatever happens, the slot survives it."""
        claimed, execution = item.claimed, item.execution
        try:
            job = self.job_class.from_hash(claimed.job_id, claimed.hash, self._job_connection, self.serializer)
        except Exception as error:
            self._fail_damaged(execution, error)
            return
        state = job.__dict__
        state['_coroutine_runner'] = self._coroutine_runner
        try:
            self._mark_started(job, execution)
            queue = self._queue_named(claimed.queue)
            if execution.id in self._stopped_executions:
                self._handle_stopped_job(job, queue, execution)
                return
            self._announce(job, queue)
            self.execute_job(job, queue)
        except Interrupted:
            pass
        except BaseException:
            self.log.exception('Worker %s: job %s could not be settled', self.name, claimed.job_id)
        finally:
            # Or the two would refer to each other: garbage that only the collector finds, a thousand times a second.
            state.pop('_execution', None)
            GeventDeathPenalty.forget(getcurrent())

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Executes a job in the current slot."""
        execution = self.prepare_execution(job)
        # Inherited by every greenlet that the job starts, as its context is not.
        getcurrent().spawn_tree_locals = {_JOB_LOCAL: job}
        try:
            self.perform_job(job, queue, execution)
        except Stopped:
            self._handle_stopped_job(job, queue, execution)

    def prepare_execution(self, job: Job) -> Execution:
        """The execution that the job was claimed with."""
        execution = getattr(job, '_execution', None)
        return execution if execution is not None else super().prepare_execution(job)

    def _mark_started(self, job: Job, execution: Execution) -> None:
        super()._mark_started(job, execution)
        job.__dict__['_execution'] = execution

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Nothing: one process title cannot name a thousand jobs."""

    @cached_property
    def _coroutine_runner(self) -> Callable[[Job, Any], Any]:
        return self._run_coroutine

    def _run_coroutine(self, job: Job, coroutine: Any) -> Any:
        """What an `async def` job does with greenq happens in the loop's thread, on connections of that thread."""
        job.connection = self._coroutine_connection
        try:
            return self._coroutines.run(coroutine)
        finally:
            job.connection = self._job_connection

    # Outcomes

    def _record(self, execution: Execution | None, outcome: Outcome, then: Callable[[bool], None] | None) -> None:
        if execution is not None:
            self.executions.pop(execution.id, None)
        self._finisher.enqueue(outcome, then)
        if not self._outcome_waits.is_set():
            self._outcome_waits.set()

    def _commit_forever(self) -> None:
        """Writes what has gathered, over and over: the longer a write takes, the more the next one carries."""
        while True:
            self._outcome_waits.wait()
            self._outcome_waits.clear()
            self._finisher.flush()
            self._slots.freed.set()
            if self._is_leaving:
                return

    def send_webhooks(self, job: Job, status: JobStatus, exc_string: str | None = None) -> None:
        """In a greenlet of its own: the commit must not wait for somebody's HTTP server."""
        if job.webhooks:
            gevent.spawn(super().send_webhooks, job, status, exc_string)

    # What its intake and its watch ask for

    def _busy_count(self) -> int:
        return len(self._slots) + len(self._finisher) + len(self._aside)

    def _find(self, target: greenlet) -> tuple[greenlet, Execution | None]:
        execution_id = self._slots.executed_by(target)
        if execution_id:
            return target, self.executions.get(execution_id)
        job = _job_of(target)
        execution: Execution | None = job.__dict__.get('_execution') if job is not None else None
        slot = self._slots.slot_of(execution.id) if execution is not None else None
        return target if slot is None else slot, execution

    def _execution_id_of(self, target: greenlet) -> str:
        job = _job_of(target)
        execution: Execution | None = job.__dict__.get('_execution') if job is not None else None
        return execution.id if execution is not None and execution.id in self.executions else ''

    def _give_up(self, execution: Execution, error: BaseException) -> None:
        self._slots.give_up(execution.id)
        self._aside.spawn(self._fail_stuck, execution, error)

    def _fail_stuck(self, execution: Execution, error: BaseException) -> None:
        job = execution._job
        # Only its function may have callbacks called: it may be one of them that does not end.
        if job is None or job._status != JobStatus.STARTED:
            self._fail_damaged(execution, error)
            return
        getcurrent().spawn_tree_locals = {_JOB_LOCAL: job}
        try:
            self._finalize_failure(job, self._queue_named(execution.queue_name), execution, (type(error), error, None))
        except BaseException as problem:
            self._fail_damaged(execution, problem)

    def _settle_adopted(self, item: Recovered) -> None:
        """Aside, since what a job has to be called when it fails must not hold up the beats."""
        if self._background and getcurrent() is self._background[-1]:
            self._aside.spawn(super()._settle_adopted, item)
        else:
            super()._settle_adopted(item)

    # Keeping alive

    def _look_after_forever(self) -> None:
        while True:
            try:
                self._look_after()
            except RedisError as error:
                self.log.warning('Worker %s: Redis: %s; trying again', self.name, error)
                self._note_activity()
            except Exception:
                self.log.exception('Worker %s: maintenance failed', self.name)
            gevent.sleep(1.0)

    # Commands

    def request_stop_execution(self, execution_id: str) -> None:
        """Stops just this execution."""
        target = self._slots.slot_of(execution_id)
        waiting = self._slots.take_ready(execution_id) if target is None else None
        if target is None and waiting is None:
            self.log.warning('Not running execution %s, command ignored.', execution_id)
            return
        self._stopped_executions.add(execution_id)
        if waiting is not None:
            # Claimed ahead, so it counts as running; no slot may become free for long.
            self._aside.spawn(self._execute_claimed, waiting)
            return
        get_hub().loop.run_callback(GeventDeathPenalty.interrupt, target, Stopped())

    def request_stop_job(self, job_id: str) -> None:
        """Stops every execution of a job."""
        if not self._comes_to_run(lambda: any(self.executions.of_job(job_id))):
            self.log.warning('Not working on job %s, command ignored.', job_id)
        for execution in list(self.executions.of_job(job_id)):
            self.request_stop_execution(execution.id)

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        self.log.warning('Worker %s: job %s stopped by user, moving job to FailedJobRegistry', self.name, job.id)
        job.ended_at = now()
        try:
            execute_stopped_callback(job, self.death_penalty_class)
        except Exception:
            self.log.exception('Worker %s: stopped callback for job %s raised', self.name, job.id)
        self._stopped_executions.discard(execution.id)
        self._stopped_job_id = job.id
        self.handle_job_failure(job, queue=queue, exc_string='Job stopped by user.', execution=execution)
