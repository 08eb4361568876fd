"""Reports the exceptions of a worker's jobs to Sentry, for a `SENTRY_DSN`; needs the extra `sentry`."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from greenq.cli.errors import CommandError, one_line

if TYPE_CHECKING:
    from greenq.job import Job

Handler = Callable[['Job', type[BaseException], BaseException, TracebackType | None], bool]

#: A child of a forking worker leaves without the interpreter's clean-up, in which Sentry would send what it holds.
FLUSH_SECONDS = 2


def start_sentry(dsn: str) -> Handler:
    """Set Sentry up for this process. Returns the exception handler that reports, and lets the next one go on."""
    try:
        import sentry_sdk
    except ImportError:
        raise CommandError(
            f'SENTRY_DSN is set to {_without_key(dsn)!r}, but sentry-sdk is not installed. '
            f"Run: pip install 'greenq[sentry]'"
        ) from None
    try:
        # Raven, Sentry's client of old, took its transport from the scheme; RQ's documentation still shows that.
        sentry_sdk.init(dsn.removeprefix('sync+'))
    except Exception as error:
        raise CommandError(f'Invalid SENTRY_DSN {_without_key(dsn)!r}: {one_line(error)}.') from error
    worker_pid = os.getpid()

    def report(
        job: Job, exc_type: type[BaseException], exc_value: BaseException, traceback: TracebackType | None
    ) -> bool:
        with sentry_sdk.new_scope() as scope:
            scope.set_tag('job', job.func_name)
            scope.set_context('job', {'id': job.id, 'queue': job.origin, 'function': job.func_name})
            sentry_sdk.capture_exception((exc_type, exc_value, traceback))
        if os.getpid() != worker_pid:
            sentry_sdk.flush(FLUSH_SECONDS)
        return True

    return report


def _without_key(dsn: str) -> str:
    scheme, _, rest = dsn.partition('://')
    return f'{scheme}://...@{rest.rpartition("@")[2]}'
