"""How often, and how soon, a finished job runs again. A value object: who repeats is the worker's business."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from greenq.utils import parse_intervals


@dataclass(init=False)
class Repeat:
    """Run a finished job `times` more times, `interval` seconds after each run.

    Several intervals are used in turn, and the last one for all runs that remain. ValueError for `times` below 1
    or a negative interval, TypeError for an interval that is no number.
    """

    times: int
    intervals: list[int]

    def __init__(self, times: int, interval: int | Iterable[int] = 0) -> None:
        if times < 1:
            raise ValueError(f'times: please enter a value greater than 0, not {times!r}')
        self.times = times
        self.intervals = parse_intervals(interval, 'intervals')

    @classmethod
    def get_interval(cls, count: int, intervals: list[int]) -> int:
        """Seconds to wait after `count` earlier repetitions; IndexError when there are no intervals."""
        return intervals[-1] if count >= len(intervals) else intervals[count]
