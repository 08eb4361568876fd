"""Turns what became of a job into the record that the store writes; computes only, knows no connection."""

import json
import traceback
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_FAILURE_TTL
from greenq.repeat import take_repeat
from greenq.results import Result, encode_exc_string, encode_return_value
from greenq.retry import Retry
from greenq.store.states import JobStatus
from greenq.store.transitions import Failed, Finished, Retried
from greenq.utils import now, utcformat

if TYPE_CHECKING:
    from greenq.executions import Execution
    from greenq.job import Job

Outcome = Finished | Failed | Retried


def _span(job: 'Job') -> tuple[float, float, str]:
    """Start and end as epoch seconds, and the end as the job hash has it."""
    ended_at = job.ended_at or now()
    started_at = job.started_at or ended_at
    return started_at.timestamp(), ended_at.timestamp(), utcformat(ended_at)


def _attempt(job: 'Job', execution: 'Execution | None') -> tuple[str, str, str]:
    return job.id, execution.id if execution else '', execution.queue_name if execution else job.origin


def _failure_ttl(job: 'Job') -> int:
    return DEFAULT_FAILURE_TTL if job.failure_ttl is None else int(job.failure_ttl)


def finished(job: 'Job', execution: 'Execution | None', return_value: Any, result_ttl: int) -> Finished:
    """A success; takes one repeat from a job that is to repeat."""
    options: dict[str, Any] = {}
    if job._dependency_ids:
        options['has_dependencies'] = True
    if job.rate_limit_key:
        options['rate_limit'] = job.rate_limit_key
    if job.repeats_left:
        options['repeat'] = _next_repeat(job)
    encoded = encode_return_value(job.serializer, return_value) if result_ttl else b''
    return Finished(*_attempt(job, execution), int(result_ttl), *_span(job), encoded, options)


def _next_repeat(job: 'Job') -> dict[str, Any]:
    interval = take_repeat(job)
    due = int(now().timestamp() + interval) if interval else 0
    return {'left': job.repeats_left, 'intervals': json.dumps(job.repeat_intervals), 'due': due}


def failed(
    job: 'Job', execution: 'Execution | None', exc_string: str, *, stopped: bool = False, register: bool = True
) -> Failed:
    """A failure for good, or a stop on request; `register=False` writes the status and nothing else."""
    return Failed(
        *_attempt(job, execution),
        JobStatus.STOPPED.value if stopped else JobStatus.FAILED.value,
        Result.Type.FAILED.value,
        _failure_ttl(job),
        register,
        *_span(job),
        encode_exc_string(exc_string),
        rate_limit=job.rate_limit_key or '',
    )


def retries_exceeded(job: 'Job', execution: 'Execution | None', retry: Retry) -> Failed:
    """A job that asked for another retry than it may have."""
    return Failed(
        *_attempt(job, execution),
        JobStatus.FAILED.value,
        Result.Type.MAX_RETRIES_EXCEEDED.value,
        _failure_ttl(job),
        True,
        *_span(job),
        b'',
        encode_return_value(job.serializer, retry),
        rate_limit=job.rate_limit_key or '',
    )


def retried(job: 'Job', execution: 'Execution | None') -> Retried:
    """The next try of a job that raised and has retries left; takes one of them."""
    interval = job.get_retry_interval()
    job.retries_left = (job.retries_left or 1) - 1
    return Retried(
        *_attempt(job, execution),
        _due(interval),
        job.enqueue_at_front_on_retry,
        *_span(job),
        {'retries_left': job.retries_left},
        rate_limit=job.rate_limit_key or '',
    )


def retry_returned(job: 'Job', execution: 'Execution | None', retry: Retry) -> Retried:
    """The next try of a job that returned a `Retry`."""
    interval = Retry.get_interval(job.number_of_retries or 0, retry.intervals)
    job.number_of_retries = (job.number_of_retries or 0) + 1
    job.enqueue_at_front_on_retry = job.enqueue_at_front_on_retry or retry.enqueue_at_front
    fields = {'number_of_retries': job.number_of_retries}
    if job.enqueue_at_front_on_retry:
        fields['enqueue_at_front_on_retry'] = 1
    return Retried(
        *_attempt(job, execution),
        _due(interval),
        job.enqueue_at_front_on_retry,
        *_span(job),
        fields,
        return_value=encode_return_value(job.serializer, retry),
        result_ttl=_failure_ttl(job),
        rate_limit=job.rate_limit_key or '',
    )


def _due(interval: int) -> int | None:
    return int(now().timestamp() + interval) if interval else None


def as_retry(value: Any) -> Retry | None:
    """The `Retry` that a job returned, of greenq or of an rq that is installed beside it; None for all else."""
    if isinstance(value, Retry):
        return value
    if type(value).__module__ == 'rq.job' and type(value).__name__ == 'Retry':
        return Retry(value.max, value.intervals, value.enqueue_at_front)
    return None


def describe_exception(exc_info: Any) -> str:
    """The traceback as text, whatever the exception's own methods do."""
    try:
        return ''.join(traceback.format_exception(*exc_info))
    except Exception as error:
        kind = getattr(exc_info[0], '__name__', repr(exc_info[0]))
        return f'{kind}: its text cannot be formatted ({type(error).__name__} in __str__ or __repr__)\n'


def damaged(execution: 'Execution', exc_string: str) -> Failed:
    """The failure of a job whose hash cannot be read: nothing of it is used but its id."""
    moment = now()
    return Failed(
        execution.job_id,
        execution.id,
        execution.queue_name,
        JobStatus.FAILED.value,
        Result.Type.FAILED.value,
        DEFAULT_FAILURE_TTL,
        True,
        execution.created_at.timestamp(),
        moment.timestamp(),
        utcformat(moment),
        encode_exc_string(exc_string),
    )
