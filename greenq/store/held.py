"""A client that keeps its connection from one command to the next: what a worker's claims and commits go through."""

import threading
import time
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool, Redis

_EXECUTE_COMMAND = Redis.execute_command
#: After so long (s) without a command the connection is looked at before the next one: the server may have closed it.
REST_SECONDS = 5.0


class HeldClient:
    """`execute_command` as of the client whose only connection it holds, sent at once and once only.

    Redis-py takes a connection from its pool for every command, looks at it, and prepares for trouble, which costs more
    than the command. Trouble is raised; the next command finds a connection that is in order.
    """

    def __init__(self, client: Redis):
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        self._used_at = 0.0
        self._lock = threading.Lock()

    def execute_command(self, *args: Any) -> Any:
        """The reply as Redis gives it."""
        with self._lock:
            present = time.monotonic()
            if self._connection is None or present - self._used_at > REST_SECONDS:
                self._take()
            self._used_at = present
            connection = self._connection
            connection.send_command(*args)
            return connection.read_response()

    def _take(self) -> None:
        """The pool takes the connection back, and gives one that works."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)
        self._connection = self._pool.get_connection()


def held(client: Any) -> Any:
    """A `HeldClient` for a client of one connection of its own, if nothing is lost by it; else the client itself."""
    return HeldClient(client) if is_plain(client) else client


def is_plain(client: Any) -> bool:
    """Whether nothing would be bypassed by using the client's connections directly: subclasses and tools that trace may
    do something of their own with each command."""
    return (
        type(client) is Redis
        and client.connection is None
        and type(client.connection_pool) in (ConnectionPool, BlockingConnectionPool)
        and 'execute_command' not in vars(client)
        and Redis.execute_command is _EXECUTE_COMMAND
    )
