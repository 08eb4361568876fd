"""Deadlines of greenlets, and the only blocks in which a greenlet may be interrupted.

Whatever a worker runs for a user (a job's function, its callbacks) runs inside a `GeventDeathPenalty`; the worker's
own bookkeeping runs outside, so an exception thrown at a greenlet can never hit it.
"""

import time
from types import TracebackType
from typing import Any, ClassVar

from gevent import get_hub
from greenlet import getcurrent, greenlet

from greenq.timeouts import BaseDeathPenalty, JobTimeoutException

#: A block that swallows its deadline is reminded of it this often (s).
REMIND_SECONDS = 1.0
#: How late (s) a deadline may be noticed.
TICK_SECONDS = 0.1


class Overdue(BaseException):
    """Thrown into a block that is past its deadline; leaves the block as the exception that the caller asked for.

    No `Exception`, so that a job's own `except Exception` does not swallow it.
    """


class _Watch:
    """Strikes the blocks of one hub that are past their deadline. One timer looks at all of them: a timer for each
    would cost a job more than all else about its deadline."""

    def __init__(self) -> None:
        self._deadlines: dict[GeventDeathPenalty, float] = {}
        self._timer: Any = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)
        self._is_ticking = False

    def add(self, block: 'GeventDeathPenalty', seconds: float) -> None:
        self._deadlines[block] = time.monotonic() + seconds
        if not self._is_ticking:
            self._is_ticking = True
            self._timer.start(self._tick, update=True)

    def remove(self, block: 'GeventDeathPenalty') -> None:
        self._deadlines.pop(block, None)

    def _tick(self) -> None:
        if not self._deadlines:
            self._is_ticking = False
            self._timer.stop()
            return
        present = time.monotonic()
        for block in [block for block, deadline in self._deadlines.items() if deadline <= present]:
            self._deadlines[block] = present + REMIND_SECONDS
            block.strike()


class GeventDeathPenalty(BaseDeathPenalty):
    """By a timer of the hub: strikes when the greenlet waits, at most `TICK_SECONDS` late."""

    #: greenlet -> its innermost block
    _blocks: ClassVar[dict[greenlet, 'GeventDeathPenalty']] = {}
    #: greenlet -> what is to be raised when it enters its next block
    _announced: ClassVar[dict[greenlet, BaseException]] = {}
    #: hub -> its watch
    _watches: ClassVar[dict[Any, _Watch]] = {}

    def __init__(
        self, timeout: float | None, exception: type[BaseException] = JobTimeoutException, **kwargs: Any
    ) -> None:
        super().__init__(timeout, exception, **kwargs)
        self._greenlet = getcurrent()
        self._watch: _Watch | None = None
        self._outer: GeventDeathPenalty | None = None

    def __enter__(self) -> None:
        if self._announced:
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
        if exc is not None and isinstance(exc, Overdue) and exc.args == (id(self),):
            raise self._exception(self.message) from None

    def setup_death_penalty(self) -> None:
        """Has the deadline watched."""
        hub = get_hub()
        watch = self._watches.get(hub)
        if watch is None:
            watch = self._watches[hub] = _Watch()
        watch.add(self, self._timeout)
        self._watch = watch

    def strike(self) -> None:
        """Throws at the greenlet; called in the hub."""
        self._greenlet.throw(Overdue(id(self)))

    def cancel_death_penalty(self) -> None:
        """Has the deadline watched no more."""
        if self._watch is not None:
            self._watch.remove(self)
            self._watch = None

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
