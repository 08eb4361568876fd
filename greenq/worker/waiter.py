"""Waits on the server for work: one blocking move per queue, each on a connection of its own.

The move takes an id into the worker's parked list, from where only a claim of this worker takes it, or, if the worker
dies, whoever recovers it: no id is ever in nobody's hands.
"""

import select
import time
from typing import Any

from redis.exceptions import RedisError

from greenq.store import keys
from greenq.worker.signals import WakePipe

#: A blocking call returns by itself after this long, so that a half-open connection is noticed.
BLOCK_SECONDS = 10


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

    def __init__(self, wait_pool: Any, client: Any, worker_name: str, queues: list[str], wake: WakePipe):
        self._client = client
        self._parked_key = keys.parked(worker_name)
        self._wake = wake
        self._lines = [_Line(wait_pool, queue) for queue in queues]

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
            ready, _, _ = select.select([*sockets, self._wake], [], [], max(left, 0))
            lines = [sockets[item] for item in ready if item is not self._wake]
            parked = [line.finish() for line in lines]
            if self._wake in ready:
                self._wake.drain()
                return any(parked)
            if any(parked) or time.monotonic() >= until:
                return any(parked)

    @property
    def is_waiting(self) -> bool:
        """Whether the server may still park an id for this worker."""
        return any(line.is_waiting for line in self._lines)

    def withdraw(self) -> bool:
        """Ends all blocking calls; returns whether one of them has parked an id meanwhile."""
        waiting = [line for line in self._lines if line.is_waiting]
        try:
            for line in waiting:
                self._client.execute_command('CLIENT', 'UNBLOCK', line.client_id)
            parked = [line.finish() for line in waiting]
            return any(parked)
        except (RedisError, OSError):
            self.close()
            return True

    def close(self) -> None:
        """Drops the connections; what the server parks meanwhile stays in the parked list."""
        for line in self._lines:
            line.drop()
