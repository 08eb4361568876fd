"""Functions and classes that the tests of the commands name by their dotted paths."""

import sys
from typing import Any

from redis.connection import socket as redis_socket  # type: ignore[attr-defined]

from greenq import get_current_job


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What it was called with."""
    return args, kwargs


def fail() -> None:
    """Always an error."""
    raise RuntimeError('as asked')


def is_patched() -> bool:
    """Whether gevent's sockets stand in for Python's, and were there before anything could keep Python's own."""
    monkey = sys.modules.get('gevent.monkey')
    if monkey is None or not monkey.is_module_patched('socket'):
        return False
    import ssl

    return redis_socket.socket.__module__.startswith('gevent') and ssl.SSLContext.__module__.startswith('gevent')


def working_path() -> list[str]:
    """Where the worker imports from."""
    return sys.path


def mark(job: Any, *exc_info: Any) -> bool:
    """An exception handler that leaves a trace."""
    job.meta['marked'] = job.meta.get('marked', 0) + 1
    job.save_meta()
    return True


def current_job_id() -> str | None:
    """The id of the job that calls it."""
    job = get_current_job()
    return job.id if job else None


not_a_class = 'text'
