"""Ends the executions that RQ workers left behind when they died, which whoever cleans a registry finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from greenq.callbacks import execute_failure_callback
from greenq.defaults import DEFAULT_FAILURE_TTL
from greenq.exceptions import AbandonedJobError
from greenq.job import Job, JobStatus
from greenq.job_lifecycle import call_exception_handlers, death_penalty_here
from greenq.results import Result, encode_exc_string
from greenq.store import keys, transitions
from greenq.utils import as_text, current_timestamp, now, utcformat

if TYPE_CHECKING:
    from greenq.registry import StartedJobRegistry

logger = logging.getLogger('greenq.registry')

_PER_ROUND = 100


class AbandonedExecutions:
    """Responsible for the executions of a registry that showed no sign of life: each runs again or fails, once, however
    many look after it. `handlers` are the exception handlers to call."""

    def __init__(self, registry: StartedJobRegistry, handlers: Sequence[Callable[..., Any]]) -> None:
        self._registry = registry
        self._handlers = handlers
        self._connection = registry.connection
        self._queue = registry.name
        self._key = registry.key

    def end(self, cutoff: float) -> None:
        """Ends those whose entry expired before `cutoff` (epoch seconds)."""
        for entries in self._expired_entries(cutoff):
            for abandoned in self._abandoned_among(entries):
                self._end(*abandoned)

    def _expired_entries(self, cutoff: float) -> Iterator[list[str]]:
        """The expired entries, in rounds. What a round leaves in place is stepped over."""
        seen: set[str] = set()
        while True:
            entries = [as_text(entry) for entry in self._registry._entries_until(cutoff, len(seen), _PER_ROUND)]
            if not entries:
                return
            yield entries
            kept = self._connection.zmscore(self._key, entries)
            seen.update(entry for entry, score in zip(entries, kept, strict=True) if score is not None)

    def _abandoned_among(self, entries: Sequence[str]) -> list[tuple[Job, str]]:
        """(job, execution id) of the entries whose job still counts as running; the leftovers of others are dropped."""
        job_ids = [self._registry.parse_job_id(entry) for entry in entries]
        jobs = self._registry.job_class.fetch_many(
            job_ids, connection=self._connection, serializer=self._registry.serializer
        )
        leased = self._leased({job.worker_name for job in jobs if job is not None and job.worker_name})
        leftovers: list[str] = []
        abandoned: list[tuple[Job, str]] = []
        for entry, job in zip(entries, jobs, strict=True):
            execution_id = entry.partition(':')[2]
            status = _status_of(job)
            if job is not None and status is JobStatus.STARTED:
                if job.worker_name not in leased:
                    abandoned.append((job, execution_id))
            elif job is None or status is not JobStatus.QUEUED or not self._put_back_unstarted(job, execution_id):
                leftovers.append(entry)
        if leftovers:
            self._connection.zrem(self._key, *leftovers)
        return abandoned

    def _put_back_unstarted(self, job: Job, execution_id: str) -> bool:
        """Return a job to the front of its queue whose worker died after taking it and before starting it.

        It is in no list then, and would be lost. Returns False if it is safe elsewhere.
        """
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.lpos(keys.queue(self._queue), job.id)
            pipeline.lpos(keys.intermediate(self._queue), job.id)
            pipeline.zrange(keys.executions(job.id), 0, -1)
            in_queue, in_intermediate, executions = pipeline.execute()
        others = {as_text(other) for other in executions} - {execution_id}
        if not execution_id or others or in_queue is not None or in_intermediate is not None:
            return False
        moment = now()
        outcome = transitions.Retried(
            job.id,
            execution_id,
            self._queue,
            None,
            True,
            moment.timestamp(),
            moment.timestamp(),
            utcformat(moment),
            {'ended_at': '', 'last_heartbeat': ''},
        )
        return transitions.retry(self._connection, '', (outcome,))[0] is True

    def _leased(self, worker_names: set[str]) -> set[str]:
        """Those workers that are greenq's: whether one of them is alive is for whoever watches the leases."""
        if not worker_names:
            return set()
        names = sorted(worker_names)
        scores = self._connection.zmscore(keys.leases(), names)
        return {name for name, score in zip(names, scores, strict=True) if score is not None}

    def _end(self, job: Job, execution_id: str) -> None:
        ended_at = now()
        # An entry of a very old worker is no fence for the script, so the removal itself decides who goes on.
        if not execution_id and not self._connection.zrem(self._key, job.id):
            return
        if job.should_retry:
            if self._retry(job, execution_id, ended_at):
                self._tell(job)
            return
        reason = f'Moved to FailedJobRegistry, due to AbandonedJobError, at {ended_at}'
        if not self._fail(job, execution_id, ended_at, reason):
            return
        logger.warning('%s cleanup: %s %s', type(self._registry).__name__, job.id, reason)
        self._tell(job)
        job.send_webhooks(JobStatus.FAILED, exc_string=reason)

    def _retry(self, job: Job, execution_id: str, ended_at: datetime) -> bool:
        interval = job.get_retry_interval()
        due = current_timestamp() + interval if interval else None
        retries_left = (job.retries_left or 0) - 1
        outcome = transitions.Retried(
            job.id,
            execution_id,
            self._queue,
            due,
            job.enqueue_at_front_on_retry,
            (job.started_at or ended_at).timestamp(),
            ended_at.timestamp(),
            utcformat(ended_at),
            {'retries_left': retries_left},
            rate_limit=_rate_limit_of(job),
        )
        taken = transitions.retry(self._connection, job.worker_name or '', (outcome,)) == [True]
        if taken:
            job.retries_left = retries_left
            job._status = JobStatus.QUEUED if due is None else JobStatus.SCHEDULED
        return taken

    def _fail(self, job: Job, execution_id: str, ended_at: datetime, reason: str) -> bool:
        outcome = transitions.Failed(
            job.id,
            execution_id,
            self._queue,
            JobStatus.FAILED.value,
            Result.Type.FAILED.value,
            DEFAULT_FAILURE_TTL if job.failure_ttl is None else job.failure_ttl,
            True,
            (job.started_at or ended_at).timestamp(),
            ended_at.timestamp(),
            utcformat(ended_at),
            encode_exc_string(reason),
            rate_limit=_rate_limit_of(job),
        )
        taken = transitions.fail(self._connection, job.worker_name or '', (outcome,)) == [True]
        if taken:
            job.ended_at = ended_at
            job._status = JobStatus.FAILED
        return taken

    def _tell(self, job: Job) -> None:
        """Whoever wants to know of the failure. What they raise is logged: other jobs wait for their turn."""
        # There is no traceback: what ran the job died in another process.
        exc_info = (AbandonedJobError, AbandonedJobError(f'The worker that ran job {job.id} is gone'), None)
        try:
            execute_failure_callback(job, death_penalty_here(self._registry.death_penalty_class), *exc_info)
        except Exception:
            logger.exception('%s cleanup: failure callback for job %s raised', type(self._registry).__name__, job.id)
        try:
            call_exception_handlers(self._handlers, job, *exc_info)
        except Exception:
            logger.exception('%s cleanup: exception handler for job %s raised', type(self._registry).__name__, job.id)


def _status_of(job: Job | None) -> JobStatus | None:
    """The status that was read with the job; None if it is damaged."""
    try:
        return None if job is None else job.get_status(refresh=False)
    except ValueError:
        return None


def _rate_limit_of(job: Job) -> str:
    return (job.rate_limit_key or '') if job.has_rate_limit else ''
