"""How often, and how soon, a failed job runs again. A value object: who retries is the worker's business."""

from __future__ import annotations

from collections.abc import Iterable

from greenq.utils import parse_intervals


class Retry:
    """Run a failed job up to `max` more times, `interval` seconds after each failure.

    Several intervals are used in turn, and the last one for all attempts that remain. A job may also return a
    `Retry` to ask for another run. ValueError for a `max` below 1 or a negative interval.
    """

    def __init__(self, max: int, interval: int | Iterable[int] = 0, enqueue_at_front: bool = False) -> None:
        if max < 1:
            raise ValueError(f'max: please enter a value greater than 0, not {max!r}')
        self.max = max
        self.intervals = parse_intervals(interval, 'interval')
        self.enqueue_at_front = enqueue_at_front

    def __repr__(self) -> str:
        interval = self.intervals[0] if len(self.intervals) == 1 else self.intervals
        return (
            f'{type(self).__name__}(max={self.max}, interval={interval!r}, enqueue_at_front={self.enqueue_at_front!r})'
        )

    @classmethod
    def get_interval(cls, count: int, intervals: int | list[int] | None) -> int:
        """Seconds to wait after `count` earlier retries; 0 when no interval was set."""
        if isinstance(intervals, int):
            return intervals
        if not intervals:
            return 0
        return intervals[min(count, len(intervals) - 1)]
