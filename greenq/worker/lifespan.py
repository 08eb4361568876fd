"""When a worker's process has grown too large or too old and is to make room for a fresh one. Measures only."""

import os
import resource
import sys
import time


class Lifespan:
    """`max_memory` (MiB of resident memory) and `max_age` (s); None is no limit."""

    def __init__(self, max_memory: float | None, max_age: float | None):
        self._max_memory = max_memory
        self._max_age = max_age
        self._began = time.monotonic()

    def excess(self) -> str:
        """Which limit is exceeded, and by what; '' if none is."""
        if self._max_memory is not None:
            used = resident_mib()
            if used > self._max_memory:
                return f'{used:.0f} MiB of memory are in use, max-memory is {self._max_memory:g}'
        age = time.monotonic() - self._began
        if self._max_age is not None and age > self._max_age:
            return f'it has run for {age:.0f} seconds, max-age is {self._max_age:g}'
        return ''


def resident_mib() -> float:
    """This process's resident memory in MiB; where the system does not tell, the most that it ever had."""
    try:
        with open('/proc/self/statm', 'rb') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == 'darwin' else peak / 2**10
