"""Gets a worker's log lines out without holding up its jobs: they gather, and a native thread writes what has gathered.

A terminal or a pipe that nobody reads would otherwise stop a thousand jobs at once.
"""

import logging
import os
from collections import deque
from collections.abc import Iterable
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.monkey import get_original

from greenq.logutils import ColorizingStreamHandler

#: Lines that are kept for a reader that is too slow.
MOST_LINES = 50_000
#: What was logged last has this long (s) to get out when the worker ends.
CLOSE_SECONDS = 2.0
#: How long (s) to wait when a descriptor that does not block takes no more.
RETRY_SECONDS = 0.01

_sleep = get_original('time', 'sleep')
_get_ident = get_original('_thread', 'get_ident')


class LogWriter:
    """Responsible for one stream; `write` takes lines from any thread, `close` waits until they are out."""

    def __init__(self, stream: Any):
        stream.flush()
        self._descriptor: int = stream.fileno()
        self._lines: deque[str] = deque()
        self._dropped_count = 0
        self._waits = Event()
        self._is_closing = False
        self._hub = get_hub()
        self._thread = _get_ident()
        self._greenlet = gevent.spawn(self._write_forever)

    def write(self, text: str) -> None:
        """Takes charge of some text; drops it if far too much waits already."""
        if len(self._lines) >= MOST_LINES:
            self._dropped_count += 1
            return
        self._lines.append(text)
        if self._waits.is_set():
            return
        if _get_ident() == self._thread:
            self._waits.set()
        else:
            self._hub.loop.run_callback_threadsafe(self._waits.set)

    def close(self) -> None:
        """Writes what is left, unless nobody takes it."""
        self._is_closing = True
        self._waits.set()
        self._greenlet.join(CLOSE_SECONDS)
        self._greenlet.kill()

    def _write_forever(self) -> None:
        while True:
            self._waits.wait()
            self._waits.clear()
            while self._lines:
                self._hub.threadpool.apply(_write_all, (self._descriptor, self._take()))
            if self._is_closing:
                return

    def _take(self) -> bytes:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._dropped_count:
            lines.append(f'{self._dropped_count} log lines were dropped, because nobody took them\n')
            self._dropped_count = 0
        return ''.join(lines).encode('utf-8', 'backslashreplace')


def _write_all(descriptor: int, data: bytes) -> None:
    """Runs in a native thread."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _sleep(RETRY_SECONDS)
        except OSError:
            # Whoever read it is gone, and there is nobody to tell.
            return


class LogWriters:
    """The writers of greenq's own handlers, a stream each; handlers of the application are left alone."""

    def __init__(self, logger_names: Iterable[str]):
        self._handlers: list[ColorizingStreamHandler] = []
        self._writers: dict[int, LogWriter] = {}
        for handler in (handler for name in logger_names for handler in logging.getLogger(name).handlers):
            if isinstance(handler, ColorizingStreamHandler) and _has_descriptor(handler.stream):
                writer = self._writers.get(id(handler.stream))
                if writer is None:
                    writer = self._writers[id(handler.stream)] = LogWriter(handler.stream)
                handler.sink = writer.write
                self._handlers.append(handler)

    def close(self) -> None:
        """Has the handlers write by themselves again."""
        for handler in self._handlers:
            handler.sink = None
        for writer in self._writers.values():
            writer.close()


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
