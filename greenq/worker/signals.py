"""Turns a signal into a request: sets a flag and wakes whoever waits in `select`; it does nothing else, since a
handler runs between any two instructions."""

import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

#: What ends the process that runs a job.
SHUTDOWN_SIGNAL = signal.SIGKILL
#: Ctrl+C at a supervisor reaches the worker twice, from the terminal and from its parent; the copy is no second wish.
SAME_REQUEST_SECONDS = 1.0


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; `SIG_UNKNOWN` for a number that is none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return 'SIG_UNKNOWN'


class WakePipe:
    """A pipe that makes `select` return; `wake()` may be called from signal handlers, threads and greenlets."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """The end to wait on."""
        return self._reader

    def wake(self) -> None:
        """Makes a present or coming wait return."""
        try:
            os.write(self._writer, b'.')
        except OSError:  # full: the reader will wake anyway; closed: nobody waits
            pass

    def wait(self, seconds: float) -> None:
        """Waits for a wake-up, at most so long, and forgets it."""
        select.select([self], [], [], seconds)
        self.drain()

    def drain(self) -> None:
        """Forgets all wake-ups so far."""
        try:
            while os.read(self._reader, 4096):
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Closes both ends."""
        for end in (self._reader, self._writer):
            try:
                os.close(end)
            except OSError:
                pass


class SignalHandlers:
    """Installs handlers and puts the earlier ones back. Outside the main thread it does nothing."""

    def __init__(self) -> None:
        self._earlier: dict[int, Handler] = {}

    def install(self, handlers: dict[int, Callable[[int, FrameType | None], Any]]) -> None:
        """Sets a handler for each signal number; what a parent has held back until there is one comes through now."""
        for number, handler in handlers.items():
            try:
                earlier = signal.signal(number, handler)
            except ValueError:
                return
            self._earlier.setdefault(number, earlier)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)

    def restore(self) -> None:
        """Puts back what was there before the first `install`."""
        for number, handler in self._earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._earlier.clear()
