"""What the end of a job goes through, whoever brings it about: callbacks' deadlines, a failure's text and handlers."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from greenq.timeouts import BaseDeathPenalty, TimerDeathPenalty, UnixSignalDeathPenalty
from greenq.types import ExcInfo

if TYPE_CHECKING:
    from greenq.job import Job


def call_exception_handlers(handlers: Iterable[Callable[..., Any]], job: Job, *exc_info: Any) -> None:
    """Call each handler with the job and the exception, until one returns something false that is not None."""
    for handler in handlers:
        verdict = handler(job, *exc_info)
        if verdict is not None and not verdict:
            return


def format_exc_info(exc_info: ExcInfo | tuple[Any, Any, Any]) -> str:
    """The traceback as text, even if the exception cannot say what it is."""
    try:
        return ''.join(traceback.format_exception(*exc_info))
    except Exception as error:
        kind, _, trace = exc_info
        name = getattr(kind, '__qualname__', kind)
        frames = ''.join(traceback.format_tb(trace))
        return f'{frames}{name}: <its message cannot be shown, that raised {type(error).__name__}>\n'


def death_penalty_here(death_penalty_class: type[BaseDeathPenalty]) -> type[BaseDeathPenalty]:
    """The class, or one that works in the calling thread: signals reach the main one only."""
    by_signal = issubclass(death_penalty_class, UnixSignalDeathPenalty)
    if by_signal and threading.current_thread() is not threading.main_thread():
        return TimerDeathPenalty
    return death_penalty_class
