"""A child process with the face of `multiprocessing.Process`, whatever its command is. It forks nothing.

By POSIX itself: `subprocess` would be half a megabyte more in a supervisor, which lives as long as its workers.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from greenq.pulse import VARIABLE, Pulse

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
#: Python ignores these, as few other programs expect.
_IGNORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
#: The longest pause (s) between two looks of `join`.
_LONGEST_PAUSE = 0.05


class ChildProcess:
    """Subclasses say in `start` what command it is. `pulse`: the page on which it gives signs of life."""

    def __init__(self, pulse: Pulse | None = None):
        self.pulse = pulse
        self._pid: int | None = None
        self._exitcode: int | None = None

    def start(self) -> None:
        """Starts it, by `_spawn`."""
        raise NotImplementedError(f'{type(self).__name__} must define start()')

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str] | None = None, stdin: Any = None) -> None:
        """Starts a command; `environment` are variables besides this process's, `stdin` is a file."""
        descriptor = self.pulse.descriptor if self.pulse is not None else None
        handed = {} if descriptor is None else {VARIABLE: str(descriptor)}
        actions = [] if stdin is None else [(os.POSIX_SPAWN_DUP2, stdin.fileno(), 0)]
        with _inherited(descriptor):
            self._pid = os.posix_spawn(
                command[0],
                list(command),
                {**os.environ, **(environment or {}), **handed},
                file_actions=actions,
                setsigdef=_IGNORED_SIGNALS,
            )

    @property
    def pid(self) -> int | None:
        """Process id; None before the start."""
        return self._pid

    @property
    def exitcode(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        if self._pid is not None and self._exitcode is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                # Somebody else has taken its status: another thread, or one who will not tell.
                if self._exitcode is None:
                    self._exitcode = 0
            else:
                if pid:
                    self._exitcode = os.waitstatus_to_exitcode(status)
        return self._exitcode

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._pid is not None and self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, at most `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while self.is_alive() and (until is None or time.monotonic() < until):
            time.sleep(pause if until is None else max(min(pause, until - time.monotonic()), 0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def terminate(self) -> None:
        """Sends SIGTERM; one that has ended is fine."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL; one that has ended is fine."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # One whose status was not taken keeps its pid, so that nobody else is hit.
        if self._pid is not None and self.is_alive():
            os.kill(self._pid, number)


@contextmanager
def _inherited(descriptor: int | None) -> Iterator[None]:
    """Lets children that are started meanwhile have a descriptor."""
    if descriptor is not None:
        os.set_inheritable(descriptor, True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.set_inheritable(descriptor, False)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Holds back the signals that ask for a stop. Children started meanwhile hold them back, too."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
