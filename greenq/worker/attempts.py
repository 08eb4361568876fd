"""One job from claim to outcome, with the methods that RQ's users override or patch. It neither claims nor loops."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenq.callbacks import execute_failure_callback, execute_success_callback
from greenq.exceptions import DeserializationError
from greenq.executions import Execution
from greenq.job import Job, JobStatus
from greenq.job_lifecycle import call_exception_handlers
from greenq.logutils import blue, green
from greenq.queue import Queue
from greenq.retry import Retry
from greenq.store import transitions
from greenq.store.transitions import Claimed
from greenq.timeouts import JobTimeoutException
from greenq.utils import (
    now,
)
from greenq.worker import outcomes
from greenq.worker.heartbeat import LIFETIME_SECONDS
from greenq.worker.record import WorkerStatus

if TYPE_CHECKING:
    pass

from greenq.worker.wiring import Wiring


class Interrupted(BaseException):
    """Raised into a running job that has to make way for the end of its worker; it is no failure of the job."""


class Attempts(Wiring):
    """What a worker does with one job."""

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
        execution.has_begun = True
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
        retry = outcomes.as_retry(return_value)
        if retry is not None:
            self.handle_job_retry(job, queue, retry, None, execution)
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
        self._record(execution, outcomes.damaged(execution, text), None)

    def _record(
        self, execution: Execution | None, outcome: outcomes.Outcome, then: Callable[[bool], None] | None
    ) -> None:
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

        is_told = bool(job.webhooks) or self.log.isEnabledFor(logging.INFO)
        outcome = outcomes.finished(job, execution, job._result, result_ttl)
        self._record(execution, outcome, then if is_told else None)

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
