"""Waits, in a greenlet, until one of a few sockets can be read. It keeps what it watches them by from one wait to the
next, which `gevent.select` makes anew each time: an idle worker is at its first job sooner."""

from collections.abc import Sequence
from typing import Any

from gevent import get_hub
from gevent.event import Event

_READ = 1


class Readable:
    """`wait(items, seconds)` for things with a `fileno()`, in one greenlet at a time."""

    def __init__(self) -> None:
        self._watchers: dict[Any, Any] = {}
        self._has_news = Event()
        self._ready: list[Any] = []

    def wait(self, items: Sequence[Any], seconds: float) -> list[Any]:
        """Those that can be read, at least one unless the time is over."""
        self._watch(items)
        self._ready = []
        self._has_news.clear()
        try:
            for item in items:
                self._watchers[item].start(self._note, item)
            self._has_news.wait(seconds)
        finally:
            for watcher in self._watchers.values():
                watcher.stop()
        return self._ready

    def _note(self, item: Any) -> None:
        self._watchers[item].stop()
        self._ready.append(item)
        self._has_news.set()

    def _watch(self, items: Sequence[Any]) -> None:
        known = self._watchers
        for item in [item for item in known if item not in items]:
            known.pop(item).close()
        for item in items:
            if item not in known:
                known[item] = get_hub().loop.io(item.fileno(), _READ)
