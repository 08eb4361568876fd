"""The call that a job stands for: its function and arguments, serialized and read, and making it."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import warnings
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from greenq.exceptions import DeserializationError, UnserializableError
from greenq.job_fields import UNEVALUATED, JobFields
from greenq.utils import get_call_string, import_attribute, resolve_function_reference

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Job

_LONGEST_ARGUMENT_SHOWN = 75
_CALL_PARTS = frozenset({'_func_name', '_instance', '_args', '_kwargs'})

_current_job: ContextVar[Any] = ContextVar('current_job', default=None)
#: Where else to look for the job that the caller runs in: workers add what contexts do not reach.
current_job_finders: list[Callable[[], Job | None]] = []


def get_current_job(connection: Redis | None = None, job_class: type[Job] | None = None) -> Job | None:
    """The job that the caller runs in, None outside of any. Both arguments are deprecated and do nothing."""
    for name, value in (('connection', connection), ('job_class', job_class)):
        if value is not None:
            warnings.warn(f'{name} argument for get_current_job is deprecated.', DeprecationWarning, stacklevel=2)
    job: Job | None = _current_job.get()
    if job is not None:
        return job
    return next((found for find in current_job_finders if (found := find()) is not None), None)


class _UnpicklableError(UnserializableError, pickle.PicklingError):
    """Caught by whoever expects what pickle raises, and by whoever expects what json raises."""


class _CallPart:
    """The function's name, instance, args or kwargs; the first one asked for loads all four."""

    def __set_name__(self, owner: type[JobCall], name: str) -> None:
        self.name = name

    def __get__(self, job: JobCall | None, owner: type[JobCall]) -> Any:
        if job is None:
            return self
        job._load_call()
        return job.__dict__[self.name]


class JobCall(JobFields):
    """A function and what it is called with; kept as four parts, as their serialized form, or as both."""

    _func_name = _CallPart()
    _instance = _CallPart()
    _args = _CallPart()
    _kwargs = _CallPart()

    #: Runs the job's coroutine, given both; None stands for a loop of its own.
    _coroutine_runner: Callable[[Any, Coroutine[Any, Any, Any]], Any] | None = None

    _cached_attributes = JobFields._cached_attributes | _CALL_PARTS

    def _set_call(self, func: str | Callable[..., Any], by_position: Any, by_name: Any, kwargs: Any) -> None:
        """Have it call `func`; its positional arguments come in one of two ways. TypeError for a wrong kind."""
        self._instance, self._func_name = resolve_function_reference(func)
        self._args = _positional(by_position, by_name)
        self._kwargs = _named(kwargs)

    def _load_call(self) -> None:
        """Put into `__dict__` those parts of the call that are not there yet."""
        try:
            parts = self.serializer.loads(self.data)
            func_name, instance, args, kwargs = parts
        except Exception as error:
            raise DeserializationError(
                f'Job {self._id}: field data cannot be read with {_name_of(self.serializer)}: {_in_one_line(error)}'
            ) from error
        state = self.__dict__
        state.setdefault('_func_name', func_name)
        state.setdefault('_instance', instance)
        state.setdefault('_args', args)
        state.setdefault('_kwargs', kwargs)

    def _set_call_part(self, name: str, value: Any) -> None:
        if self._data is not UNEVALUATED:
            # The other parts are known only from it.
            self._load_call()
        self.__dict__[name] = value
        self._data = UNEVALUATED

    @property
    def data(self) -> bytes:
        """The serialized call. ValueError when there is none, a clear error for arguments that cannot be serialized."""
        if self._data is UNEVALUATED:
            self._data = self._dump_call()
        data: bytes = self._data
        return data

    @data.setter
    def data(self, value: bytes) -> None:
        self._data = value
        for name in _CALL_PARTS & self.__dict__.keys():
            del self.__dict__[name]

    def _dump_call(self) -> bytes:
        state = self.__dict__
        if '_func_name' not in state:
            raise ValueError(f'Cannot build the job data: job {self._id} has no function')
        func_name, instance = state['_func_name'], state.get('_instance')
        args, kwargs = state.get('_args', ()), state.get('_kwargs', {})

        def parts() -> dict[str, Any]:
            by_position = {f'argument {at}': value for at, value in enumerate(args)}
            return {'its instance': instance, **by_position, **{f'argument {n!r}': v for n, v in kwargs.items()}}

        return self._dump((func_name, instance, args, kwargs), func_name, parts)

    def _dump(self, value: Any, owner: str, parts: Callable[[], Mapping[str, Any]]) -> bytes:
        """Serialize `value`; the error says which of its parts cannot be."""
        try:
            return self.serializer.dumps(value)
        except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError) as error:
            culprits = (f'{name} ({type(part).__name__})' for name, part in parts().items() if not self._can_dump(part))
            raise _UnpicklableError(
                f'{owner}: {next(culprits, "it")} cannot be serialized with {_name_of(self.serializer)} '
                f'({_in_one_line(error)}); pass something plain, such as an id'
            ) from error

    def _can_dump(self, value: Any) -> bool:
        try:
            self.serializer.dumps(value)
        except Exception:
            return False
        return True

    @property
    def func_name(self) -> str | None:
        """Dotted path of the function, or name of the method of `instance`."""
        name: str | None = self._func_name
        return name

    @func_name.setter
    def func_name(self, value: str | None) -> None:
        self._set_call_part('_func_name', value)

    @property
    def instance(self) -> Any:
        """What the method is called on, None for a function."""
        return self._instance

    @instance.setter
    def instance(self, value: Any) -> None:
        self._set_call_part('_instance', value)

    @property
    def args(self) -> list[Any] | tuple[Any, ...]:
        """Positional arguments; DeserializationError if they cannot be read here."""
        args: list[Any] | tuple[Any, ...] = self._args
        return args

    @args.setter
    def args(self, value: list[Any] | tuple[Any, ...]) -> None:
        self._set_call_part('_args', value)

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments; DeserializationError if they cannot be read here."""
        kwargs: dict[str, Any] = self._kwargs
        return kwargs

    @kwargs.setter
    def kwargs(self, value: dict[str, Any]) -> None:
        self._set_call_part('_kwargs', value)

    @property
    def func(self) -> Callable[..., Any] | None:
        """What is called. ValueError if it cannot be imported here."""
        func_name = self.func_name
        if func_name is None:
            return None
        instance = self.instance
        func: Callable[..., Any] = import_attribute(func_name) if instance is None else getattr(instance, func_name)
        return func

    def get_call_string(self) -> str | None:
        """The call as one would type it."""
        return get_call_string(self.func_name, self.args, self.kwargs, max_length=_LONGEST_ARGUMENT_SHOWN)

    # ---- running ----

    def perform(self) -> Any:
        """Make the call, in this process and at once; returns what it returns, raises what it raises."""
        token = _current_job.set(self)
        try:
            self._result = self._execute()
        finally:
            _current_job.reset(token)
        return self._result

    def _execute(self) -> Any:
        result = self._call()
        # Not asyncio's test, which takes a plain generator for a coroutine on Python 3.11.
        return self._run_coroutine(result) if inspect.iscoroutine(result) else result

    def _call(self) -> Any:
        func = self.func
        if func is None:
            raise ValueError(f'Cannot execute job {self.id}: function is None')
        return func(*self.args, **self.kwargs)

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run what an `async def` function returned."""
        runner = self._coroutine_runner
        return asyncio.run(coroutine) if runner is None else runner(self, coroutine)


def _positional(by_position: Any, by_name: Any) -> list[Any] | tuple[Any, ...]:
    """The arguments of the call. A bare string is refused by name, where RQ refuses it, and taken by position, where
    RQ's own documentation passes it."""
    if by_position is not None and by_name is not None:
        raise TypeError("Job.create() got multiple values for argument 'args'")
    if isinstance(by_position, str):
        return (by_position,)
    args = by_name if by_position is None else by_position
    if args is None:
        return ()
    if not isinstance(args, (list, tuple)):
        raise TypeError(f'args must be a list or tuple, not {args!r}: a single argument is (value,)')
    return args


def _named(kwargs: Any) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, dict):
        raise TypeError(f'kwargs must be a dict, not {kwargs!r}')
    return kwargs


def _name_of(serializer: Any) -> str:
    return getattr(serializer, '__name__', None) or type(serializer).__name__


def _in_one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())
