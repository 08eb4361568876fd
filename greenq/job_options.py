"""Everything that `Queue.enqueue` and its relatives accept besides the function: the names, the rules, once.

How a job is built and stored from it is the queue's business.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from greenq.utils import parse_timeout

if TYPE_CHECKING:
    from redis.client import Pipeline

    from greenq.callbacks import Callback
    from greenq.rate_limit import RateLimit
    from greenq.repeat import Repeat
    from greenq.retry import Retry
    from greenq.types import JobDependencyType
    from greenq.webhook import Webhook

Function = str | Callable[..., Any]
"""A function to run later: itself, or its dotted path."""

Args = list[Any] | tuple[Any, ...] | None
Kwargs = dict[str, Any] | None


@dataclass(slots=True)
class JobOptions:
    """What a caller may say about a job. Times are seconds, or strings such as `'5m'`; None is "not said".

    Nobody changes one; it is not frozen, because that trebles the time to make it.
    """

    timeout: float | str | None = None
    result_ttl: float | str | None = None
    ttl: float | str | None = None
    failure_ttl: float | str | None = None
    description: str | None = None
    depends_on: JobDependencyType | Sequence[Any] | None = None
    job_id: str | None = None
    at_front: bool = False
    meta: dict[Any, Any] | None = None
    retry: Retry | None = None
    repeat: Repeat | None = None
    on_success: Callback | str | Callable[..., Any] | None = None
    on_failure: Callback | str | Callable[..., Any] | None = None
    on_stopped: Callback | str | Callable[..., Any] | None = None
    rate_limit: RateLimit | None = None
    pipeline: Pipeline | None = None
    unique: bool = False
    webhooks: Sequence[Webhook] | None = None
    group_id: str | None = None
    on_lost: str | None = None

    def given(self) -> dict[str, Any]:
        """The options that were said, by name."""
        if self is NOTHING_SAID:
            return {}
        return {name: value for name in _NAMES if (value := getattr(self, name)) is not None and value is not False}

    def but(self, **changes: Any) -> JobOptions:
        """The same options with some of them changed."""
        return replace(self, **changes)

    def job_arguments(self) -> dict[str, Any]:
        """The said options that `Queue.create_job` takes: all but those about how the job is submitted."""
        arguments = self.given()
        for name in _SUBMISSION_NAMES:
            arguments.pop(name, None)
        return arguments

    def create_arguments(self, default_timeout: int) -> dict[str, Any]:
        """The said options, checked and in seconds, under the names that `Job.create` has for them.

        ValueError for a timeout of 0 and for a ttl that is not positive.
        """
        arguments: dict[str, Any] = {
            'timeout': default_timeout if self.timeout is None else _checked_timeout(self.timeout)
        }
        if self is NOTHING_SAID:
            return arguments
        for name in _CREATE_NAMES:
            value = getattr(self, name)
            if value is not None:
                arguments[name] = value
        if self.ttl is not None:
            arguments['ttl'] = _checked_ttl(self.ttl)
        if self.job_id is not None:
            arguments['id'] = self.job_id
        return arguments


_NAMES = tuple(field.name for field in fields(JobOptions))
_SUBMISSION_NAMES = ('at_front', 'pipeline', 'unique')
_CREATE_NAMES = (
    'result_ttl',
    'failure_ttl',
    'description',
    'depends_on',
    'meta',
    'retry',
    'on_success',
    'on_failure',
    'on_stopped',
    'webhooks',
    'group_id',
    'on_lost',
)

NOTHING_SAID = JobOptions()
"""The options of a call that names none; shared, because that is most calls."""

# `enqueue(f, ..., timeout=5)` means an argument of f's, so the job's own timeout goes by another name there; and the
# group is set by `Group` only.
_POPPED = {name: name for name in _NAMES if name not in ('timeout', 'group_id')} | {'job_timeout': 'timeout'}


def _checked_timeout(timeout: float | str) -> int | None:
    seconds = parse_timeout(timeout)
    if seconds == 0:
        raise ValueError(f'0 timeout is not allowed, got {timeout!r}. Use -1 for infinite timeout')
    return seconds


def _checked_ttl(ttl: float | str) -> int | None:
    seconds = parse_timeout(ttl)
    if seconds is not None and seconds <= 0:
        raise ValueError(f'Job ttl must be greater than 0, got {ttl!r}: leave it out to keep the job until it has run')
    return seconds


def parse(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[JobOptions, Args, Kwargs]:
    """Part the options of `enqueue(func, *args, **kwargs)` from what the function is to be called with.

    `args=` or `kwargs=` among the keywords is the explicit form: they are what the function gets, all other keywords
    are options. Empties `kwargs` of what it takes. ValueError for a function of `__main__`, which no worker can import.
    """
    if not isinstance(func, str) and getattr(func, '__module__', None) == '__main__':
        raise ValueError(
            f'Functions from the __main__ module cannot be processed by workers: move {func!r} to a module of its own'
        )
    if not kwargs:
        return NOTHING_SAID, args, kwargs
    is_explicit = 'args' in kwargs or 'kwargs' in kwargs
    names = _POPPED.keys() & kwargs.keys()
    if 'on_lost' in names and not is_explicit and _has_parameter(func, 'on_lost'):
        # RQ has no such option, so that code written for RQ may mean the function's argument.
        names.discard('on_lost')
    said = {_POPPED[name]: kwargs.pop(name) for name in names}
    call_args: Args = args
    call_kwargs: Kwargs = kwargs
    if is_explicit:
        if args:
            raise TypeError(
                f'Extra positional arguments cannot be used with explicit args and kwargs: put {args!r} into args='
            )
        call_args, call_kwargs = kwargs.pop('args', None), kwargs.pop('kwargs', None)
        _take_leftovers(said, kwargs)
    elif 'timeout' in kwargs and 'timeout' not in said and not _accepts(func, 'timeout'):
        said['timeout'] = kwargs.pop('timeout')
    return (JobOptions(**said) if said else NOTHING_SAID), call_args, call_kwargs


def _take_leftovers(said: dict[str, Any], kwargs: dict[str, Any]) -> None:
    # RQ drops what is left over in the explicit form without a word, among it `timeout`, which its own older
    # documentation writes here.
    if 'timeout' in kwargs:
        said.setdefault('timeout', kwargs.pop('timeout'))
    if kwargs:
        warnings.warn(
            f'enqueue() ignores {", ".join(sorted(kwargs))}: no such option; arguments of the function go into kwargs=',
            RuntimeWarning,
            stacklevel=4,
        )


def _accepts(func: Function, name: str) -> bool:
    """Whether the function can be called with this keyword; True if nobody can tell."""
    if isinstance(func, str):
        return True
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _has_parameter(func: Function, name: str) -> bool:
    """Whether the function is known to have a parameter of this very name."""
    try:
        return not isinstance(func, str) and name in inspect.signature(func).parameters
    except (TypeError, ValueError):
        return False


def check_unique(job_id: str | None, has_dependencies: bool, has_rate_limit: bool) -> None:
    """ValueError for what `unique=True` cannot be combined with."""
    if not job_id:
        raise ValueError('unique=True requires an explicit job_id')
    if has_dependencies:
        raise ValueError(f'unique=True is not supported with job dependencies: enqueue {job_id!r} without one of them')
    if has_rate_limit:
        raise ValueError(f'unique=True is not supported with rate-limited jobs: enqueue {job_id!r} without one of them')
