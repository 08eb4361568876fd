"""What jobs have written about themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.jobs import RECORD


class Record(NamedTuple):
    """A job that ran: its number, when it began and ended."""

    number: int
    began: float
    ended: float


class Records:
    """A file that jobs append their records to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def reset(self) -> None:
        """Forgets all."""
        os.truncate(self.path, 0)

    def count(self) -> int:
        """How many there are."""
        return self.path.stat().st_size // RECORD.size

    def read(self) -> list[Record]:
        """All of them, in the order of writing."""
        data = self.path.read_bytes()
        return [Record(*fields) for fields in RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])]


def missing_and_doubled(records: Sequence[Record], count: int) -> tuple[int, int]:
    """How many of the jobs 0 to `count` left no record, and how many records are too many."""
    distinct = len({record.number for record in records if 0 <= record.number < count})
    return count - distinct, len(records) - distinct
