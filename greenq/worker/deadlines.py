"""Deadlines of greenlets, and the only blocks in which a greenlet may be interrupted.

Whatever a worker runs for a user (a job's function, its callbacks) runs inside a `GeventDeathPenalty`; the worker's
own bookkeeping runs outside, so an exception thrown at a greenlet can never hit it. A block that waits is struck by
the hub; for one that keeps the hub from running, `hub_watch` has the code that runs struck from within.
"""

import math
import time
from heapq import heapify, heappop, heappush
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, Protocol

from gevent import get_hub
from greenlet import getcurrent, greenlet

from greenq.timeouts import BaseDeathPenalty, JobTimeoutException

#: A block that swallows its deadline is reminded of it this often (s).
REMIND_SECONDS = 1.0
#: How late (s) a deadline may be noticed.
TICK_SECONDS = 0.1
#: Entries of blocks that have ended are kept until there are so many, and as many as of others.
KEEP_ENDED = 100


class Overdue(BaseException):
    """Raised in a block that is past its deadline; leaves the block as the exception that the caller asked for.

    No `Exception`, so that a job's own `except Exception` does not swallow it.
    """

    def __init__(self, block: 'GeventDeathPenalty'):
        super().__init__(block.message)
        self.block = block


class Board(Protocol):
    """Where the earliest deadline is published: for others a `Pulse`."""

    soonest: float


class _Nobody:
    """A board that nobody reads."""

    soonest = math.inf


_Entry = tuple[float, int, 'GeventDeathPenalty']


class _Watch:
    """Strikes the blocks of one hub that are past their deadline. One timer looks at all of them: a timer for each
    would cost a job more than all else about its deadline."""

    def __init__(self) -> None:
        self.board: Board = _Nobody()
        #: By deadline. A block that ends leaves its entry there, unless that is the first; the first is never such.
        self._entries: list[_Entry] = []
        self._ended_count = 0
        self._numbers = count()
        #: Those past their deadline, in its order, and when each is to be struck next.
        self._late: dict[GeventDeathPenalty, float] = {}
        self._timer: Any = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)
        self._is_ticking = False

    def __len__(self) -> int:
        """Entries that it keeps, those of blocks that have ended included."""
        return len(self._entries) + len(self._late)

    def add(self, block: 'GeventDeathPenalty', seconds: float) -> None:
        deadline = time.monotonic() + seconds
        block._entry = entry = (deadline, next(self._numbers), block)
        entries = self._entries
        heappush(entries, entry)
        if entries[0] is entry and not self._late:
            self.board.soonest = deadline
        if not self._is_ticking:
            self._is_ticking = True
            self._timer.start(self._tick, update=True)

    def remove(self, block: 'GeventDeathPenalty') -> None:
        entry, block._entry = block._entry, None
        entries = self._entries
        if entries and entries[0] is entry:
            heappop(entries)
            if self._ended_count:
                self._drop_ended_first()
            self._publish()
        elif entry is not None:
            self._ended_count += 1
            if self._ended_count > KEEP_ENDED and self._ended_count * 2 > len(entries):
                self._compact()
        else:
            self._late.pop(block, None)
            self._publish()

    def take_due(self, block: 'GeventDeathPenalty') -> bool:
        """Whether a block is to be struck now; if so it is not for a while."""
        present = time.monotonic()
        if block._entry is not None and block._entry[0] <= present:
            self._set_late(block)
        if self._late.get(block, math.inf) > present:
            return False
        self._late[block] = present + REMIND_SECONDS
        return True

    def stuck(self, seconds: float) -> list['GeventDeathPenalty']:
        """Blocks that swallow what they are told, so long past their deadline."""
        limit = time.monotonic() - seconds
        return [block for block in self._late if block.deadline <= limit]

    def _tick(self) -> None:
        present = time.monotonic()
        while self._entries and self._entries[0][0] <= present:
            self._set_late(self._entries[0][2])
        if self._late:
            for block in list(self._late):
                if block in self._late and self.take_due(block):
                    block.strike()
        elif not self._entries:
            self._is_ticking = False
            self._timer.stop()

    def _set_late(self, block: 'GeventDeathPenalty') -> None:
        entry = block._entry
        assert entry is not None
        self.remove(block)
        block.deadline = entry[0]
        self._late[block] = 0.0
        self._publish()

    def _drop_ended_first(self) -> None:
        entries = self._entries
        while entries and entries[0][2]._entry is not entries[0]:
            heappop(entries)
            self._ended_count -= 1

    def _compact(self) -> None:
        self._entries = [entry for entry in self._entries if entry[2]._entry is entry]
        self._ended_count = 0
        heapify(self._entries)

    def _publish(self) -> None:
        if self._late:
            self.board.soonest = next(iter(self._late)).deadline
        else:
            self.board.soonest = self._entries[0][0] if self._entries else math.inf


class GeventDeathPenalty(BaseDeathPenalty):
    """By a timer of the hub: strikes when the greenlet waits, at most `TICK_SECONDS` late."""

    #: When it was or is to be struck for the first time (monotonic), once it is past that.
    deadline = math.inf

    _watch: _Watch | None = None
    _outer: 'GeventDeathPenalty | None' = None
    #: What its watch knows it by, until it is past its deadline.
    _entry: _Entry | None = None
    _leaves_as: BaseException | None = None

    #: greenlet -> its innermost block
    _blocks: ClassVar[dict[greenlet, 'GeventDeathPenalty']] = {}
    #: greenlet -> what is to be raised when it enters its next block
    _announced: ClassVar[dict[greenlet, BaseException]] = {}
    #: hub -> its watch
    _watches: ClassVar[dict[Any, _Watch]] = {}

    def __init__(
        self, timeout: float | None, exception: type[BaseException] = JobTimeoutException, **kwargs: Any
    ) -> None:
        # As the base class does; not by it, since every job makes one.
        self._timeout = timeout if timeout is not None and timeout > 0 else 0
        self._exception = exception
        self.greenlet: greenlet = getcurrent()

    def __enter__(self) -> None:
        target, blocks = self.greenlet, self._blocks
        if self._announced:
            announced = self._announced.pop(target, None)
            if announced is not None:
                raise announced
        if target in blocks:
            self._outer = blocks[target]
        blocks[target] = self
        if self._timeout:
            self.setup_death_penalty()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel_death_penalty()
        if self._outer is None:
            self._blocks.pop(self.greenlet, None)
        else:
            self._blocks[self.greenlet] = self._outer
        if self._leaves_as is not None:
            raise self._leaves_as from None
        if exc is not None and isinstance(exc, Overdue) and not self._is_inside(exc.block):
            # Where the block was when it was struck, is where it hung.
            raise self._exception(self.message).with_traceback(exc.__traceback__) from None

    def _is_inside(self, block: 'GeventDeathPenalty') -> bool:
        outer: GeventDeathPenalty | None = self._outer
        while outer is not None and outer is not block:
            outer = outer._outer
        return outer is block

    def setup_death_penalty(self) -> None:
        """Has the deadline watched."""
        hub = get_hub()
        watch = self._watches.get(hub)
        if watch is None:
            watch = self._watches[hub] = _Watch()
        self._watch = watch
        watch.add(self, self._timeout)

    def error(self, remark: str = '') -> BaseException:
        """What the block is to fail by."""
        return self._exception(self.message + remark)

    def strike(self) -> None:
        """Throws at the greenlet; called in the hub."""
        self.greenlet.throw(Overdue(self))

    def cancel_death_penalty(self) -> None:
        """Has the deadline watched no more."""
        watch = self._watch
        if watch is not None:
            self._watch = None
            watch.remove(self)

    def give_up(self, exception: BaseException) -> None:
        """Stops reminding it; should it ever end, it ends by this exception whatever its outcome."""
        self._leaves_as = exception
        self.cancel_death_penalty()

    @classmethod
    def publish_soonest(cls, board: Board | None) -> None:
        """Has the earliest deadline in this hub kept up to date on the board, and no more on the one before."""
        watch = cls._watches.get(get_hub())
        if watch is None:
            watch = cls._watches[get_hub()] = _Watch()
        watch.board = board if board is not None else _Nobody()
        watch._publish()

    @classmethod
    def stuck(cls, seconds: float) -> list['GeventDeathPenalty']:
        """Blocks in this hub that are past their deadline by so much."""
        watch = cls._watches.get(get_hub())
        return watch.stuck(seconds) if watch is not None else []

    @classmethod
    def overdue_block(cls, target: greenlet) -> 'GeventDeathPenalty | None':
        """The innermost block of a greenlet that is to be struck now; it then is not for a while."""
        block: GeventDeathPenalty | None = cls._blocks.get(target)
        while block is not None:
            if block._watch is not None and block._watch.take_due(block):
                return block
            block = block._outer
        return None

    @classmethod
    def is_in_block(cls, target: greenlet) -> bool:
        """Whether a greenlet may be interrupted now."""
        return target in cls._blocks

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
        if cls._announced:
            cls._announced.pop(target, None)
