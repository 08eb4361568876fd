"""Handlers and colours for a worker's log on a terminal; silent where the application configures logging itself."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from greenq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT

_RESET = '\x1b[39;49;00m'
_DARK = ('black', 'darkred', 'darkgreen', 'brown', 'darkblue', 'purple', 'teal', 'lightgray')
_LIGHT = ('darkgray', 'red', 'green', 'yellow', 'blue', 'fuchsia', 'turquoise', 'white')
_CODES = {
    **{name: f'\x1b[{number}m' for number, name in enumerate(_DARK, 30)},
    **{name: f'\x1b[{number};01m' for number, name in enumerate(_LIGHT, 30)},
}
_CODES['darkyellow'] = _CODES['brown']


def _wants_colour(stream: Any) -> bool:
    isatty = getattr(stream, 'isatty', None)
    return bool(isatty and isatty()) and not os.environ.get('NO_COLOR')


def make_colorizer(color: str) -> Callable[[object], str]:
    """A function that puts text into `color`, as long as standard output is a terminal."""
    code = _CODES[color]

    def colorize(text: object) -> str:
        return f'{code}{text}{_RESET}' if _wants_colour(sys.stdout) else str(text)

    return colorize


green = make_colorizer('darkgreen')
yellow = make_colorizer('darkyellow')
blue = make_colorizer('darkblue')
red = make_colorizer('darkred')


class ColorizingStreamHandler(logging.StreamHandler[Any]):
    """Shows warnings in yellow and errors in red when its stream is a terminal.

    `exclude` is accepted for RQ's sake and kept, but decides nothing, as in RQ.
    """

    levels = {
        logging.WARNING: _CODES['darkyellow'],
        logging.ERROR: _CODES['darkred'],
        logging.CRITICAL: _CODES['darkred'],
    }

    #: What takes formatted lines instead of the stream.
    sink: Callable[[str], None] | None = None

    def __init__(self, exclude: Any = None, *args: Any, **kwargs: Any) -> None:
        self.exclude = exclude
        super().__init__(*args, **kwargs)

    @property
    def is_tty(self) -> bool:
        return _wants_colour(self.stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record, or hands it to whoever does."""
        if self.sink is None:
            super().emit(record)
            return
        try:
            self.sink(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        code = self.levels.get(record.levelno)
        if code is None or not self.is_tty:
            return text
        # Only the first line: a traceback below it stays readable.
        headline, newline, rest = text.partition('\n')
        return f'{code}{headline}{_RESET}{newline}{rest}'


class _NeverWaiting:
    """Writes lines to a descriptor as long as somebody takes them; the first one that gets through after some were lost
    says how many."""

    #: What can be written to a pipe at once if anything can (POSIX: at least 512).
    _PIECE = select.PIPE_BUF

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lost_count = 0

    def write(self, text: str) -> None:
        if self._lost_count:
            text = f'{self._lost_count} log lines were dropped, because nobody took them\n{text}'
        data = text.encode('utf-8', 'backslashreplace')
        for start in range(0, len(data), self._PIECE):
            if not select.select([], [self._descriptor], [], 0)[1]:
                self._lost_count += 1
                return
            os.write(self._descriptor, data[start : start + self._PIECE])
        self._lost_count = 0


def setup_loghandlers(
    level: int | str | None = None,
    date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
    log_format: str = DEFAULT_LOGGING_FORMAT,
    name: str = 'greenq.worker',
    *,
    may_wait: bool = True,
) -> None:
    """Send a logger's errors to stderr and the rest to stdout, unless it or an ancestor has a handler; set its level.

    The worker's logger hands on to RQ's `rq.worker`, because that is what applications' logging settings speak of.
    With `may_wait=False` lines that nobody takes, as in a full pipe, are dropped.
    """
    logger = logging.getLogger(name)
    if not logger.hasHandlers():
        formatter = logging.Formatter(log_format, date_format)
        logger.addHandler(_handler(sys.stdout, formatter, lambda record: record.levelno < logging.ERROR, may_wait))
        logger.addHandler(_handler(sys.stderr, formatter, lambda record: record.levelno >= logging.ERROR, may_wait))
        # A handler that the application adds to an ancestor later on would print every line again.
        logger.propagate = False
    if level is not None:
        logger.setLevel(level.upper() if isinstance(level, str) else level)


def _handler(
    stream: Any, formatter: logging.Formatter, accepts: Callable[[logging.LogRecord], bool], may_wait: bool
) -> logging.Handler:
    handler = ColorizingStreamHandler(stream=stream)
    if not may_wait:
        # A stream without a descriptor is a buffer of somebody's.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            handler.sink = _NeverWaiting(stream.fileno()).write
    handler.setFormatter(formatter)
    handler.addFilter(accepts)
    return handler
