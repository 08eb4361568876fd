"""How often, and how soon, a finished job runs again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from greenq.utils import now, parse_intervals

if TYPE_CHECKING:
    from redis.client import Pipeline

    from greenq.job import Job
    from greenq.queue import Queue


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

    @classmethod
    def schedule(cls, job: Job, queue: Queue, pipeline: Pipeline | None = None) -> datetime | None:
        """Send a job round once more, now or after its next interval; returns when, None for now.

        Workers do this in the transition that ends the job. ValueError if it has no repeats left.
        """
        if not job.repeats_left:
            raise ValueError(f'Cannot schedule job {job.id}: no repeats left')
        interval = take_repeat(job)
        if not interval:
            queue.enqueue_job(job, pipeline=pipeline)
            return None
        due = now() + timedelta(seconds=interval)
        queue.schedule_job(job, due, pipeline=pipeline)
        return due


def take_repeat(job: Job) -> int:
    """Take one repeat from a job; returns the interval (s) to it. The last interval stays for all that follow."""
    intervals = list(job.repeat_intervals or [])
    job.repeats_left = (job.repeats_left or 1) - 1
    interval = intervals[0] if intervals else 0
    job.repeat_intervals = intervals[1:] if len(intervals) > 1 else intervals
    return interval
