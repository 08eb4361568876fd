"""How fast jobs begin, or end, so that more are claimed a little ahead. Computes only."""

import time
from collections.abc import Callable

#: Jobs are claimed ahead of free slots by what the measured turnover frees within this time (s).
AHEAD_SECONDS = 0.02


class Turnover:
    """How many jobs are counted per second, measured between claims."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._count = 0
        self._rate = 0.0
        self._paused_until = 0.0

    def ahead(self, count: int) -> int:
        """How many more there will be within `AHEAD_SECONDS`, given how many there have been."""
        present = self._clock()
        passed = present - self._at
        if passed >= 0.005:
            measured = (count - self._count) / passed
            self._rate += (measured - self._rate) * min(1.0, passed / 0.05)
            self._at, self._count = present, count
        return 0 if present < self._paused_until else int(self._rate * AHEAD_SECONDS)

    def pause(self) -> None:
        """The measure was too good: none for a second."""
        self._paused_until = self._clock() + 1.0
