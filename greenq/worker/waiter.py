"""Waits on the server for work: one blocking move per queue, each on a connection of its own.

The move takes an id into the worker's parked list, from where only a claim of this worker takes it, or, if the worker
dies, whoever recovers it: no id is ever in nobody's hands.
"""

import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from greenq.store import keys
from greenq.worker.signals import WakePipe

#: A blocking call returns by itself after this long (s), so that a half-open connection is noticed. It must be well
#: under what is left of a lease between two beats: nothing may be parked for a worker that was recovered already.
BLOCK_SECONDS = 5


#: Waits at most so many seconds until some of these can be read; returns those.
Await = Callable[[Sequence[Any], float], list[Any]]


def _select(items: Sequence[Any], seconds: float) -> list[Any]:
    return select.select(items, [], [], seconds)[0]


class _Line:
    """The connection that waits on one queue."""

    def __init__(self, pool: Any, queue: str):
        self._pool = pool
        self.queue = queue
        self.connection: Any = None
        self.client_id = 0
        self.is_waiting = False

    def start(self, parked_key: str, seconds: int) -> None:
        if self.connection is None:
            self.connection = self._pool.get_connection()
            self.connection.send_command('CLIENT', 'ID')
            self.client_id = int(self.connection.read_response())
        if not self.is_waiting:
            self.connection.send_command('BLMOVE', keys.queue(self.queue), parked_key, 'LEFT', 'RIGHT', seconds)
            self.is_waiting = True

    def socket(self) -> Any:
        return self.connection._sock

    def finish(self) -> bool:
        """Reads the reply; returns whether an id was parked."""
        self.is_waiting = False
        return self.connection.read_response() is not None

    def drop(self) -> None:
        self.is_waiting = False
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.disconnect()
            self._pool.release(connection)


class Waiter:
    """Responsible for sleeping until there is work, a wake-up, or the time is over."""

    def __init__(
        self,
        wait_pool: Any,
        client: Any,
        worker_name: str,
        queues: list[str],
        wake: WakePipe,
        await_readable: Await = _select,
    ):
        self._client = client
        self._await_readable = await_readable
        self._parked_key = keys.parked(worker_name)
        self._wake = wake
        self._lines = [_Line(wait_pool, queue) for queue in queues]
        #: How many ids may be parked that no claim has taken yet.
        self.parked_count = 0

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds`; returns whether some id was parked. Trouble with Redis is raised."""
        try:
            return self._wait(seconds)
        except (RedisError, OSError, ValueError):
            self.close()
            raise

    def _wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            for line in self._lines:
                line.start(self._parked_key, BLOCK_SECONDS)
            left = until - time.monotonic()
            sockets = {line.socket(): line for line in self._lines}
            ready = self._await_readable([*sockets, self._wake], max(left, 0))
            lines = [sockets[item] for item in ready if item is not self._wake]
            parked = sum([line.finish() for line in lines])
            self.parked_count += parked
            if self._wake in ready:
                self._wake.drain()
                return parked > 0
            if parked or time.monotonic() >= until:
                return parked > 0

    @property
    def is_waiting(self) -> bool:
        """Whether the server may still park an id for this worker."""
        return any(line.is_waiting for line in self._lines)

    @property
    def is_watching(self) -> bool:
        """Whether the server would park whatever comes, so that there is nothing to claim."""
        return not self.parked_count and all(line.is_waiting for line in self._lines)

    def taken(self, count: int) -> None:
        """A claim has taken `count` jobs, parked ones first."""
        self.parked_count = max(0, self.parked_count - count)

    def withdraw(self) -> bool:
        """Ends all blocking calls; False if the server may still park something, for `BLOCK_SECONDS` at most."""
        waiting = [line for line in self._lines if line.is_waiting]
        try:
            for line in waiting:
                self._client.execute_command('CLIENT', 'UNBLOCK', line.client_id)
            self.parked_count += sum([line.finish() for line in waiting])
        except (RedisError, OSError):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Drops the connections; what the server parks meanwhile stays in the parked list."""
        for line in self._lines:
            self.parked_count += line.is_waiting
            line.drop()
