"""An attempt at a job, as recorded without a claim: by workers written for RQ, and by queues that run jobs in place.

greenq's own workers claim what they run, and record it in batches; see `worker.outcomes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_FAILURE_TTL
from greenq.exceptions import InvalidJobOperation
from greenq.job_fields import or_default
from greenq.job_record import JobRecord
from greenq.results import Result, encode_exc_string, encode_return_value
from greenq.retry import Retry
from greenq.store import transitions
from greenq.store.states import JobStatus
from greenq.utils import now, utcformat

if TYPE_CHECKING:
    from redis.client import Pipeline

    from greenq.queue import Queue


def finished(
    job: JobRecord, result_ttl: int, started_at: datetime | None = None, ended_at: datetime | None = None
) -> transitions.Finished:
    """The success of a job that has `_result`. The times are of the attempt, if they are not the job's."""
    started, ended = _run_times(job)
    return transitions.Finished(
        job.id,
        '',
        job.origin,
        result_ttl,
        (started_at or started).timestamp(),
        (ended_at or ended).timestamp(),
        utcformat(ended),
        encode_return_value(job.serializer, job._result),
    )


def failed(
    job: JobRecord, exc_string: str, started_at: datetime | None = None, ended_at: datetime | None = None
) -> transitions.Failed:
    """The failure of a job for good. The times are of the attempt, if they are not the job's."""
    started, ended = _run_times(job)
    return transitions.Failed(
        job.id,
        '',
        job.origin,
        JobStatus.FAILED.value,
        Result.Type.FAILED.value,
        or_default(job.failure_ttl, DEFAULT_FAILURE_TTL),
        True,
        (started_at or started).timestamp(),
        (ended_at or ended).timestamp(),
        utcformat(ended),
        encode_exc_string(exc_string),
    )


def _run_times(job: JobRecord) -> tuple[datetime, datetime]:
    ended = job.ended_at or now()
    return job.started_at or ended, ended


class JobAttempt(JobRecord):
    """What whoever runs a job writes of it: that it has started, is alive, has ended, will be tried again."""

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """Write that a worker has started this job."""
        self.worker_name = worker_name
        self.started_at = self.last_heartbeat = now()
        self._status = JobStatus.STARTED
        moment = utcformat(self.started_at)
        fields: dict[Any, Any] = {
            'status': self._status.value,
            'started_at': moment,
            'last_heartbeat': moment,
            'worker_name': worker_name,
        }
        pipeline.hset(self.key, mapping=fields)

    def heartbeat(self, timestamp: datetime, ttl: int, pipeline: Pipeline | None = None, xx: bool = False) -> None:
        """Write that this job was alive at `timestamp`. The other arguments are RQ's and do nothing there either."""
        self.last_heartbeat = timestamp
        self._client(pipeline).hset(self.key, 'last_heartbeat', utcformat(timestamp))

    def get_retry_interval(self) -> int:
        """Seconds to wait before the next retry."""
        if not self.retry_intervals:
            return 0
        return self.retry_intervals[max(len(self.retry_intervals) - (self.retries_left or 0), 0)]

    @property
    def should_retry(self) -> bool:
        """Whether there are retries left."""
        return self.retries_left is not None and self.retries_left > 0

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Use a retry: queue the job again, or schedule it if its `Retry` has an interval."""
        if not self.should_retry:
            raise InvalidJobOperation(f'Cannot retry job {self.id}: it has no retries left')
        interval = self.get_retry_interval()
        self.retries_left = (self.retries_left or 0) - 1
        self._run_again(queue, pipeline, interval, {'retries_left': self.retries_left})

    def _handle_retry_result(
        self,
        queue: Queue,
        pipeline: Pipeline,
        retry: Retry,
        execution_id: str,
        execution_started_at: datetime,
        execution_ended_at: datetime,
        worker_name: str = '',
    ) -> None:
        """Run again because the job returned a `Retry`, which becomes its newest result."""
        Result.create_retried(
            self, self.failure_ttl, retry, worker_name, execution_id, execution_started_at, execution_ended_at, pipeline
        )
        interval = Retry.get_interval(self.number_of_retries or 0, retry.intervals)
        self.number_of_retries = (self.number_of_retries or 0) + 1
        self.enqueue_at_front_on_retry = self.enqueue_at_front_on_retry or retry.enqueue_at_front
        self._run_again(queue, pipeline, interval, {'number_of_retries': self.number_of_retries})

    def _run_again(self, queue: Queue, pipeline: Pipeline, interval: int, counters: Mapping[str, int]) -> None:
        due = now() + timedelta(seconds=interval) if interval else None
        fields = {**counters, 'enqueue_at_front_on_retry': int(self.enqueue_at_front_on_retry)}
        started, ended = _run_times(self)
        outcome = transitions.Retried(
            self.id,
            '',
            queue.name,
            None if due is None else int(due.timestamp()),
            self.enqueue_at_front_on_retry,
            started.timestamp(),
            ended.timestamp(),
            utcformat(ended),
            fields,
            rate_limit=self.rate_limit_key or '' if self.has_rate_limit else '',
        )
        transitions.retry(pipeline, '', [outcome])
        self._status = JobStatus.SCHEDULED if due else JobStatus.QUEUED
        self.log.info('Job %s: %s for retry', self.id, f'scheduled at {due}' if due else 'enqueued')

    def _handle_success(
        self,
        result_ttl: int,
        pipeline: Pipeline,
        worker_name: str = '',
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        """Record that the job has finished with `_result`."""
        self._status = JobStatus.FINISHED
        outcome = finished(self, result_ttl, execution_started_at, execution_ended_at)
        transitions.finish(pipeline, '', [outcome])

    def _handle_failure(
        self,
        exc_string: str,
        pipeline: Pipeline,
        worker_name: str = '',
        execution_id: str | None = None,
        execution_started_at: datetime | None = None,
        execution_ended_at: datetime | None = None,
    ) -> None:
        """Record that the job has failed for good."""
        self._status = JobStatus.FAILED
        outcome = failed(self, exc_string, execution_started_at, execution_ended_at)
        transitions.fail(pipeline, '', [outcome])
