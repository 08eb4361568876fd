"""Every exception that greenq raises, as one short tree; no behaviour lives here.

GreenqError
    NoSuchJobError, NoSuchGroupError, SchedulerNotFound        what was asked for is not in Redis
    DuplicateJobError, DuplicateSchedulerError                 the name is taken
    InvalidJobOperationError > InvalidJobOperation             the job's state does not allow it
    InvalidJobDependency, TimeoutFormatError                   an argument makes no sense
    DeserializationError, UnserializableError                  data that cannot be read, or written
    InterruptedJobError > PoisonJobError, AbandonedJobError    why a job failed that raised nothing itself
    ConfigurationError > NotPatchedError, EmbeddedServerError  the process cannot start like this
    DequeueTimeout, StopRequested                              signals inside a worker
ShutDownImminentException                                      a BaseException: `except Exception` must not eat it
"""

from __future__ import annotations

from typing import Any


class GreenqError(Exception):
    """The root of the tree. Names that RQ has too are plain `Exception` subclasses there."""


class NoSuchJobError(GreenqError):
    """No job with this id is in Redis: it never was, it expired, or it was deleted."""


class NoSuchGroupError(GreenqError):
    """No group with this name is in Redis."""


class SchedulerNotFound(GreenqError):
    """No scheduler with this name is registered."""


class DuplicateJobError(GreenqError):
    """A job with this id exists, and the caller asked for a unique one."""


class DuplicateSchedulerError(GreenqError):
    """A scheduler with this name is registered and alive."""


class InvalidJobOperationError(GreenqError):
    """RQ's older name for `InvalidJobOperation`; catching it catches both."""


class InvalidJobOperation(InvalidJobOperationError):
    """The job's present state does not allow the operation. Always raise this one: either name then catches it."""


class InvalidJobDependency(GreenqError):
    """A job cannot depend on what was given."""


class TimeoutFormatError(GreenqError):
    """A timeout is neither a number of seconds nor a string such as `'90'`, `'5s'`, `'3m'`, `'1h'` or `'1d'`."""


class DeserializationError(GreenqError):
    """The stored function, arguments or metadata of a job cannot be read with its serializer."""


class UnserializableError(GreenqError, TypeError):
    """An argument, or a job's metadata, cannot be written with the serializer; a `TypeError`, as with json."""


class AbandonedJobError(GreenqError):
    """A job was started and its worker vanished. Given to failure callbacks and exception handlers, never raised."""


class InterruptedJobError(GreenqError):
    """A job was cut off by something that was not its own doing: a dying worker, a deploy, a shutdown."""


class PoisonJobError(InterruptedJobError):
    """A job was interrupted so many times in a row that it is itself the likely cause."""

    def __init__(self, interruptions: int) -> None:
        super().__init__(interruptions)
        self.interruptions = interruptions

    def __str__(self) -> str:
        return (
            f'interrupted {self.interruptions} times in a row: each time its worker died or was stopped while it ran; '
            f'look for what kills the process, then requeue the job'
        )


class ConfigurationError(GreenqError):
    """A setting, a class path or an environment variable makes it impossible to start."""


class NotPatchedError(ConfigurationError):
    """A gevent worker was started in a process that gevent has not patched, or patched too late."""


class EmbeddedServerError(ConfigurationError):
    """The embedded server cannot be started or reached."""


class DequeueTimeout(GreenqError):
    """A blocking dequeue waited its time and no job came."""


class StopRequested(GreenqError):
    """Ends a worker's loop, for example after a stop signal."""


class ShutDownImminentException(BaseException):
    """Ends a running job before its process is stopped by force.

    `extra_info` tells where the job was interrupted.
    """

    def __init__(self, msg: str, extra_info: Any = None) -> None:
        super().__init__(msg)
        self.extra_info = extra_info
