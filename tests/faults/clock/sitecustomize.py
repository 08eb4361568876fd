"""Shifts the clock of a process's Python code: `time.time`, `time.time_ns` and `datetime.now`.

Code in C that reads the clock by itself, and the times of files, keep the true time.
"""

import datetime
import os
import time

_SHIFT = float(os.environ.get('GREENQ_FAULTS_CLOCK_SHIFT', '0'))

if _SHIFT:
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _SHIFT
    time.time_ns = lambda: _time_ns() + int(_SHIFT * 1e9)

    class _Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> '_Datetime':
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> '_Datetime':
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    _Datetime.__name__ = _Datetime.__qualname__ = 'datetime'
    _Datetime.__module__ = 'datetime'
    datetime.datetime = _Datetime  # type: ignore[misc]
