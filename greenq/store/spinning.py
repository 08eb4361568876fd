"""Waits for a reply that is due within microseconds without going to sleep, as an adaptive mutex waits.

A Redis on the same machine answers an enqueue in less time than the kernel takes to wake a process that sleeps, and one
that slept finds its caches cold. How long replies took of late says whether to try.
"""

import os
import sys
import time
from typing import Any

#: So long (s) a reply is looked out for. It is about twice what a server on the same machine takes.
SPIN_SECONDS = 100e-6
#: After looks in vain the next replies are slept for: one, two, four... at most so many.
LONGEST_PAUSE = 1024


class Spin:
    """Looks out for replies. Threads may share it: what they get wrong costs a look."""

    def __init__(self) -> None:
        self._is_of_use = _processors() > 1
        self._pause = self._to_skip = 0

    def wait(self, connection: Any) -> None:
        """Returns once there is something to read on a redis-py connection, or when it pays to sleep instead. Errors
        are the connection's."""
        if not self._is_of_use or _is_patched():
            return
        if self._to_skip:
            self._to_skip -= 1
            return
        until = time.perf_counter() + SPIN_SECONDS
        while not connection.can_read(timeout=0):
            if time.perf_counter() > until:
                self._pause = self._to_skip = min(2 * self._pause + 1, LONGEST_PAUSE)
                return
        self._pause = 0


def _processors() -> int:
    """That this process may use: on a single one the server could not answer meanwhile."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _is_patched() -> bool:
    """Whether other greenlets can run while a reply is waited for."""
    monkey = sys.modules.get('gevent.monkey')
    return monkey is not None and monkey.is_module_patched('socket')
