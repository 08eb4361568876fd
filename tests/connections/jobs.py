"""Jobs of the tests of connections."""

from __future__ import annotations

import time

from greenq import Retry, get_current_job


def add(a: int, b: int) -> int:
    return a + b


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return 'slept'


def fails_once() -> str | Retry:
    """Asks for another attempt the first time; what it notes goes through the job's own connection."""
    job = get_current_job()
    assert job is not None
    if job.meta.get('was_here'):
        return 'second attempt'
    job.meta['was_here'] = True
    job.save_meta()
    return Retry(max=1)


def fail() -> None:
    raise RuntimeError('as asked')
