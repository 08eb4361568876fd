"""Runs each job in the worker's own process, one at a time."""

import threading
from types import FrameType

from redis.exceptions import RedisError

from greenq.defaults import BEAT_SECONDS, DEFAULT_WORKER_TTL
from greenq.job import Job
from greenq.queue import Queue
from greenq.worker.attempts import Interrupted
from greenq.worker.base import BaseWorker


class SimpleWorker(BaseWorker):
    """A worker without a child: for tests, and for jobs that may not be run in a forked process."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job here; a thread keeps the lease meanwhile."""
        execution = self.prepare_execution(job)
        with _BeatThread(self):
            self._is_in_job = True
            try:
                self.perform_job(job, queue, execution)
            except Interrupted:
                self._stop_requested = True
            finally:
                self._is_in_job = False

    _is_in_job = False

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Cold shutdown: the signal handler runs in the job's thread, so it can interrupt it."""
        super().request_force_stop(signum, frame)
        if self._force_stop_requested and self._is_in_job:
            raise Interrupted

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """RQ's simple worker cannot beat while a job runs, so its record lasts as long as the job may."""
        if job.timeout == -1:
            return DEFAULT_WORKER_TTL
        return int(job.timeout or DEFAULT_WORKER_TTL) + 60


class _BeatThread:
    """Beats until the block is left."""

    def __init__(self, worker: BaseWorker):
        self._worker = worker
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name='greenq-heartbeat', daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                self._worker.heartbeat()
            except RedisError as error:
                self._worker.log.warning('Worker %s: cannot beat: %s', self._worker.name, error)
