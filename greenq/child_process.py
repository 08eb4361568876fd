"""A child process with the face of `multiprocessing.Process`, whatever its command is. It forks nothing."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from greenq.pulse import VARIABLE, Pulse

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


class ChildProcess:
    """Subclasses say in `start` what command it is. `pulse`: the page on which it gives signs of life."""

    def __init__(self, pulse: Pulse | None = None):
        self.pulse = pulse
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, by `_spawn`."""
        raise NotImplementedError(f'{type(self).__name__} must define start()')

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str] | None = None, stdin: Any = None) -> None:
        """Starts a command; `environment` are variables besides this process's."""
        descriptor = self.pulse.descriptor if self.pulse is not None else None
        handed = {} if descriptor is None else {VARIABLE: str(descriptor)}
        self._popen = subprocess.Popen(
            command,
            stdin=stdin,
            env={**os.environ, **(environment or {}), **handed},
            pass_fds=[] if descriptor is None else [descriptor],
        )

    @property
    def pid(self) -> int | None:
        """Process id; None before the start."""
        return self._popen.pid if self._popen else None

    @property
    def exitcode(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        return self._popen.poll() if self._popen is not None else None

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, at most `timeout` seconds."""
        if self._popen is not None:
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                pass

    def terminate(self) -> None:
        """Sends SIGTERM; one that has ended is fine."""
        if self._popen is not None:
            self._popen.terminate()

    def kill(self) -> None:
        """Sends SIGKILL; one that has ended is fine."""
        if self._popen is not None:
            self._popen.kill()


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Holds back the signals that ask for a stop. Children started meanwhile hold them back, too."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
