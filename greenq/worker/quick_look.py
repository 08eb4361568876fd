"""Connections that are looked at without letting other greenlets run.

Before redis-py's pool gives away a connection it asks whether something unread is on it. A patched `poll` lets the hub
run first: under load each command would be sent only after a turn of all jobs that are ready, and Redis would be idle
meanwhile.
"""

from functools import cache
from typing import Any

from gevent.monkey import get_original

_IN = 1  # POLLIN


class _QuickLook:
    """Mixed into a class of connections. Where redis-py's parts are not as expected, its own look is used."""

    _sock: Any
    _parser: Any

    def can_read(self, timeout: float = 0) -> bool:
        """As redis-py's."""
        if not timeout and self._is_surely_quiet():
            return False
        can_read: bool = super().can_read(timeout)  # type: ignore[misc]
        return can_read

    def _is_surely_quiet(self) -> bool:
        has_data = getattr(getattr(self._parser, '_reader', None), 'has_data', None)
        if self._sock is None or has_data is None or has_data() or getattr(self._sock, 'pending', int)():
            return False
        poll = get_original('select', 'poll')()
        poll.register(self._sock.fileno(), _IN)
        return not poll.poll(0)


@cache
def quick_looking(connection_class: type[Any]) -> type[Any]:
    """The class of connections, with a look at them that takes no turn."""
    return type(connection_class.__name__, (_QuickLook, connection_class), {})
