"""What the measured workers run. Importing this must cost nothing."""

from __future__ import annotations

import time


def noop() -> int:
    """Nothing, with a result that is kept."""
    return 1


def nap(seconds: float) -> float:
    """Waits, as for a network."""
    time.sleep(seconds)
    return seconds


def clock() -> float:
    """When it started, by a clock that all processes of this machine share."""
    return time.monotonic()
