"""What runs after a job, and how it is called under its own deadline; when it runs is the worker's business."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from greenq.defaults import CALLBACK_TIMEOUT
from greenq.timeouts import BaseDeathPenalty, JobTimeoutException
from greenq.utils import parse_timeout, resolve_function_reference

if TYPE_CHECKING:
    from greenq.job import Job


class Callback:
    """A function, or its dotted path, to run when a job ends; `timeout` as for a job, 60 seconds if not given."""

    def __init__(self, func: str | Callable[..., Any], timeout: float | str | None = None) -> None:
        if not isinstance(func, str) and not inspect.isfunction(func) and not inspect.isbuiltin(func):
            raise ValueError(f'Callback `func` must be a string or function, not {func!r}: name it by its dotted path')
        self.func = func
        self.timeout = (parse_timeout(timeout) if timeout else None) or CALLBACK_TIMEOUT

    @property
    def name(self) -> str:
        """The dotted path under which the worker finds the function."""
        return resolve_function_reference(self.func)[1]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r}, timeout={self.timeout})'


def as_callback(value: Callback | str | Callable[..., Any] | None, option: str) -> Callback | None:
    """What was given as `option`, such as `on_success`. A bare function or path is deprecated, as in RQ."""
    if not value:
        return None
    if isinstance(value, Callback):
        return value
    warnings.warn(
        f'Passing a string or function for `{option}` is deprecated, pass `Callback` instead',
        DeprecationWarning,
        stacklevel=3,
    )
    return Callback(value)


def execute_success_callback(job: Job, death_penalty_class: type[BaseDeathPenalty], result: Any) -> None:
    """Call the job's success callback, if it has one. What it raises is raised."""
    callback = job.success_callback
    if callback is not None:
        _execute('success', callback, job.success_callback_timeout, job, death_penalty_class, result)


def execute_failure_callback(
    job: Job,
    death_penalty_class: type[BaseDeathPenalty],
    *exc_info: type[BaseException] | BaseException | TracebackType | None,
) -> None:
    """Call the job's failure callback, if it has one. What it raises is logged and raised."""
    callback = job.failure_callback
    if callback is not None:
        _execute('failure', callback, job.failure_callback_timeout, job, death_penalty_class, *exc_info)


def execute_stopped_callback(job: Job, death_penalty_class: type[BaseDeathPenalty]) -> None:
    """Call the job's stopped callback, if it has one. What it raises is logged and raised."""
    callback = job.stopped_callback
    if callback is not None:
        _execute('stopped', callback, job.stopped_callback_timeout, job, death_penalty_class)


def _execute(
    kind: str,
    callback: Callable[..., Any],
    timeout: int,
    job: Job,
    death_penalty_class: type[BaseDeathPenalty],
    *args: Any,
) -> None:
    if inspect.iscoroutinefunction(callback):
        raise TypeError(f'Coroutine {kind} callbacks are not supported: make {callback!r} a plain function')
    job.log.debug('Job %s: running %s callback...', job.id, kind)
    try:
        with death_penalty_class(timeout, JobTimeoutException, job_id=job.id):
            callback(job, job.connection, *args)
    except Exception:
        if kind != 'success':
            # The worker reports a failing success callback as the job's own failure; these it would lose.
            job.log.exception('Job %s: error while executing %s callback', job.id, kind)
        raise
