"""A page of memory that a worker shares with its supervisor: signs of life that cost no system call.

The worker writes, the supervisor reads, also when the worker hangs in C code or is dead. All times are those of
`time.monotonic()`, which processes of one machine share. It knows neither Redis nor gevent.
"""

import contextlib
import math
import mmap
import os
import struct
import time

#: Names the descriptor of the page in the environment of a supervised worker.
VARIABLE = 'GREENQ_PULSE'

_SIZE = mmap.PAGESIZE
_LAST, _SOONEST, _JOBS, _STATE, _CURRENT = 0, 8, 16, 24, 32
_ID_BYTES = 64
_DOUBLE = struct.Struct('d')
_COUNT = struct.Struct('Q')

_WORKING, _LEAVING = 1, 2


def is_supervised() -> bool:
    """Whether this process is a worker's that a supervisor has started, and has not taken up its page yet."""
    return VARIABLE in os.environ


class Pulse:
    """One worker's signs of life; both ends use the same class. Without a descriptor the page is private."""

    def __init__(self, descriptor: int | None = None):
        #: Descriptor to hand to the worker; None if nobody else reads.
        self.descriptor = descriptor
        self._page = mmap.mmap(-1 if descriptor is None else descriptor, _SIZE)

    @classmethod
    def shared(cls) -> 'Pulse':
        """A fresh page that can be handed to another process."""
        if hasattr(os, 'memfd_create'):
            descriptor = os.memfd_create('greenq-pulse')
        else:
            # Not before it is needed, as it takes 0.7 MiB of a small supervisor.
            import tempfile

            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor)

    @classmethod
    def inherited(cls) -> 'Pulse | None':
        """The page that the supervisor of this process made, once; None if it has none."""
        number = os.environ.pop(VARIABLE, None)
        if number is None:
            return None
        try:
            pulse = cls(int(number))
        except (ValueError, OSError):
            return None
        os.close(int(number))
        pulse.descriptor = None
        return pulse

    def close(self) -> None:
        """Gives the page back."""
        self._page.close()
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = None

    # The worker's side

    def beat(self) -> None:
        """Its loop is alive now."""
        _DOUBLE.pack_into(self._page, _LAST, time.monotonic())
        if not self._page[_STATE]:
            self._page[_STATE] = _WORKING

    def leave(self) -> None:
        """It takes no more jobs: another worker may take its place while it lets the running ones finish."""
        self._page[_STATE] = _LEAVING

    @property
    def soonest(self) -> float:
        """The earliest deadline of all that runs; infinite if nothing that runs has one."""
        return _DOUBLE.unpack_from(self._page, _SOONEST)[0] or math.inf

    @soonest.setter
    def soonest(self, deadline: float) -> None:
        _DOUBLE.pack_into(self._page, _SOONEST, deadline)

    @property
    def jobs(self) -> int:
        """How many jobs it has in hand."""
        return _COUNT.unpack_from(self._page, _JOBS)[0]  # type: ignore[no-any-return]

    @jobs.setter
    def jobs(self, count: int) -> None:
        _COUNT.pack_into(self._page, _JOBS, count)

    @property
    def current(self) -> str:
        """The execution whose code is being run at this very moment; '' if it is nobody's."""
        return self._page[_CURRENT : _CURRENT + _ID_BYTES].rstrip(b'\0').decode(errors='replace')

    def run(self, execution: bytes) -> None:
        """Names the execution whose code runs from now on; `as_label` makes the argument."""
        self._page[_CURRENT : _CURRENT + _ID_BYTES] = execution

    # The supervisor's side

    @property
    def has_begun(self) -> bool:
        """Whether it ever gave a sign of life."""
        return self._page[_STATE] != 0

    @property
    def is_leaving(self) -> bool:
        """Whether it takes no more jobs."""
        return self._page[_STATE] == _LEAVING

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life; 0 before the first."""
        last = _DOUBLE.unpack_from(self._page, _LAST)[0]
        return time.monotonic() - last if last else 0.0


def as_label(execution_id: str) -> bytes:
    """An execution's id in the form that `Pulse.run` takes; nobody's is ''."""
    return execution_id.encode()[:_ID_BYTES].ljust(_ID_BYTES, b'\0')
