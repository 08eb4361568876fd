"""Runs each job in a child process, the work horse: the fallback for CPU-bound or untrusted jobs."""

import contextlib
import errno
import os
import random
import select
import signal
import time
from random import shuffle
from types import FrameType
from typing import Any, cast

from redis.exceptions import RedisError

from greenq.callbacks import execute_stopped_callback
from greenq.exceptions import InvalidJobOperation, ShutDownImminentException
from greenq.executions import Execution
from greenq.job import Job, JobStatus
from greenq.queue import Queue
from greenq.store.script import preload
from greenq.utils import now
from greenq.worker.base import BaseWorker
from greenq.worker.reconnect import Backoff
from greenq.worker.signals import SHUTDOWN_SIGNAL, SignalHandlers, signal_name

#: How long (s) a look at the horse may take where no signal tells of its end.
LOOK_SECONDS = 0.5
#: Seconds past its deadline after which the worker kills a horse that did not stop by itself.
OVERDUE_SECONDS = 60


class Worker(BaseWorker):
    """RQ's worker: a process for each job, watched by the worker."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """As for every worker; loads what every horse needs."""
        preload('finish', 'fail', 'retry')
        super().bootstrap(*args, **kwargs)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job in a child and waits for its end."""
        execution = self.prepare_execution(job)
        child_ended = SignalHandlers()
        child_ended.install({signal.SIGCHLD: lambda signum, frame: self._wake.wake()})
        try:
            self.fork_work_horse(job, queue)
            self.monitor_work_horse(job, queue, execution)
        finally:
            child_ended.restore()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Forks the horse."""
        os.environ['RQ_WORKER_ID'] = self.name
        os.environ['RQ_JOB_ID'] = job.id
        child_pid = os.fork()
        if child_pid == 0:
            os.setpgrp()
            self.main_work_horse(job, queue)
            os._exit(0)
        with contextlib.suppress(OSError):
            # Here too, whoever comes first: a stop must not find the horse in the worker's own group and kill that.
            os.setpgid(child_pid, child_pid)
        self._horse_pid = child_pid
        self.procline(f'Forked {child_pid} at {time.time()}')

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """All that the horse does. It ends by `os._exit`, since nothing of the worker is its own to clean up."""
        random.seed()
        self.setup_work_horse_signals()
        self._is_horse = True
        try:
            self.perform_job(job, queue, cast(Execution, self.execution))
        except BaseException:
            os._exit(1)
        os._exit(0)

    def setup_work_horse_signals(self) -> None:
        """Ctrl+C is the worker's business, which lets a running job finish."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Waits for the horse, beating; makes sure that a horse which died without a word leaves an outcome."""
        job.started_at = now()
        pid, status, rusage = self._watch_horse(job)
        self._horse_pid = 0
        self.log.debug('Worker %s: horse of job %s ended: pid=%s, status=%s', self.name, job.id, pid, status)
        if status == os.EX_OK:
            self.executions.pop(execution.id, None)
            return
        self._settle_horse(job, queue, execution, pid, status, rusage)

    def _watch_horse(self, job: Job) -> tuple[int | None, int | None, Any]:
        while True:
            pid, status, rusage = self._look_at_horse(os.WNOHANG)
            if pid != 0:
                return pid, status, rusage
            if self._has_to_end(job):
                self.kill_horse()
                return self.wait_for_horse()
            try:
                self._note_stop()
                if self._heart.is_due:
                    self.heartbeat()
            except RedisError as error:
                # Whatever Redis does, a horse is not left unwatched.
                self.log.warning('Worker %s: cannot beat: %s', self.name, error)
            select.select([self._wake], [], [], LOOK_SECONDS)
            self._wake.drain()

    def _has_to_end(self, job: Job) -> bool:
        # A stop may have come before there was a horse to kill.
        return self._force_stop_requested or self._stopped_job_id == job.id or self._is_overdue(job)

    def _is_overdue(self, job: Job) -> bool:
        try:
            timeout = job.timeout
        except ValueError:  # The field is damaged, by which the horse fails the job.
            return False
        if not timeout or timeout < 0 or job.started_at is None:
            return False
        return (now() - job.started_at).total_seconds() > timeout + OVERDUE_SECONDS

    def _look_at_horse(self, options: int) -> tuple[int | None, int | None, Any]:
        try:
            return os.wait4(self.horse_pid, options)
        except ChildProcessError:
            return None, None, None

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Waits for the horse's end: pid, wait status and resource usage, or None three times if it is gone."""
        return self._look_at_horse(0)

    def _settle_horse(
        self, job: Job, queue: Queue, execution: Execution, pid: int | None, status: int | None, rusage: Any
    ) -> None:
        """Records what became of a job whose horse ended other than well."""
        try:
            job_status = self._status_of(job)
        except InvalidJobOperation:
            self.executions.pop(execution.id, None)
            return
        killed_by = f' (signal {os.WTERMSIG(status)})' if status and os.WIFSIGNALED(status) else ''
        if self._stopped_job_id == job.id:
            self._handle_stopped_job(job, queue, execution)
        elif job_status in (JobStatus.FINISHED, JobStatus.FAILED):
            self.executions.pop(execution.id, None)
        elif not self._fails_if_lost(job, queue.name):
            ended = f'its work-horse ended with wait status {status}{killed_by}'
            self._give_back_all('shutdown' if self._force_stop_requested else ended)
        else:
            job.ended_at = now()
            text = f'Work-horse terminated unexpectedly; waitpid returned {status}{killed_by}; '
            self.log.warning('Worker %s: job %s failed (%s)', self.name, job.id, text)
            self.handle_work_horse_killed(job, pid, status, rusage)
            self.handle_job_failure(job, queue=queue, exc_string=text, execution=execution)

    def _status_of(self, job: Job) -> JobStatus:
        backoff = Backoff()
        while True:
            try:
                return job.get_status()
            except RedisError as error:
                self.log.warning('Worker %s: Redis: %s; trying again', self.name, error)
                backoff.sleep()

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        self.log.warning('Worker %s: job %s stopped by user, moving job to FailedJobRegistry', self.name, job.id)
        job.ended_at = now()
        try:
            execute_stopped_callback(job, self.death_penalty_class)
        except Exception:
            self.log.exception('Worker %s: stopped callback for job %s raised', self.name, job.id)
        self.handle_job_failure(
            job, queue=queue, exc_string='Job stopped by user, work-horse terminated.', execution=execution
        )

    def handle_work_horse_killed(self, job: Job, retpid: int | None, ret_val: int | None, rusage: Any) -> None:
        """Called when a horse died without leaving an outcome."""
        if self._work_horse_killed_handler is not None:
            self._work_horse_killed_handler(job, retpid, ret_val, rusage)

    def kill_horse(self, sig: signal.Signals = SHUTDOWN_SIGNAL) -> None:
        """Kills the horse and what it has started; a horse that is gone already is fine."""
        if not self.horse_pid:
            return
        try:
            os.killpg(self.horse_pid, sig)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            self.log.debug('Worker %s: horse already dead', self.name)
        else:
            self.log.info('Worker %s: killed horse pid %s', self.name, self.horse_pid)


class HerokuWorker(Worker):
    """For platforms that send SIGTERM to every process: the horse survives it, then is told to end within seconds."""

    imminent_shutdown_delay = 6
    frame_properties = ['f_code', 'f_lasti', 'f_lineno', 'f_locals', 'f_trace']

    def setup_work_horse_signals(self) -> None:
        """Only SIGRTMIN, sent by the worker, ends the horse."""
        signal.signal(signal.SIGRTMIN, self.request_stop_sigrtmin)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def handle_warm_shutdown_request(self) -> None:
        """Tells the horse of the coming end."""
        super().handle_warm_shutdown_request()
        if self.horse_pid:
            self.log.info('Worker %s: sending SIGRTMIN to the horse', self.name)
            self.kill_horse(sig=signal.SIGRTMIN)

    def request_stop_sigrtmin(self, signum: int, frame: FrameType | None) -> None:
        """In the horse: ends the job `imminent_shutdown_delay` seconds from now."""
        if self.imminent_shutdown_delay == 0:
            self.request_force_stop_sigrtmin(signum, frame)
            return
        signal.signal(signal.SIGRTMIN, self.request_force_stop_sigrtmin)
        signal.signal(signal.SIGALRM, self.request_force_stop_sigrtmin)
        signal.alarm(self.imminent_shutdown_delay)

    def request_force_stop_sigrtmin(self, signum: int, frame: FrameType | None) -> None:
        """In the horse: ends the job now."""
        info = {name: getattr(frame, name) for name in self.frame_properties}
        raise ShutDownImminentException(f'shut down imminent (signal: {signal_name(signum)})', info)


class RoundRobinWorker(Worker):
    """Takes one job from each queue in turn."""

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Puts the queue that was served last."""
        at = self._ordered_queues.index(reference_queue) + 1
        self._ordered_queues = self._ordered_queues[at:] + self._ordered_queues[:at]


class RandomWorker(Worker):
    """Takes each job from any queue."""

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Shuffles the queues."""
        shuffle(self._ordered_queues)
