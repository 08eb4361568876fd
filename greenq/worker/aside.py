"""Greenlets for what must hold up nobody. They are few; gevent's pools could do this, and bring along much more."""

from collections.abc import Callable
from typing import Any

import gevent


class Aside:
    """The greenlets that run now; its length is their number."""

    def __init__(self) -> None:
        self._greenlets: set[gevent.Greenlet] = set()

    def __len__(self) -> int:
        return len(self._greenlets)

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:
        """Has a greenlet call the function soon."""
        greenlet = gevent.Greenlet(function, *args)
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._greenlets.discard)
        greenlet.start()

    def join(self, timeout: float) -> None:
        """Waits at most `timeout` seconds until those that run now have ended."""
        gevent.joinall(list(self._greenlets), timeout)
