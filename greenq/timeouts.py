"""Deadlines around a block of code, by signal or by timer, and what they raise; gevent's live with its worker."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

#: A signal that comes where it must not strike comes again after this long (s).
_SPARED_SECONDS = 0.001


class BaseTimeoutException(Exception):
    """The common base of everything a deadline raises."""


class JobTimeoutException(BaseTimeoutException):
    """A job, or one of its callbacks, ran longer than it may."""


class HorseMonitorTimeoutException(BaseTimeoutException):
    """A forking worker has waited long enough for its child and wants to look after other things."""


class BaseDeathPenalty:
    """A context manager that raises `exception` in its block after `timeout` seconds.

    A timeout of None, 0 or less means no limit. Subclasses say how: `setup_death_penalty` and
    `cancel_death_penalty`, of which the latter must be harmless when called twice.
    """

    def __init__(
        self, timeout: float | None, exception: type[BaseException] = JobTimeoutException, **kwargs: Any
    ) -> None:
        self._timeout = timeout if timeout is not None and timeout > 0 else 0
        self._exception = exception

    def __enter__(self) -> None:
        if self._timeout:
            self.setup_death_penalty()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._timeout:
            return
        try:
            self.cancel_death_penalty()
        except (BaseTimeoutException, self._exception):
            # It struck while it was being disarmed: the block was done in time, so nobody need know.
            self.cancel_death_penalty()

    @property
    def message(self) -> str:
        return f'Task exceeded maximum timeout value ({self._timeout} seconds)'

    def setup_death_penalty(self) -> None:
        raise NotImplementedError(f'{type(self).__name__} must define setup_death_penalty()')

    def cancel_death_penalty(self) -> None:
        raise NotImplementedError(f'{type(self).__name__} must define cancel_death_penalty()')


class UnixSignalDeathPenalty(BaseDeathPenalty):
    """By SIGALRM: interrupts anything but C code that does not return; main thread only.

    Puts back the handler and the timer that it found, so penalties nest.
    """

    def setup_death_penalty(self) -> None:
        self._armed = True
        self._previous_handler = signal.signal(signal.SIGALRM, self.handle_death_penalty)
        self._previous_seconds, _ = signal.setitimer(signal.ITIMER_REAL, self._timeout)
        self._started_at = time.monotonic()

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        if is_packing(frame):
            signal.setitimer(signal.ITIMER_REAL, _SPARED_SECONDS)
            return
        raise self._exception(self.message)

    def cancel_death_penalty(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not self._armed:
            return
        # None stands for a handler that was not set from Python, and cannot be put back from here.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._previous_handler is None else self._previous_handler)
        self._armed = False
        if self._previous_seconds:
            left = self._previous_seconds - (time.monotonic() - self._started_at)
            # Zero would disarm a timer that is overdue.
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))


def is_packing(frame: FrameType | None) -> bool:
    """Whether redis-py is about to send a command. Hiredis (3.5) crashes the process if an exception is raised while
    it packs a number, so that a deadline has to strike a moment later."""
    if frame is None or frame.f_code.co_name != 'pack':
        return False
    return bool(frame.f_globals.get('__name__') == 'redis.connection')


class TimerDeathPenalty(BaseDeathPenalty):
    """By a timer thread, which works in any thread; strikes only when the block next runs Python code."""

    def __init__(
        self, timeout: float | None, exception: type[BaseException] = JobTimeoutException, **kwargs: Any
    ) -> None:
        super().__init__(timeout, exception, **kwargs)
        self._target_thread_id = threading.get_ident()
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._finished = False
        self._struck = False

    def setup_death_penalty(self) -> None:
        self._finished = self._struck = False
        self._timer = threading.Timer(self._timeout, self.handle_death_penalty)
        # A process that wants to exit must not wait for a deadline.
        self._timer.daemon = True
        self._timer.start()

    def handle_death_penalty(self) -> None:
        """Runs in the timer's thread."""
        with self._lock:
            if not self._finished:
                self._struck = True
                _raise_in_thread(self._target_thread_id, self._exception)

    def cancel_death_penalty(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._finished = True
        if self._struck:
            # Ordered, but perhaps not delivered yet: it must not hit whatever runs next.
            _raise_in_thread(self._target_thread_id, None)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        # CPython instantiates the class in the target thread without arguments, so the message is added here.
        if self._struck and exc is not None and exc_type is self._exception and not exc.args:
            exc.args = (self.message,)


def _raise_in_thread(thread_id: int, exception: type[BaseException] | None) -> None:
    """Have `exception` raised in a thread, if it still runs; None withdraws one that was not delivered yet."""
    # Imported late: producers import this module and never need ctypes.
    import ctypes

    target = ctypes.py_object() if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), target)


def get_default_death_penalty_class() -> type[BaseDeathPenalty]:
    """The signal where the platform has one, else the timer."""
    return UnixSignalDeathPenalty if hasattr(signal, 'SIGALRM') else TimerDeathPenalty
