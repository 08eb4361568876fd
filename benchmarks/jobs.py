"""What the measured workers run. Importing this must cost nothing.

Each job is numbered and leaves a record of when it began and ended, so that the driver learns what ran without asking
Redis: one small write to a file, which costs about 2 us. The names are those that `benchmarks.async_jobs` uses.
"""

from __future__ import annotations

import os
import struct
import time

from benchmarks import setting

#: The job's number, when it began and when it ended, by the clock that all processes of a machine share.
RECORD = struct.Struct('<qdd')

#: The jobs.
NAMES = ('noop', 'nap', 'hold', 'fetch')

#: What a call of `fetch` may take (s) before it counts as failed.
FETCH_SECONDS = 30

_file: int | None = None


def record(number: int, began: float) -> None:
    """Tell the driver that a job has ended now. Appends of this size do not mix."""
    global _file
    if _file is None:
        _file = os.open(setting.RECORDS, os.O_WRONLY | os.O_APPEND)
    os.write(_file, RECORD.pack(number, began, time.monotonic()))


def noop(number: int) -> int:
    """Nothing, with a result that is kept."""
    record(number, time.monotonic())
    return number


def nap(number: int, seconds: float) -> int:
    """Waits, as for a network."""
    began = time.monotonic()
    time.sleep(seconds)
    record(number, began)
    return number


def hold(number: int, seconds: float) -> int:
    """Tells that it has begun, then waits."""
    record(number, time.monotonic())
    time.sleep(seconds)
    return number


def fetch(number: int, url: str) -> int:
    """Calls an HTTP server as most code does: a connection for each call."""
    import requests

    began = time.monotonic()
    requests.get(url, timeout=FETCH_SECONDS).raise_for_status()
    record(number, began)
    return number
