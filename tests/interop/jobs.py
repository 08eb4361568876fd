"""Functions that workers of both packages run in this process, and what they saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rq

import greenq

#: What ran, in order.
calls: list[Any] = []
#: What `ask_again` returns an instance of.
retry_class: list[Any] = []
#: Called by `look_around`.
observers: list[Callable[[], None]] = []


def add(a: int, b: int = 0) -> int:
    """Succeeds."""
    calls.append(('add', a, b))
    return a + b


def divide() -> float:
    """Fails."""
    calls.append('divide')
    return 1 / 0


def look_around() -> str:
    """Has somebody look at the database while a job runs."""
    for observe in observers:
        observe()
    return 'seen'


def ask_again() -> Any:
    """Returns a Retry, of the package whose worker runs it."""
    calls.append('ask')
    return retry_class[0](max=1)


def sleep(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return 'slept'


def note_meta() -> dict[str, Any]:
    """Reads and writes the metadata of the job that runs, whichever package runs it."""
    job = greenq.get_current_job() or rq.get_current_job()
    assert job is not None
    job.meta['seen'] = True
    job.save_meta()
    return dict(job.meta)


def note_success(job: Any, connection: Any, result: Any) -> None:
    """Callback."""
    calls.append(('success', job.id, result))


def note_failure(job: Any, connection: Any, kind: Any, value: Any, traceback: Any) -> None:
    """Callback."""
    calls.append(('failure', job.id, kind.__name__))


def kind_of(value: Any) -> tuple[str, int]:
    """The module of a Retry's class, and its maximum."""
    return type(value).__module__, value.max
