"""One line about how far a long run is: on a terminal over and over in place, elsewhere a line now and then."""

from __future__ import annotations

import shutil
import sys
import time

#: How often (s) a line is written where lines cannot be overwritten.
LINE_SECONDS = 30


class Progress:
    """Goes to standard error."""

    def __init__(self, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._in_place = sys.stderr.isatty()
        self._began = self._written_at = time.monotonic()
        self._total = self._done = 0

    def begin(self, total: int) -> None:
        """So many steps are to come."""
        self._total = total
        self._began = time.monotonic()
        self._written_at = self._began - LINE_SECONDS

    def advance(self, step: str) -> None:
        """This step begins now."""
        present = time.monotonic()
        passed = present - self._began
        left = f', about {_minutes(passed / self._done * (self._total - self._done))} left' if self._done > 2 else ''
        text = f'[{self._done + 1}/{self._total}] {_minutes(passed)}{left}  {step}'
        self._done += 1
        if not self._is_shown:
            return
        if self._in_place:
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f'\r\033[K{text[: columns - 1]}')
        elif present - self._written_at >= LINE_SECONDS:
            self._written_at = present
            sys.stderr.write(f'{text}\n')
        sys.stderr.flush()

    def end(self) -> None:
        """All steps are done."""
        if self._is_shown and self._in_place:
            sys.stderr.write('\r\033[K')
            sys.stderr.flush()


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02}'
