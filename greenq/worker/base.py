"""What all workers share: wiring of the parts, the order of start and stop, the loop, and RQ's override points.

Subclasses say how one job is executed (`execute_job`). The file names no Redis command.
"""

import logging
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import Enum
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from greenq.callbacks import execute_failure_callback, execute_success_callback
from greenq.command import handle_command, parse_payload
from greenq.connections import resolve_connection, worker_connection
from greenq.defaults import (
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
    LEASE_SECONDS,
    MAX_INTERRUPTIONS,
)
from greenq.exceptions import AbandonedJobError, DeserializationError, StopRequested
from greenq.executions import Execution
from greenq.group import Group
from greenq.job import Job, JobStatus
from greenq.job_lifecycle import call_exception_handlers
from greenq.logutils import blue, green, setup_loghandlers
from greenq.queue import Queue
from greenq.registry import clean_registries
from greenq.retry import Retry
from greenq.serializers import resolve_serializer
from greenq.store import queries, transitions
from greenq.store.transitions import Claimed, Recovered
from greenq.suspension import is_suspended
from greenq.timeouts import JobTimeoutException
from greenq.utils import (
    ensure_job_list,
    get_connection_from_queues,
    get_version,
    import_job_class,
    import_queue_class,
    now,
)
from greenq.version import VERSION
from greenq.worker import outcomes
from greenq.worker.control import Control
from greenq.worker.fetcher import Fetcher
from greenq.worker.finisher import Finisher
from greenq.worker.heartbeat import LIFETIME_SECONDS, Heartbeat
from greenq.worker.in_flight import triple
from greenq.worker.maintenance import Maintenance
from greenq.worker.reconnect import Backoff
from greenq.worker.record import WorkerRecord, WorkerStatus
from greenq.worker.signals import SAME_REQUEST_SECONDS, SignalHandlers, WakePipe, signal_name
from greenq.worker.waiter import BLOCK_SECONDS, Waiter
from greenq.worker_registration import clean_worker_registry

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger('greenq.worker')
if log.level == logging.NOTSET:
    log.setLevel(logging.INFO)

#: A command that gets no answer for this long (s) has failed; Redis answers in milliseconds or is in trouble.
COMMAND_SECONDS = 10


class DequeueStrategy(str, Enum):
    """Which queue comes first: the first given, each in turn, or any."""

    DEFAULT = 'default'
    ROUND_ROBIN = 'round_robin'
    RANDOM = 'random'


class Interrupted(BaseException):
    """Raised into a running job that has to make way for the end of its worker; it is no failure of the job."""


class BaseWorker(WorkerRecord):
    """RQ's worker, but for how a job is executed."""

    #: Whether results' lifetimes and whole descriptions are logged.
    log_result_lifespan = True
    log_job_description = True

    #: Whether the class only works in a process that was monkey-patched before anything else.
    needs_monkey_patching = False
    #: Whether the class takes `concurrency` and `grace`.
    accepts_concurrency = False
    #: What becomes of a job that the worker loses: `fail` (or retry, if it may) as in RQ, or `requeue`.
    on_lost = 'fail'

    def __init__(
        self,
        queues: str | Queue | Sequence[str] | Sequence[Queue],
        name: str | None = None,
        default_result_ttl: int = DEFAULT_RESULT_TTL,
        connection: 'Redis | None' = None,
        exception_handlers: Any = None,
        maintenance_interval: int = DEFAULT_MAINTENANCE_TASK_INTERVAL,
        default_worker_ttl: int | None = None,
        worker_ttl: int | None = None,
        job_class: type[Job] | str | None = None,
        queue_class: type[Queue] | str | None = None,
        log_job_description: bool = True,
        job_monitoring_interval: int = DEFAULT_JOB_MONITORING_INTERVAL,
        disable_default_exception_handler: bool = False,
        prepare_for_work: bool = True,
        serializer: Any = None,
        work_horse_killed_handler: Callable[..., None] | None = None,
        on_lost: str | None = None,
    ):
        self._init_record()
        self.default_result_ttl = default_result_ttl
        self.worker_ttl = worker_ttl or default_worker_ttl or DEFAULT_WORKER_TTL
        self.job_monitoring_interval = job_monitoring_interval
        self.maintenance_interval = maintenance_interval
        self.connection = resolve_connection(connection or get_connection_from_queues(queues))
        if job_class:
            self.job_class = import_job_class(job_class) if isinstance(job_class, str) else job_class
        if queue_class:
            self.queue_class = import_queue_class(queue_class) if isinstance(queue_class, str) else queue_class
        self._serializer_arg = serializer
        self.serializer = resolve_serializer(serializer)
        self.name = name or os.urandom(16).hex()
        self.queues = [self._queue(item) if isinstance(item, str) else item for item in ensure_job_list(queues)]
        self.validate_queues()
        self._ordered_queues = self.queues[:]
        self._queues_by_name = {queue.name: queue for queue in self.queues}
        self._dequeue_strategy: DequeueStrategy | str | None = DequeueStrategy.DEFAULT
        self._exc_handlers: list[Callable[..., Any]] = []
        self._work_horse_killed_handler = work_horse_killed_handler
        self.disable_default_exception_handler = disable_default_exception_handler
        self.log_job_description = log_job_description
        self.on_lost = _checked_on_lost(on_lost) if on_lost else self.on_lost
        self.log = log
        self.scheduler: Any = None
        self.last_cleaned_at: Any = None
        self.redis_server_version: tuple[int, int, int] | None = None
        self._token = transitions.new_token()
        self._is_horse = False
        self._horse_pid = 0
        self._stop_requested = False
        self._force_stop_requested = False
        self._stop_noted = False
        self._stopped_job_id: str | None = None
        self._signal_handlers = SignalHandlers()
        if prepare_for_work:
            self._describe_process()
            self._set_ip_address(self.connection)
        for handler in ensure_job_list(exception_handlers) if exception_handlers is not None else []:
            self.push_exc_handler(handler)

    # Wiring: each part is made when it is first needed, so that a record read from Redis has none

    def _new_client(self, max_connections: int = 1, socket_timeout: float | None = COMMAND_SECONDS) -> Any:
        return worker_connection(
            self.connection, max_connections=max_connections, socket_timeout=socket_timeout, blocking=True
        )

    @cached_property
    def _client(self) -> Any:
        """For the worker's own commands, none of which may be repeated blindly."""
        return self._new_client()

    @cached_property
    def _beat_client(self) -> Any:
        """Of its own, so that a beat never waits for another command."""
        return self._new_client()

    @cached_property
    def _wake(self) -> WakePipe:
        return WakePipe()

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(self._client, self.name, LIFETIME_SECONDS)

    @cached_property
    def _waiter(self) -> Waiter:
        pool = self._new_client(len(self.queues) + 1, socket_timeout=BLOCK_SECONDS * 2).connection_pool
        return Waiter(pool, self._client, self.name, self.queue_names(), self._wake)

    @cached_property
    def _finisher(self) -> Finisher:
        return Finisher(self._client, self.name, self._idle_state)

    @cached_property
    def _heart(self) -> Heartbeat:
        return Heartbeat(self._beat_client, self.name, self._token, self.executions, self._rejoin)

    @cached_property
    def _maintenance(self) -> Maintenance:
        return Maintenance(
            self._client, self.name, self.maintenance_interval, self._settle_adopted, self.run_maintenance_tasks
        )

    @cached_property
    def _control(self) -> Control:
        return Control(self._new_client(socket_timeout=None), self.pubsub_channel_name, self.handle_payload)

    def _idle_state(self) -> str:
        return '' if self.executions else WorkerStatus.IDLE.value

    def _set_ip_address(self, connection: 'Redis') -> None:
        """Names the connection after the worker and learns its address; servers may forbid either."""
        client: Any = connection
        try:
            client.client_setname(self.name)
            self.ip_address = str(client.client_info()['addr'])
        except (RedisError, KeyError):
            self.ip_address = 'unknown'

    def validate_queues(self) -> None:
        """TypeError if a queue is none of this worker's queue class."""
        for queue in self.queues:
            if not isinstance(queue, self.queue_class):
                raise TypeError(f'{queue} is not of type {self.queue_class} or string types')

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Version of the server, read once."""
        if self.redis_server_version is None:
            self.redis_server_version = get_version(self.connection)
        return self.redis_server_version

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
        self.bootstrap(logging_level, date_format, log_format)
        self._install_signal_handlers()
        try:
            if with_scheduler:
                self._start_scheduler(burst, logging_level, date_format, log_format)
            return self._run(burst, max_jobs, max_idle_time)
        finally:
            self.teardown()
            self._signal_handlers.restore()

    def bootstrap(
        self,
        logging_level: str | int | None = 'INFO',
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """All that comes before the first job: logging, registration, commands."""
        for name in ('greenq.worker', 'greenq.job'):
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

    def _join(self, again: bool = False) -> str:
        self.birth_date = self.birth_date if again and self.birth_date else now()
        self.last_heartbeat = now()
        return transitions.join(
            self._beat_client,
            self.name,
            self._token,
            self.queue_names(),
            self.serialize(),
            lease_ms=LEASE_SECONDS * 1000,
            worker_ttl=self.worker_ttl + 60,
            on_lost=self.on_lost,
            again=again,
        )

    def _rejoin(self) -> None:
        self._join(again=True)

    def register_death(self) -> None:
        """Ends the registration; whatever was left behind is recoverable at once."""
        transitions.depart(self._beat_client, self.name, self._token, self.queue_names())

    def teardown(self) -> None:
        """The order matters: nothing new, then the outcomes, then commands, and the registration last of all."""
        if self.is_horse:
            return
        if self.scheduler:
            self.stop_scheduler()
        self._waiter.close()
        self._finisher.flush(give_up_after=COMMAND_SECONDS)
        self.unsubscribe()
        try:
            self._give_back_all()
            self.register_death()
        except RedisError as error:
            self.log.error('Worker %s: cannot sign off, its lease will end by itself: %s', self.name, error)
        self._wake.close()

    def _give_back_all(self) -> None:
        """Returns what still runs, or was claimed and never began, to the front of its queue."""
        left = self.executions.triples()
        if left:
            self._release(left)
            self.log.warning('Worker %s: %d interrupted job(s) went back to their queues', self.name, len(left))
            self.executions.clear()

    def _release(self, executions: list[tuple[str, str, str]]) -> None:
        transitions.release(
            self._client,
            self.name,
            executions,
            interruption_limit=MAX_INTERRUPTIONS,
            poison_reason=outcomes.poison_reason(MAX_INTERRUPTIONS),
        )

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
                backoff.sleep()
            except Exception:
                self.log.exception('Worker %s: found an unhandled exception, quitting...', self.name)
                break
        self.log.info('Worker %s: executed %d job(s), quitting', self.name, completed_jobs)
        return bool(completed_jobs)

    def _work_once(self, burst: bool, max_idle_time: int | None) -> bool:
        """Takes a job and executes it; returns False when it is time to go."""
        self.check_for_suspension(burst)
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
            self._look_after()
            for claimed in self._claim(1):
                begun = self._begin(claimed)
                if begun is not None:
                    return begun
            idle_left = math.inf if max_idle_time is None else idle_since + max_idle_time - time.monotonic()
            if timeout is None or idle_left <= 0:
                return None
            self._waiter.wait(min(idle_left, self._seconds_to_beat()))
            if self._stop_requested or self._heart.is_superseded:
                raise StopRequested

    def _look_after(self) -> None:
        if self._heart.is_due:
            self.heartbeat()
        self._maintenance.tick()

    def _seconds_to_beat(self) -> float:
        return 1.0

    def _claim(self, count: int) -> list[Claimed]:
        claimed = self._fetcher.fetch([queue.name for queue in self._ordered_queues], count)
        if claimed:
            self._state = WorkerStatus.BUSY
        return claimed or []

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

    def _queue_named(self, name: str) -> Queue:
        queue = self._queues_by_name.get(name)
        if queue is None:
            queue = self._queues_by_name[name] = self._queue(name)
        return queue

    def _new_execution(self, claimed: Claimed) -> Execution:
        execution = Execution(claimed.execution_id, claimed.job_id, self.connection, worker_name=self.name)
        execution.queue_name = claimed.queue
        self.executions[execution.id] = execution
        return execution

    def _mark_started(self, job: Job, execution: Execution) -> None:
        """What the claim has written, on the job in hand."""
        job._status = JobStatus.STARTED
        job.worker_name = self.name
        job.started_at = execution.created_at
        execution._job = job

    def _announce(self, job: Job, queue: Queue) -> None:
        if not self.log.isEnabledFor(logging.INFO):
            return
        if self.log_job_description:
            self.log.info('Worker %s: %s: %s (%s)', self.name, green(queue.name), blue(job.description or ''), job.id)
        else:
            self.log.info('Worker %s: %s: %s', self.name, green(queue.name), job.id)

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

    # One job

    def prepare_execution(self, job: Job) -> Execution:
        """The execution of a job: the one it was claimed with, else a new one."""
        execution = next(self.executions.of_job(job.id), None)
        if execution is None:
            claimed = Claimed(job.id, self._fetcher.new_execution_id(), job.origin, {})
            transitions.begin(
                self._client, self.name, job.id, claimed.execution_id, job.origin, lifetime=LIFETIME_SECONDS
            )
            execution = self._new_execution(claimed)
            self._mark_started(job, execution)
            self._state = WorkerStatus.BUSY
        return execution

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Called right before the job runs. All that Redis must know was written when the job was claimed."""
        self.procline(f'Processing {job.func_name} from {job.origin} since {time.time()}')

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Runs the job's function and callbacks and records the outcome; returns whether it succeeded."""
        try:
            return self._perform(job, queue, execution)
        except Interrupted:
            raise
        except BaseException as error:
            # Reading the job or one of its callbacks was itself impossible: there is a reason, so the job fails by it.
            self._fail_damaged(execution, error)
            return False

    def _perform(self, job: Job, queue: Queue, execution: Execution) -> bool:
        try:
            self.prepare_job_execution(job)
            job.started_at = now()
            timeout = job.timeout or self.queue_class.DEFAULT_TIMEOUT
            with self.death_penalty_class(timeout, JobTimeoutException, job_id=job.id):
                return_value = job.perform()
            self._finalize_success(job, queue, execution, return_value)
        except Interrupted:
            raise
        except BaseException:
            self._finalize_failure(job, queue, execution, sys.exc_info())
            return False
        return True

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Called when the job's function has ended, before its callbacks."""
        job.ended_at = now()

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        self.handle_execution_ended(job, queue, 0)
        job._result = return_value
        if isinstance(return_value, Retry):
            self.handle_job_retry(job, queue, return_value, None, execution)
            return
        job._status = JobStatus.FINISHED
        execute_success_callback(job, self.death_penalty_class, return_value)
        self.handle_job_success(job, queue, None, execution)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        job._status = JobStatus.FAILED
        self.handle_execution_ended(job, queue, 0)
        try:
            execute_failure_callback(job, self.death_penalty_class, *exc_info)
        except Interrupted:
            raise
        except BaseException:
            # A failing callback replaces the job's exception as the recorded failure, as in RQ.
            exc_info = sys.exc_info()
        self.handle_exception(job, *exc_info)
        self.handle_job_failure(
            job=job, queue=queue, exc_string=outcomes.describe_exception(exc_info), execution=execution
        )

    def _fail_damaged(self, execution: Execution, error: BaseException) -> None:
        text = outcomes.describe_exception((type(error), error, error.__traceback__))
        self.log.error('Worker %s: job %s cannot be run: %s', self.name, execution.job_id, error)
        self._record(execution, outcomes.damaged(execution, text), lambda accepted: None)

    def _record(self, execution: Execution | None, outcome: outcomes.Outcome, then: Callable[[bool], None]) -> None:
        """Hands an outcome to the finisher; from here on the execution runs no more."""
        if execution is not None:
            self.executions.pop(execution.id, None)
        self._finisher.record(outcome, then)

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any = None, execution: Execution | None = None
    ) -> None:
        """Records a success."""
        result_ttl = job.get_result_ttl(self.default_result_ttl)

        def then(accepted: bool) -> None:
            if accepted:
                self.send_webhooks(job, JobStatus.FINISHED)
                self._log_success(job, result_ttl)

        self._record(execution, outcomes.finished(job, execution, job._result, result_ttl), then)

    def _log_success(self, job: Job, result_ttl: int) -> None:
        if not self.log.isEnabledFor(logging.INFO):
            return
        name = job.description if self.log_job_description else job.id
        took = (job.ended_at or now()) - (job.started_at or now())
        self.log.info('Successfully completed %s job in %ss on worker %s', name, took, self.name)
        self.log.info('Worker %s: %s: %s (%s)', self.name, green(job.origin), blue('Job OK'), job.id)
        if not self.log_result_lifespan:
            return
        if result_ttl == 0:
            self.log.info('Worker %s: job %s result discarded immediately', self.name, job.id)
        elif result_ttl > 0:
            self.log.info('Worker %s: job %s result is kept for %s seconds', self.name, job.id, result_ttl)
        else:
            self.log.info('Worker %s: job %s result will never expire, delete it by hand', self.name, job.id)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = '',
        execution: Execution | None = None,
    ) -> None:
        """Records a failure: another try if the job has retries left, unless it was stopped on request."""
        is_stopped = self._stopped_job_id == job.id
        if job.should_retry and not is_stopped:
            self._record(execution, outcomes.retried(job, execution), lambda accepted: self._log_retry(job))
            return
        if is_stopped:
            self._stopped_job_id = None

        def then(accepted: bool) -> None:
            if accepted and not is_stopped:
                self.send_webhooks(job, JobStatus.FAILED, exc_string)

        register = not self.disable_default_exception_handler
        outcome = outcomes.failed(job, execution, exc_string, stopped=is_stopped, register=register)
        job._status = JobStatus(outcome.status)
        self._record(execution, outcome, then)

    def handle_job_retry(
        self,
        job: Job,
        queue: Queue,
        retry: Retry,
        started_job_registry: Any = None,
        execution: Execution | None = None,
    ) -> None:
        """Records that a job returned a `Retry`: another try, or a failure if it has had as many as that allows."""
        if job.number_of_retries and job.number_of_retries >= retry.max:
            self.log.warning('Worker %s: job %s has had its %d retries', self.name, job.id, retry.max)
            outcome = outcomes.retries_exceeded(job, execution, retry)

            def then(accepted: bool) -> None:
                if accepted:
                    self.send_webhooks(job, JobStatus.FAILED, '')

            self._record(execution, outcome, then)
        else:
            self._record(
                execution, outcomes.retry_returned(job, execution, retry), lambda accepted: self._log_retry(job)
            )

    def send_webhooks(self, job: Job, status: JobStatus, exc_string: str | None = None) -> None:
        """Tells the job's webhooks what became of it; called once Redis knows it."""
        job.send_webhooks(status, exc_string=exc_string)

    def _log_retry(self, job: Job) -> None:
        self.log.info('Worker %s: job %s goes round again, %s retries left', self.name, job.id, job.retries_left)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Logs what a job raised, then calls the exception handlers."""
        extra: dict[str, Any]
        try:
            func_name = job.func_name
            extra = {'func': func_name, 'arguments': job.args, 'kwargs': job.kwargs}
        except DeserializationError:
            func_name, extra = '<DeserializationError>', {}
        extra |= {'queue': job.origin, 'job_id': job.id}
        text = outcomes.describe_exception(exc_info)
        self.log.error(
            'Worker %s: job %s: exception raised while executing (%s)\n%s',
            self.name,
            job.id,
            func_name,
            text,
            extra=extra,
        )
        call_exception_handlers(self._exc_handlers, job, *exc_info)

    def push_exc_handler(self, handler_func: Callable[..., Any]) -> None:
        """Adds an exception handler; the last added is called last."""
        self._exc_handlers.append(handler_func)

    def pop_exc_handler(self) -> Callable[..., Any]:
        """Removes the exception handler that was added last."""
        return self._exc_handlers.pop()

    # Keeping alive, looking after others

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Extends the lease; `timeout` (s) is how long RQ's record of the worker lives without another beat."""
        self._heart.beat(timeout or self.worker_ttl + 60)
        self.last_heartbeat = now()

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that RQ's readers expect a wait for jobs to last at most."""
        return max(1, self.worker_ttl - 15)

    @property
    def connection_timeout(self) -> int:
        """Seconds after which an unanswered wait for jobs has failed."""
        return self.dequeue_timeout + 10

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds that RQ would let an execution live without another beat."""
        if job.timeout and job.timeout > 0:
            return int(min(job.timeout - working_time, self.job_monitoring_interval)) + 60
        return self.job_monitoring_interval + 60

    def run_maintenance_tasks(self) -> None:
        """Cleans registries and groups; one worker of each queue at a time."""
        self.clean_registries()
        if Group.acquire_maintenance_lock(self.connection, max(int(self.maintenance_interval) - 1, 1)):
            Group.clean_registries(connection=self.connection)

    def clean_registries(self) -> None:
        """Cleans the registries of the worker's queues, unless another worker is at it."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                self.log.info('Worker %s: cleaning registries for queue: %s', self.name, queue.name)
                try:
                    clean_registries(queue, self._exc_handlers)
                    clean_worker_registry(queue)
                    queue.intermediate_queue.cleanup(self, queue)
                finally:
                    queue.release_maintenance_lock()
        self.last_cleaned_at = now()

    def _recover_orphans(self) -> None:
        """Recovers what is under this worker's lease though it does not run it: left by an incarnation that died."""
        orphans = [item for item in queries.held_executions(self._client, self.name) if item[1] not in self.executions]
        if self.on_lost == 'fail':
            for job_id, execution_id, queue in orphans:
                self._settle_adopted(Recovered(job_id, execution_id, queue, 'adopted'))
        elif orphans:
            self._release(orphans)

    def _settle_adopted(self, item: Recovered) -> None:
        """Fails, or retries if it may, a job whose worker died and had asked for RQ's rule."""
        execution = self._new_execution(Claimed(item.job_id, item.execution_id, item.queue, {}))
        error = AbandonedJobError(f'Worker died while running job {item.job_id}')
        try:
            job = self.job_class.fetch(item.job_id, self.connection, self.serializer)
            job.ended_at = now()
            execute_failure_callback(job, self.death_penalty_class, AbandonedJobError, error, None)
            call_exception_handlers(self._exc_handlers, job, AbandonedJobError, error, None)
        except RedisError:
            raise
        except Exception as problem:
            self.log.exception('Worker %s: what follows the loss of job %s failed', self.name, item.job_id)
            if not isinstance(problem, AbandonedJobError):
                self._fail_damaged(execution, error)
            return
        text = f'Moved to FailedJobRegistry, due to AbandonedJobError, at {now()}'
        self.handle_job_failure(job, self._queue_named(item.queue), exc_string=text, execution=execution)

    # Commands

    def subscribe(self) -> None:
        """Starts to take commands."""
        self.log.info('Worker %s: subscribing to channel %s', self.name, self.pubsub_channel_name)
        self._control.start()

    def unsubscribe(self) -> None:
        """Ends to take commands."""
        self._control.stop()

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Carries out a command."""
        self.log.debug('Worker %s: received message: %s', self.name, message)
        handle_command(self, parse_payload(message))

    def request_stop_execution(self, execution_id: str) -> None:
        """Stops one execution: the job becomes stopped, not failed."""
        execution = self.executions.get(execution_id)
        if execution is None:
            self.log.warning('Not running execution %s, command ignored.', execution_id)
            return
        self._stopped_job_id = execution.job_id
        self.kill_horse()

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kills the process that runs the job; workers without one ignore it."""

    @property
    def horse_pid(self) -> int:
        """Process that runs the job, 0 if there is none."""
        return self._horse_pid

    @property
    def is_horse(self) -> bool:
        """Whether this is the process that runs the job, not the worker."""
        return self._is_horse

    def procline(self, message: str) -> None:
        """Sets the process title, where the package setproctitle is installed."""
        if _set_process_title is not None:
            _set_process_title(f'rq:worker:{self.name}: {message}')

    # Scheduler

    def _start_scheduler(
        self, burst: bool, logging_level: str | int | None, date_format: str, log_format: str
    ) -> None:
        raise NotImplementedError

    def stop_scheduler(self) -> None:
        """Stops the scheduler that this worker started."""
        self.scheduler.stop()


def _find_process_title_setter() -> Callable[[str], None] | None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    setter: Callable[[str], None] = setproctitle
    return setter


_set_process_title = _find_process_title_setter()


def _checked_strategy(strategy: DequeueStrategy | str | None) -> DequeueStrategy:
    try:
        return DequeueStrategy(strategy or DequeueStrategy.DEFAULT)
    except ValueError:
        raise ValueError(
            f'Dequeue strategy {strategy!r} is not allowed. Use `default`, `random` or `round_robin`.'
        ) from None


def _checked_on_lost(on_lost: str) -> str:
    if on_lost not in ('requeue', 'fail'):
        raise ValueError(f'on_lost {on_lost!r} is not allowed. Use `requeue` or `fail`.')
    return on_lost


__all__ = ['BaseWorker', 'DequeueStrategy', 'Interrupted', 'WorkerStatus', 'signal_name', 'triple']
