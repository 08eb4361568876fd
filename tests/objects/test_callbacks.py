"""Callbacks: what may be one, how long it may run, and how it is called."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from greenq.callbacks import (
    Callback,
    as_callback,
    execute_failure_callback,
    execute_stopped_callback,
    execute_success_callback,
)
from greenq.exceptions import TimeoutFormatError
from greenq.timeouts import JobTimeoutException, UnixSignalDeathPenalty


def notify() -> None:
    """A user's function."""


class Notifier:
    def __call__(self) -> None:
        """Callable, but not importable."""

    def notify(self) -> None:
        """A bound method would need its instance to be stored too."""


def test_a_callback_is_a_function_a_builtin_or_a_path() -> None:
    assert Callback(notify).name == f'{__name__}.notify'
    assert Callback(print).name == 'builtins.print'
    assert Callback('app.notify').name == 'app.notify'
    assert Callback(notify).func is notify


@pytest.mark.parametrize('func', [Notifier, Notifier(), Notifier().notify, 3, None])
def test_anything_else_is_refused_by_name(func: Any) -> None:
    with pytest.raises(ValueError, match='must be a string or function') as caught:
        Callback(func)
    assert repr(func) in str(caught.value)


def test_the_timeout_is_a_minute_unless_given() -> None:
    assert [Callback('f', timeout).timeout for timeout in (None, 0, 5, '2m')] == [60, 60, 5, 120]
    with pytest.raises(TimeoutFormatError):
        Callback('f', 'soon')


def test_the_bare_forms_are_deprecated_and_work() -> None:
    callback = Callback(notify)
    assert as_callback(callback, 'on_success') is callback
    assert as_callback(None, 'on_success') is None
    with pytest.deprecated_call(match='`on_failure` is deprecated') as warned:
        converted = as_callback('app.notify', 'on_failure')
    assert converted is not None
    assert converted.name == 'app.notify'
    assert len(warned) == 1


def job_with(callback: Any, timeout: float = 5) -> Any:
    """As much of a job as running a callback needs."""
    fields: dict[str, Any] = {'id': 'j', 'connection': 'redis', 'log': logging.getLogger(__name__)}
    for kind in ('success', 'failure', 'stopped'):
        fields |= {f'{kind}_callback': callback, f'{kind}_callback_timeout': timeout}
    return SimpleNamespace(**fields)


def test_each_kind_gets_the_job_the_connection_and_its_own() -> None:
    calls: list[tuple[Any, ...]] = []
    job = job_with(lambda *args: calls.append(args))
    error = KeyError('k')
    execute_success_callback(job, UnixSignalDeathPenalty, 42)
    execute_failure_callback(job, UnixSignalDeathPenalty, KeyError, error, None)
    execute_stopped_callback(job, UnixSignalDeathPenalty)
    assert calls == [(job, 'redis', 42), (job, 'redis', KeyError, error, None), (job, 'redis')]


def test_without_a_callback_nothing_happens() -> None:
    execute_success_callback(job_with(None), UnixSignalDeathPenalty, 42)


def test_a_callback_that_takes_too_long_is_interrupted() -> None:
    with pytest.raises(JobTimeoutException):
        execute_success_callback(job_with(lambda *args: time.sleep(20), 0.05), UnixSignalDeathPenalty, 42)


def test_a_coroutine_function_is_refused() -> None:
    async def later(*args: Any) -> None:
        """Nobody would await it."""

    with pytest.raises(TypeError, match='Coroutine stopped callbacks are not supported'):
        execute_stopped_callback(job_with(later), UnixSignalDeathPenalty)


def test_a_failing_failure_callback_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError('callback')

    with pytest.raises(RuntimeError, match='callback'):
        execute_failure_callback(job_with(fail), UnixSignalDeathPenalty, None, None, None)
    assert 'error while executing failure callback' in caplog.text
