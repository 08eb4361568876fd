"""Functions that workers of either package run. Only the standard library, and the package that runs them."""

from __future__ import annotations

import sys
import time
from typing import Any

#: What ran in this process, in order.
calls: list[Any] = []


def package() -> Any:
    """The package whose worker runs this."""
    return sys.modules.get('greenq') or sys.modules['rq']


def add(a: int, b: int = 0) -> int:
    """Succeeds."""
    calls.append(['add', a, b])
    return a + b


def divide() -> float:
    """Fails."""
    calls.append(['divide'])
    return 1 / 0


def fail_at_first() -> int:
    """Fails unless it ran before in this process."""
    calls.append(['fail_at_first'])
    if len(calls) == 1:
        raise ValueError('not yet')
    return len(calls)


def ask_again() -> Any:
    """Returns a Retry of the package whose worker runs it."""
    calls.append(['ask_again'])
    return package().Retry(max=1)


def kind_of(value: Any) -> list[Any]:
    """Which package's Retry this is, and its maximum."""
    return [type(value).__module__.partition('.')[0], value.max]


def sleep(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return 'slept'


def note_meta() -> dict[str, Any]:
    """Reads and writes the metadata of the job that runs."""
    job = package().get_current_job()
    job.meta['seen'] = True
    job.save_meta()
    return dict(job.meta)


def note_success(job: Any, connection: Any, result: Any) -> None:
    """Callback."""
    calls.append(['success', job.id, result])
    connection.hset('rq:test:called', job.id, 'success')


def note_failure(job: Any, connection: Any, kind: Any, value: Any, traceback: Any) -> None:
    """Callback."""
    calls.append(['failure', job.id, kind.__name__])
    connection.hset('rq:test:called', job.id, 'failure')


def note_stopped(job: Any, connection: Any) -> None:
    """Callback."""
    connection.hset('rq:test:called', job.id, 'stopped')
