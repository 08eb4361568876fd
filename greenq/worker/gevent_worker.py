"""The worker that runs a thousand jobs at once in one process: each slot is a greenlet.

Only this file and `deadlines`, `coroutines` and the bootstrap know gevent.
"""

import contextvars
import gc
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from types import FrameType
from typing import Any, NamedTuple

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.monkey import is_module_patched
from greenlet import getcurrent, greenlet
from redis.exceptions import RedisError

from greenq.callbacks import execute_stopped_callback
from greenq.connections import worker_connection
from greenq.defaults import CLAIM_MAX_BATCH, DEFAULT_CONCURRENCY, DEFAULT_GRACE_SECONDS
from greenq.exceptions import NotPatchedError, StopRequested
from greenq.executions import Execution
from greenq.job import Job, JobStatus, current_job_finders
from greenq.queue import Queue
from greenq.store import transitions
from greenq.store.transitions import Claimed
from greenq.utils import now
from greenq.worker.attempts import Interrupted
from greenq.worker.base import BaseWorker
from greenq.worker.coroutines import CoroutineLoop
from greenq.worker.deadlines import GeventDeathPenalty
from greenq.worker.finisher import Finisher
from greenq.worker.in_flight import triple
from greenq.worker.outcomes import Outcome
from greenq.worker.reconnect import Backoff
from greenq.worker.wiring import COMMAND_SECONDS, DequeueStrategy

#: Connections that all jobs share for what they do with greenq themselves (meta, enqueueing...).
JOB_CONNECTIONS = 20
#: Jobs are claimed ahead of free slots by what the measured turnover frees within this time (s).
AHEAD_SECONDS = 0.02
#: What was claimed ahead and could not start within this time (s) goes back.
PUT_BACK_SECONDS = 0.05
#: A claim for few free slots waits this long (s) for more to become free, so that claims stay batches under load.
GATHER_SECONDS = 0.002
#: A slot whose jobs never wait lets the others have a turn after this long (s).
TURN_SECONDS = 0.002
#: The hub looks for replies at least this often (s) while many greenlets are to be resumed.
IO_SECONDS = 0.001
#: Interrupted jobs have this long (s) to unwind before the worker leaves.
UNWIND_SECONDS = 1.0


_JOB_LOCAL = 'greenq job'


def _job_of_greenlet() -> Job | None:
    """The job whose greenlet, or whose greenlet's greenlet, is running."""
    tree_locals = getattr(getcurrent(), 'spawn_tree_locals', None)
    return tree_locals.get(_JOB_LOCAL) if tree_locals else None


current_job_finders.append(_job_of_greenlet)


class Stopped(Interrupted):
    """Raised into a job that was stopped on request."""


class _Ready(NamedTuple):
    """A claimed job that waits for a slot."""

    claimed: Claimed
    execution: Execution
    since: float


class GeventWorker(BaseWorker):
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
        self._largest_claim = min(max(CLAIM_MAX_BATCH // 2, concurrency // 2), CLAIM_MAX_BATCH)
        self._reset_slots()

    def _reset_slots(self) -> None:
        self._ready: deque[_Ready] = deque()
        self._idle: list[greenlet] = []
        self._slots: set[greenlet] = set()
        self._running: dict[str, greenlet] = {}
        self._started_count = 0
        self._ended_count = 0
        self._turnover = _Turnover()
        self._slot_freed = Event()
        self._outcome_waits = Event()
        self._is_leaving = False
        self._stopped_executions: set[str] = set()
        self._unreturned: list[tuple[str, str, str]] = []

    @cached_property
    def _finisher(self) -> Finisher:
        return Finisher(self._new_client(), self.name, self._idle_state)

    @cached_property
    def _job_connection(self) -> Any:
        return worker_connection(self.connection, max_connections=JOB_CONNECTIONS, blocking=True)

    @cached_property
    def _coroutine_connection(self) -> Any:
        return worker_connection(self.connection, max_connections=JOB_CONNECTIONS, blocking=True)

    @cached_property
    def _coroutines(self) -> CoroutineLoop:
        return CoroutineLoop()

    # Start and stop

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """As for every worker; refuses to start in a process that is not patched."""
        _refuse_unpatched_process()
        self._reset_slots()
        _calm_garbage_collector()
        gevent.setswitchinterval(min(gevent.getswitchinterval(), IO_SECONDS))
        super().bootstrap(*args, **kwargs)
        self._background = [gevent.spawn(self._commit_forever), gevent.spawn(self._look_after_forever)]

    def teardown(self) -> None:
        """What runs has its grace, what was not begun goes back, then as for every worker."""
        try:
            self._end_waits()
            self._put_back_ready()
        except RedisError as error:
            self.log.error('Worker %s: Redis: %s; what was not begun is left to others', self.name, error)
        self._drain()
        self._is_leaving = True
        commit, look_after = self._background
        self._outcome_waits.set()
        commit.join(COMMAND_SECONDS)
        look_after.kill()
        super().teardown()
        commit.kill()
        self._coroutines.close()

    def _drain(self) -> None:
        give_up_at = time.monotonic() + self.grace
        while self._running and not self._force_stop_requested and time.monotonic() < give_up_at:
            self._slot_freed.clear()
            self._slot_freed.wait(min(1.0, max(give_up_at - time.monotonic(), 0)))
        if self._running:
            self.log.warning('Worker %s: interrupting %d job(s)', self.name, len(self._running))
            for target in list(self._running.values()):
                get_hub().loop.run_callback(GeventDeathPenalty.interrupt, target, Interrupted())
            until = time.monotonic() + UNWIND_SECONDS
            while self._running and time.monotonic() < until:
                self._slot_freed.clear()
                self._slot_freed.wait(0.05)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Warm shutdown; wakes whatever the worker waits for."""
        super().request_stop(signum, frame)
        get_hub().loop.run_callback_threadsafe(self._slot_freed.set)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Cold shutdown: the grace is over at once."""
        super().request_force_stop(signum, frame)
        get_hub().loop.run_callback_threadsafe(self._slot_freed.set)

    # The loop

    def _run(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        backoff = Backoff()
        self._idle_since = time.monotonic()
        while True:
            try:
                if not self._fill_slots(burst, max_jobs, max_idle_time):
                    break
                backoff.reset()
            except StopRequested:
                break
            except RedisError as error:
                self.log.error('Worker %s: Redis: %s; trying again', self.name, error)
                backoff.sleep()
        self._note_stop()
        self.log.info('Worker %s: executed %d job(s), quitting', self.name, self._started_count)
        return bool(self._started_count)

    def _fill_slots(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        """One round: claims for the free slots, or waits for a slot or for work; False when it is time to go."""
        if self._stop_requested or self._heart.is_superseded:
            raise StopRequested
        self._return_unbegun()
        wanted = self._free_slots()
        if max_jobs is not None:
            left = max_jobs - self._started_count - len(self._ready)
            if left <= 0:
                return self._busy_count() > 0 and self._wait_for_slot()
            wanted = min(wanted, left)
        if wanted <= 0:
            return self._wait_for_slot()
        was_busy = self._busy_count() > 0
        claimed = [] if self._waiter.is_watching else self._claim(min(wanted, self._largest_claim))
        if claimed is None:
            self._end_waits()
            self.check_for_suspension(burst)
            return True
        if claimed:
            self._dispatch(claimed)
            self._gather()
            return True
        if burst and was_busy and not self._busy_count():
            # What ended during the claim may have put its job back after it.
            return True
        return self._wait_for_work(burst, max_idle_time)

    def _busy_count(self) -> int:
        return len(self._running) + len(self._ready) + len(self._finisher)

    def _free_slots(self) -> int:
        """Slots to claim for: the free ones, and those that will be by the time the jobs are here."""
        ahead = self._turnover.ahead(self._ended_count)
        return self.concurrency + min(ahead, self._largest_claim) - len(self._running) - len(self._ready)

    def _gather(self) -> None:
        """Waits a moment for more free slots if there are few, so that claims stay batches. If there are many, the next
        claim goes out at once: the jobs of this one start while its reply is awaited."""
        few = max(min(self._largest_claim, self.concurrency // 8), 1)
        if self._free_slots() < few:
            gevent.sleep(GATHER_SECONDS)

    def _wait_for_slot(self) -> bool:
        # Cleared first: a slot that is freed while the waits are ended must not go unnoticed.
        self._slot_freed.clear()
        self._end_waits()
        self._slot_freed.wait(PUT_BACK_SECONDS if self._ready else 1.0)
        self._put_back_overdue()
        return True

    def _wait_for_work(self, burst: bool, max_idle_time: int | None) -> bool:
        if self._busy_count():
            self._idle_since = time.monotonic()
            if burst:
                return self._wait_for_slot()
        elif burst:
            self.log.info('Worker %s: done, quitting', self.name)
            return False
        idle_for = time.monotonic() - self._idle_since
        if max_idle_time is not None and idle_for >= max_idle_time:
            self.log.info('Worker %s: idle for %d seconds, quitting', self.name, max_idle_time)
            return False
        self._waiter.wait(1.0 if max_idle_time is None else min(1.0, max_idle_time - idle_for))
        return True

    def _claim(self, count: int) -> list[Claimed] | None:
        """As for every worker, but for the order of the queues: a batch takes an equal share of each in round robin."""
        if self._dequeue_strategy == DequeueStrategy.ROUND_ROBIN:
            count = -(-count // len(self.queues))
        claimed = super()._claim(count)
        if claimed and self._dequeue_strategy != DequeueStrategy.DEFAULT:
            self.reorder_queues(self._queue_named(claimed[0].queue))
        return claimed

    def _dispatch(self, batch: list[Claimed]) -> None:
        """Hands a batch to the slots: idle ones are woken, missing ones made."""
        since, begun = time.monotonic(), now()
        for claimed in batch:
            execution = Execution.claimed(
                claimed.execution_id, claimed.job_id, self.connection, self.name, claimed.queue, begun
            )
            self.executions[execution.id] = execution
            self._ready.append(_Ready(claimed, execution, since))
        run_callback = get_hub().loop.run_callback
        missing = len(batch)
        while missing and self._idle:
            run_callback(self._idle.pop().switch)
            missing -= 1
        while missing and len(self._slots) < self.concurrency:
            slot = greenlet(self._serve, parent=get_hub())
            self._slots.add(slot)
            run_callback(slot.switch)
            missing -= 1

    # Slots

    def _serve(self) -> None:
        """A slot: executes ready jobs one after the other, each in a context of its own; sleeps when there is none."""
        me = getcurrent()
        hub = get_hub()
        while True:
            turn_over = time.monotonic() + TURN_SECONDS
            while self._ready:
                item = self._ready.popleft()
                self._running[item.execution.id] = me
                self._started_count += 1
                contextvars.copy_context().run(self._execute_claimed, item)
                del self._running[item.execution.id]
                self._ended_count += 1
                self._slot_freed.set()
                self._idle_since = time.monotonic()
                if self._idle_since >= turn_over:
                    hub.loop.run_callback(me.switch)
                    hub.switch()
                    turn_over = time.monotonic() + TURN_SECONDS
            self._idle.append(me)
            hub.switch()

    def _execute_claimed(self, item: _Ready) -> None:
        """Executes one claimed job; whatever happens, the slot survives it."""
        claimed, execution = item.claimed, item.execution
        try:
            job = self.job_class.from_hash(claimed.job_id, claimed.hash, self._job_connection, self.serializer)
        except Exception as error:
            self._fail_damaged(execution, error)
            return
        try:
            self._mark_started(job, execution)
            queue = self._queue_named(claimed.queue)
            self._announce(job, queue)
            self.execute_job(job, queue)
        except Interrupted:
            pass
        except BaseException:
            self.log.exception('Worker %s: job %s could not be settled', self.name, claimed.job_id)
        finally:
            GeventDeathPenalty.forget(getcurrent())

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Executes a job in the current slot."""
        execution = self.prepare_execution(job)
        job.__dict__['_run_coroutine'] = partial(self._run_coroutine, job)
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

    def _run_coroutine(self, job: Job, coroutine: Any) -> Any:
        """What an `async def` job does with greenq happens in the loop's thread, on connections of that thread."""
        job.connection = self._coroutine_connection
        try:
            return self._coroutines.run(coroutine)
        finally:
            job.connection = self._job_connection

    # Outcomes

    def _record(self, execution: Execution | None, outcome: Outcome, then: Callable[[bool], None]) -> None:
        if execution is not None:
            self.executions.pop(execution.id, None)
        self._finisher.enqueue(outcome, then)
        self._outcome_waits.set()

    def _commit_forever(self) -> None:
        """Writes what has gathered, over and over: the longer a write takes, the more the next one carries."""
        while True:
            self._outcome_waits.wait()
            self._outcome_waits.clear()
            self._finisher.flush()
            self._slot_freed.set()
            if self._is_leaving:
                return

    def send_webhooks(self, job: Job, status: JobStatus, exc_string: str | None = None) -> None:
        """In a greenlet of its own: the commit must not wait for somebody's HTTP server."""
        if job.webhooks:
            gevent.spawn(super().send_webhooks, job, status, exc_string)

    # Claimed ahead

    def _put_back_overdue(self) -> None:
        """Never hoard: what could not start in time is somebody else's to run."""
        if self._ready and time.monotonic() - self._ready[0].since > PUT_BACK_SECONDS:
            self._turnover.pause()
            self._put_back_ready()

    def _put_back_ready(self) -> None:
        items = list(self._ready)
        self._ready.clear()
        for item in items:
            self.executions.pop(item.execution.id, None)
        self._unreturned += [triple(item.execution) for item in items]
        self._return_unbegun()

    def _return_unbegun(self) -> None:
        """Gives back what never began. What Redis could not be told of is told again by the next call."""
        if self._unreturned:
            transitions.release(self._client, self.name, self._unreturned, interruption_limit=0)
            self._unreturned.clear()

    # Keeping alive

    def _look_after_forever(self) -> None:
        while True:
            try:
                self._look_after()
            except RedisError as error:
                self.log.warning('Worker %s: Redis: %s; trying again', self.name, error)
            except Exception:
                self.log.exception('Worker %s: maintenance failed', self.name)
            gevent.sleep(1.0)

    # Commands

    def request_stop_execution(self, execution_id: str) -> None:
        """Stops just this execution."""
        target = self._running.get(execution_id)
        if target is None:
            self.log.warning('Not running execution %s, command ignored.', execution_id)
            return
        self._stopped_executions.add(execution_id)
        get_hub().loop.run_callback(GeventDeathPenalty.interrupt, target, Stopped())

    def request_stop_job(self, job_id: str) -> None:
        """Stops every execution of a job."""
        executions = list(self.executions.of_job(job_id))
        if not executions:
            self.log.warning('Not working on job %s, command ignored.', job_id)
        for execution in executions:
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


class _Turnover:
    """How many slots become free per second, measured between claims."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._count = 0
        self._rate = 0.0
        self._paused_until = 0.0

    def ahead(self, ended_count: int) -> int:
        """Slots that will be free within `AHEAD_SECONDS`, given how many jobs have ended so far."""
        present = time.monotonic()
        passed = present - self._at
        if passed >= 0.005:
            measured = (ended_count - self._count) / passed
            self._rate += (measured - self._rate) * min(1.0, passed / 0.05)
            self._at, self._count = present, ended_count
        return 0 if present < self._paused_until else int(self._rate * AHEAD_SECONDS)

    def pause(self) -> None:
        """The measure was too good: claims nothing ahead for a second."""
        self._paused_until = time.monotonic() + 1.0


#: Objects made between two looks of the garbage collector for cycles. The default of some hundreds is for programs
#: that keep what they make: here it costs a tenth of the time, and a job leaves few cycles.
GC_THRESHOLD = 20_000


def _calm_garbage_collector() -> None:
    """Leaves alone who has set it up for himself: raised only from the default or below."""
    first, *others = gc.get_threshold()
    if 0 < first < GC_THRESHOLD and gc.isenabled():
        gc.set_threshold(GC_THRESHOLD, *others)


#: Modules that keep what they were imported with, so that patching comes too late for them.
_TOO_EARLY = ('ssl', 'urllib3', 'requests', 'redis', 'asyncio', 'psycopg', 'pymysql', 'boto3', 'django')


def _refuse_unpatched_process() -> None:
    if is_module_patched('socket') and is_module_patched('threading'):
        return
    loaded = [name for name in _TOO_EARLY if name in sys.modules]
    raise NotPatchedError(
        f'GeventWorker needs a process that was monkey-patched first, and {", ".join(loaded)} came before: start it '
        'with `greenq worker -w greenq.GeventWorker`, or put `from gevent import monkey; monkey.patch_all()` before '
        'every other import'
    )
