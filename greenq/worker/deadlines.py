"""Deadlines of greenlets, and the only blocks in which a greenlet may be interrupted.

Whatever a worker runs for a user (a job's function, its callbacks) runs inside a `GeventDeathPenalty`; the worker's
own bookkeeping runs outside, so an exception thrown at a greenlet can never hit it.
"""

from types import TracebackType
from typing import Any, ClassVar

from gevent import get_hub
from greenlet import getcurrent, greenlet

from greenq.timeouts import BaseDeathPenalty, JobTimeoutException

#: A block that swallows its deadline is reminded of it this often (s).
REMIND_SECONDS = 1.0


class Overdue(BaseException):
    """Thrown into a block that is past its deadline; leaves the block as the exception that the caller asked for.

    No `Exception`, so that a job's own `except Exception` does not swallow it.
    """


class GeventDeathPenalty(BaseDeathPenalty):
    """By a timer of the hub: strikes when the greenlet waits."""

    #: greenlet -> its innermost block
    _blocks: ClassVar[dict[greenlet, 'GeventDeathPenalty']] = {}
    #: greenlet -> what is to be raised when it enters its next block
    _announced: ClassVar[dict[greenlet, BaseException]] = {}

    def __init__(
        self, timeout: float | None, exception: type[BaseException] = JobTimeoutException, **kwargs: Any
    ) -> None:
        super().__init__(timeout, exception, **kwargs)
        self._greenlet = getcurrent()
        self._timer: Any = None
        self._outer: GeventDeathPenalty | None = None

    def __enter__(self) -> None:
        announced = self._announced.pop(self._greenlet, None)
        if announced is not None:
            raise announced
        self._outer = self._blocks.get(self._greenlet)
        self._blocks[self._greenlet] = self
        if self._timeout:
            self.setup_death_penalty()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel_death_penalty()
        if self._outer is None:
            self._blocks.pop(self._greenlet, None)
        else:
            self._blocks[self._greenlet] = self._outer
        if isinstance(exc, Overdue) and exc.args == (id(self),):
            raise self._exception(self.message) from None

    def setup_death_penalty(self) -> None:
        """Starts the timer."""
        self._timer = get_hub().loop.timer(self._timeout, REMIND_SECONDS)
        self._timer.start(self._strike, update=True)

    def _strike(self) -> None:
        self._greenlet.throw(Overdue(id(self)))

    def cancel_death_penalty(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    @classmethod
    def interrupt(cls, target: greenlet, exception: BaseException) -> None:
        """Throws at a greenlet: at once if it is in a block, else when it enters its next one. Call it in the hub."""
        if target in cls._blocks:
            target.throw(exception)
        else:
            cls._announced[target] = exception

    @classmethod
    def forget(cls, target: greenlet) -> None:
        """Takes back what was announced to a greenlet."""
        cls._announced.pop(target, None)
