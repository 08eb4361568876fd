"""How fast slots become free, so that jobs are claimed a little ahead. Computes only."""

import time

#: Jobs are claimed ahead of free slots by what the measured turnover frees within this time (s).
AHEAD_SECONDS = 0.02


class Turnover:
    """How many slots become free per second, measured between claims."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._count = 0
        self._rate = 0.0
        self._paused_until = 0.0

    def ahead(self, ended_count: int) -> int:
        """Slots that will be free within `AHEAD_SECONDS`, given how many jobs have ended so far."""
        present = time.monotonic()
        passed = present - self._at
        if passed >= 0.005:
            measured = (ended_count - self._count) / passed
            self._rate += (measured - self._rate) * min(1.0, passed / 0.05)
            self._at, self._count = present, ended_count
        return 0 if present < self._paused_until else int(self._rate * AHEAD_SECONDS)

    def pause(self) -> None:
        """The measure was too good: claims nothing ahead for a second."""
        self._paused_until = time.monotonic() + 1.0
