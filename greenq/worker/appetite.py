"""How many jobs a worker with slots takes next: as many as it can begin soon, no more. Computes only."""

import time
from collections.abc import Callable
from typing import Protocol

from greenq.defaults import CLAIM_MAX_BATCH
from greenq.worker.turnover import AHEAD_SECONDS, Turnover

#: After a job has waited longer than those claimed ahead should, no more are claimed for so long (s) than soon begin.
STRAINED_SECONDS = 1.0


class Line(Protocol):
    """What is asked about the slots and the jobs that wait for one."""

    @property
    def running_count(self) -> int: ...
    @property
    def ready_count(self) -> int: ...

    started_count: int
    ended_count: int


class Appetite:
    """Responsible for the number of a claim. `clock` is one that never goes back (s)."""

    def __init__(self, slots: Line, concurrency: int, clock: Callable[[], float] = time.monotonic):
        self._slots = slots
        self._concurrency = concurrency
        self._clock = clock
        self._ends = Turnover(clock)
        self._beginnings = Turnover(clock)
        self._strained_until = 0.0

    def room(self) -> int:
        """Slots to claim for: the free ones, and those that will be by the time the jobs are here."""
        slots = self._slots
        room = self._concurrency + self._ahead() - slots.running_count - slots.ready_count
        begin_soon = self._beginnings.ahead(slots.started_count)
        if not self._all_run() and (slots.ready_count or self._clock() < self._strained_until):
            # There are free slots, but the process has its hands full.
            room = min(room, max(begin_soon, 1) - slots.ready_count)
        return room

    def few(self) -> int:
        """Fewer are no batch."""
        return max(min(CLAIM_MAX_BATCH, self._concurrency // 8), 1)

    def can_wait(self, room: int) -> bool:
        """Whether a claim for so many is better made when there is room for half of what is claimed ahead: enough are
        ready to begin meanwhile."""
        if not self._slots.ready_count or (room <= 0 and self._all_run()):
            return False
        return room < max(min(self.few(), self._ahead() // 2), 1)

    def note_wait(self, waited: float) -> None:
        """How long (s) the first of the ready jobs has waited by now."""
        if waited > AHEAD_SECONDS:
            self._strained_until = self._clock() + STRAINED_SECONDS

    def was_too_great(self) -> None:
        """Jobs could not begin in time: for a second none is claimed ahead."""
        self._ends.pause()

    def _ahead(self) -> int:
        return min(self._ends.ahead(self._slots.ended_count), max(CLAIM_MAX_BATCH, self._concurrency))

    def _all_run(self) -> bool:
        return self._slots.running_count >= self._concurrency
