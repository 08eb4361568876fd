"""How long to wait before trying Redis again."""

import random
import time


class Backoff:
    """Waits that double from a tenth of a second up to `maximum` seconds, each with jitter, so that a fleet that lost
    its server at one moment does not come back at one moment."""

    def __init__(self, first: float = 0.1, maximum: float = 5.0):
        self._first = first
        self._maximum = maximum
        self._next = first

    def next_wait(self) -> float:
        """Seconds to wait now."""
        wait = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._maximum)
        return wait

    def sleep(self) -> None:
        """Waits."""
        time.sleep(self.next_wait())

    def reset(self) -> None:
        """Starts from the shortest wait again."""
        self._next = self._first
