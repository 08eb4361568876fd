"""What a worker does besides its jobs: beats, recovery of lost jobs, cleaning, commands."""

import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast

from greenq.worker.control import Control
from greenq.worker.heartbeat import Heartbeat
from greenq.worker.maintenance import Maintenance
from greenq.worker.signals import SHUTDOWN_SIGNAL

if TYPE_CHECKING:
    from greenq.worker.base import BaseWorker
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from greenq.callbacks import execute_failure_callback
from greenq.command import handle_command, parse_payload
from greenq.defaults import IDLE_REFRESH_SECONDS, IDLE_SECONDS, LEASE_SECONDS
from greenq.exceptions import AbandonedJobError
from greenq.executions import Execution
from greenq.group import Group
from greenq.job import Job
from greenq.job_lifecycle import call_exception_handlers
from greenq.registry import clean_registries
from greenq.store import membership, transitions
from greenq.store.membership import Recovered
from greenq.store.transitions import Claimed
from greenq.timeouts import JobTimeoutException
from greenq.utils import (
    now,
)
from greenq.worker_registration import clean_worker_registry

if TYPE_CHECKING:
    pass

from greenq.worker.attempts import Attempts

#: How long (s) a command may be ahead of the reply that hands its job to the worker.
OVERTAKE_SECONDS = 0.1


class Upkeep(Attempts):
    """Keeps the worker alive in Redis and looks after others."""

    @cached_property
    def _heart(self) -> Heartbeat:
        return Heartbeat(
            self._beat_client, self.name, self._token, self.executions, self._rejoin, not self.records_at_claim
        )

    @cached_property
    def _told_counts(self) -> dict[str, int]:
        return {}

    @cached_property
    def _maintenance(self) -> Maintenance:
        return Maintenance(self._beat_client, self.name, self._settle_adopted, self._clean_if_due, self._in_hand)

    def _in_hand(self) -> set[str]:
        """The executions that the worker has not done with."""
        return {*self.executions, *self._finisher.execution_ids()}

    @cached_property
    def _control(self) -> Control:
        return Control(self._new_client(socket_timeout=None), self.pubsub_channel_name, self.handle_payload)

    def _join(self, again: bool = False) -> str:
        self._note_activity()
        self.birth_date = self.birth_date if again and self.birth_date else now()
        self.last_heartbeat = now()
        return membership.join(
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

    #: When the worker last registered, had a job, or had trouble with Redis (monotonic).
    _active_at = float('-inf')

    def _note_activity(self) -> None:
        """From now on, for a while, the worker looks after itself closely."""
        self._active_at = time.monotonic()

    def _is_calm(self) -> bool:
        """Whether nothing has happened for so long that the worker may look after itself and others more rarely."""
        if self.executions or len(self._finisher):
            self._note_activity()
        return time.monotonic() - self._active_at >= IDLE_SECONDS

    def _look_after(self) -> None:
        """Does what is due of all that keeps this worker and the others well."""
        heart = self._heart
        if not self._is_calm():
            if heart.is_due:
                self.heartbeat()
            self._maintenance.tick()
            return
        refresh = min(IDLE_REFRESH_SECONDS, self.worker_ttl / 2)
        if time.monotonic() - heart.last_full_beat >= refresh:
            self.heartbeat()
        elif heart.is_idle_due and self._beat_idle():
            self._maintenance.hurry()
        self._maintenance.tick(refresh)

    def _beat_idle(self) -> bool:
        try:
            return self._heart.beat_idle()
        except ResponseError:
            # At maxmemory the lease can be written only after what a full beat writes.
            self.heartbeat()
            return False

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Extends the lease; `timeout` (s) is how long RQ's record of the worker lives without another beat."""
        self._heart.beat(timeout or self.worker_ttl + 60)
        self.last_heartbeat = now()
        self._tell_counts()

    def _counts(self) -> dict[str, int]:
        """What the worker counts for its record besides jobs, by the field there."""
        return {'greenq_lost_outcomes': self._finisher.lost_count}

    def _tell_counts(self) -> None:
        """Adds to the record what was counted since it was last told."""
        for field, count in self._counts().items():
            news = count - self._told_counts.get(field, 0)
            if news:
                self._beat_client.hincrby(self.key, field, news)
                self._told_counts[field] = count

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

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether the last cleaning is longer ago than the maintenance interval (s)."""
        cleaned_at = self.last_cleaned_at
        return cleaned_at is None or now() - cleaned_at > timedelta(seconds=self.maintenance_interval)

    def _clean_if_due(self) -> None:
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()

    def run_maintenance_tasks(self) -> None:
        """Cleans registries and groups; one worker at a time."""
        self.clean_registries()
        self.clean_group_registries()

    def clean_group_registries(self) -> None:
        """Cleans the groups, which all queues share, unless another worker did within the maintenance interval."""
        if Group.acquire_maintenance_lock(self.connection, max(int(self.maintenance_interval) - 1, 1)):
            self.log.info('Worker %s: cleaning group registries', self.name)
            Group.clean_registries(connection=self.connection)

    def clean_registries(self) -> None:
        """Cleans the registries of the worker's queues, unless another worker is at it."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                self.log.info('Worker %s: cleaning registries for queue: %s', self.name, queue.name)
                try:
                    clean_registries(queue, self._exc_handlers)
                    clean_worker_registry(queue)
                    queue.intermediate_queue.cleanup(cast('BaseWorker', self), queue)
                finally:
                    queue.release_maintenance_lock()
        self.last_cleaned_at = now()

    def _recover_orphans(self) -> None:
        """Recovers what is under this worker's lease though it does not run it: left by an incarnation that died."""
        if not self.executions:
            self._maintenance.recover_predecessor()

    def _settle_adopted(self, item: Recovered) -> None:
        """Fails, or retries if it may, a job that was cut off and is not simply to run again: it was overdue, or it or
        its worker asked for RQ's rule."""
        try:
            job = self.job_class.fetch(item.job_id, self.connection, self.serializer)
            error = _error_of(item, job)
        except RedisError:
            raise
        except Exception as problem:
            self._fail_damaged(self._adopted_execution(item), problem)
            return
        job.ended_at = now()
        try:
            execute_failure_callback(job, self.death_penalty_class, type(error), error, None)
            call_exception_handlers(self._exc_handlers, job, type(error), error, None)
        except Exception:
            self.log.exception('Worker %s: what follows the loss of job %s failed', self.name, item.job_id)
        execution = self._adopted_execution(item)
        text = f'Moved to FailedJobRegistry, due to {type(error).__name__}, at {now()}: {error}'
        self.handle_job_failure(job, self._queue_named(item.queue), exc_string=text, execution=execution)

    def _adopted_execution(self, item: Recovered) -> Execution:
        return self._new_execution(Claimed(item.job_id, item.execution_id, item.queue, {}))

    def _release(self, executions: list[tuple[str, str, str]], cause: str, *, innocent: bool = False) -> None:
        transitions.release(self._client, self.name, executions, cause=cause, innocent=innocent)

    def subscribe(self) -> None:
        """Starts to take commands."""
        self.log.info('Worker %s: subscribing to channel %s', self.name, self.pubsub_channel_name)
        self._control.start()

    def unsubscribe(self) -> None:
        """Ends to take commands."""
        self._control.stop()

    @property
    def pubsub_thread(self) -> threading.Thread | None:
        """What listens for commands."""
        return self._control.thread

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Carries out a command."""
        self.log.debug('Worker %s: received message: %s', self.name, message)
        handle_command(cast('BaseWorker', self), parse_payload(message))

    def request_stop_execution(self, execution_id: str) -> None:
        """Stops one execution: the job becomes stopped, not failed."""
        if not self._comes_to_run(lambda: execution_id in self.executions):
            self.log.warning('Not running execution %s, command ignored.', execution_id)
            return
        self._stopped_job_id = self.executions[execution_id].job_id
        self.kill_horse()

    def request_stop_job(self, job_id: str) -> None:
        """Stops a job: it becomes stopped, not failed."""
        if job_id and self._comes_to_run(lambda: self.get_current_job_id() == job_id):
            self._stopped_job_id = job_id
            self.kill_horse()
        else:
            self.log.warning('Not working on job %s, command ignored.', job_id)

    def _comes_to_run(self, is_running: Callable[[], bool]) -> bool:
        """Whether the worker runs what a command names, or does so in a moment: a command may overtake the reply that
        hands the job to the worker."""
        deadline = time.monotonic() + OVERTAKE_SECONDS
        while not is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(OVERTAKE_SECONDS / 20)
        return True

    def kill_horse(self, sig: signal.Signals = SHUTDOWN_SIGNAL) -> None:
        """Kills the process that runs the job; workers without one ignore it."""


def _error_of(item: Recovered, job: Job) -> Exception:
    """What a job that was cut off fails by."""
    if item.is_overdue:
        return JobTimeoutException(f'Task exceeded maximum timeout value ({job.timeout} seconds): {item.cause}')
    if item.cause == membership.LOST:
        return AbandonedJobError(f'Worker died while running job {item.job_id}')
    return AbandonedJobError(f'Job {item.job_id} was cut off: {item.cause}')
