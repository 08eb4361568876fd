"""Waits on the server for work: one blocking move per queue, each on a connection of its own.

The move takes an id into the worker's parked list, from where only a claim of this worker takes it, or, if the worker
dies, whoever recovers it: no id is ever in nobody's hands. A claim may follow at once, without a word from the worker:
sent behind the move, it is carried out when that is over.
"""

import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import RedisError, ResponseError, TimeoutError

from greenq.store import keys
from greenq.worker.signals import WakePipe

#: A blocking call returns by itself after this long (s), so that a half-open connection is noticed. It must be well
#: under what is left of a lease between two beats: nothing may be parked for a worker that was recovered already.
BLOCK_SECONDS = 5
#: The same where a standing claim follows, which gives what it takes a lease of its own.
STANDING_SECONDS = 15
#: After so long (s) without a reply, a call that was not blocked is looked at again.
UNREAD_SECONDS = 0.002
#: A reply that is late by so long (s) does not come: the connection is broken, and nobody has told.
LATE_SECONDS = 5


#: Waits at most so many seconds until some of these can be read; returns those.
Await = Callable[[Sequence[Any], float], list[Any]]


def _select(items: Sequence[Any], seconds: float) -> list[Any]:
    return select.select(items, [], [], seconds)[0]


class Standing(Protocol):
    """A claim to be sent behind a blocking call."""

    @property
    def command(self) -> tuple[Any, ...]: ...
    @property
    def execution_ids(self) -> list[str]: ...


class Claims(Protocol):
    """What makes standing claims, and takes their replies."""

    def standing(self, queues: list[str], count: int) -> Any: ...
    def settle(self, standing: Any, reply: Any) -> int: ...
    @property
    def has_arrived(self) -> bool: ...
    def note_lost(self, standing: Any) -> None: ...
    def note_clock(self, redis_time: float) -> None: ...


class _Line:
    """The connection that waits on one queue."""

    def __init__(self, pool: Any, queue: str, claims: Claims | None):
        self._pool = pool
        self._claims = claims
        self.queue = queue
        self.connection: Any = None
        self.client_id = 0
        self.is_waiting = False
        self.late_at = 0.0
        self.standing: Standing | None = None

    def start(self, parked_key: str, seconds: int, standing: Standing | None) -> None:
        if self.connection is None:
            self._connect()
        commands = [('BLMOVE', keys.queue(self.queue), parked_key, 'LEFT', 'RIGHT', seconds)]
        if standing is not None:
            commands.append(standing.command)
        # Noted first: from the first byte on it may be carried out.
        self.standing, self.is_waiting = standing, True
        self.late_at = time.monotonic() + seconds + LATE_SECONDS
        self.connection.send_packed_command(self.connection.pack_commands(commands))

    def _connect(self) -> None:
        self.connection = self._pool.get_connection()
        self.connection.send_command('CLIENT', 'ID')
        self.client_id = int(self.connection.read_response())
        if self._claims is not None:
            self.connection.send_command('TIME')
            seconds, micros = self.connection.read_response()
            self._claims.note_clock(int(seconds) + int(micros) / 1e6)

    def socket(self) -> Any:
        return self.connection._sock

    def finish(self) -> int:
        """Reads the replies; returns by how much there is more parked than before, or less."""
        self.is_waiting = False
        parked = int(self.connection.read_response() is not None)
        if self.standing is None or self._claims is None:
            return parked
        try:
            reply = self.connection.read_response()
        except ResponseError as error:
            reply = error
        standing, self.standing = self.standing, None
        return parked - self._claims.settle(standing, reply)

    def drop(self) -> None:
        self.is_waiting = False
        if self.standing is not None and self._claims is not None:
            standing, self.standing = self.standing, None
            self._claims.note_lost(standing)
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.disconnect()
            self._pool.release(connection)


class Waiter:
    """Responsible for sleeping until there is work, a wake-up, or the time is over. `claims` makes the claims that
    are to follow the blocking calls, if any."""

    def __init__(
        self,
        wait_pool: Any,
        client: Any,
        worker_name: str,
        queues: list[str],
        wake: WakePipe,
        await_readable: Await = _select,
        claims: Claims | None = None,
    ):
        self._client = client
        self._await_readable = await_readable
        self._parked_key = keys.parked(worker_name)
        self._wake = wake
        self._claims = claims
        self._queues = queues
        self._lines = [_Line(wait_pool, queue, claims) for queue in queues]
        #: A blocking call lasts no longer (s).
        self.block_seconds = BLOCK_SECONDS if claims is None else STANDING_SECONDS
        #: How many ids may be parked that no claim has taken yet.
        self.parked_count = 0

    def wait(self, seconds: float, count: int = 0) -> bool:
        """Waits at most `seconds`; returns whether some id was parked, or taken by a standing claim. All of these
        together take at most `count` jobs. Trouble with Redis is raised."""
        try:
            return self._wait(seconds, count)
        except (RedisError, OSError, ValueError):
            self.close()
            raise

    def _wait(self, seconds: float, count: int) -> bool:
        until = time.monotonic() + seconds
        while True:
            self._start_lines(count)
            left = until - time.monotonic()
            sockets = {line.socket(): line for line in self._lines}
            ready = self._await_readable([*sockets, self._wake], max(left, 0))
            self._finish([sockets[item] for item in ready if item is not self._wake])
            if self._wake in ready:
                self._wake.drain()
                return self._has_work()
            present = time.monotonic()
            if any(line.late_at <= present for line in self._lines if line.is_waiting):
                raise TimeoutError('the server does not end a call that waits for work')
            if self._has_work() or present >= until:
                return self._has_work()

    def _finish(self, lines: Sequence[_Line]) -> None:
        change = 0
        try:
            for line in lines:
                # Until its replies are read: it may have parked something.
                change += 1
                change += line.finish() - 1
        finally:
            # Summed up before it is compared with 0: a claim may have taken what another line parked.
            self.parked_count = max(0, self.parked_count + change)

    def _has_work(self) -> bool:
        return self.parked_count > 0 or (self._claims is not None and self._claims.has_arrived)

    def _start_lines(self, count: int) -> None:
        lines = [line for line in self._lines if not line.is_waiting]
        share = (count - self.promised) // len(lines) if lines else 0
        for line in lines:
            standing = None
            if self._claims is not None and share > 0:
                standing = self._claims.standing(self._queues, share)
            line.start(self._parked_key, self.block_seconds if standing else BLOCK_SECONDS, standing)

    @property
    def promised(self) -> int:
        """How many jobs standing claims may take at most."""
        standing = [line.standing for line in self._lines if line.standing is not None]
        return sum(len(claim.execution_ids) for claim in standing)

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
        """Ends all blocking calls; False if the server may still park something, for `block_seconds` at most."""
        waiting = [line for line in self._lines if line.is_waiting]
        try:
            for line in waiting:
                self._unblock(line)
            self._finish(waiting)
        except (RedisError, OSError):
            self.close()
            return False
        return True

    def _unblock(self, line: _Line) -> None:
        """Has the reply of a line come now. That it is not blocked means that the reply is there, or else that the
        server has not read the call yet, which comes on another connection and would then block after all."""
        while not self._client.execute_command('CLIENT', 'UNBLOCK', line.client_id):
            if self._await_readable([line.socket()], UNREAD_SECONDS):
                return
            if time.monotonic() >= line.late_at:
                raise TimeoutError('the server does not know of a call that waits for work')

    def close(self) -> None:
        """Drops the connections; what the server parks meanwhile stays in the parked list."""
        for line in self._lines:
            self.parked_count += line.is_waiting
            line.drop()
