"""Keeps the worker and all its executions alive in Redis with one beat; joins again when its record was lost."""

import logging
import time
from collections.abc import Callable
from typing import Any

from greenq.defaults import BEAT_SECONDS, IDLE_BEAT_SECONDS, LEASE_SECONDS
from greenq.executions import Execution
from greenq.store import membership
from greenq.worker.in_flight import InFlight, triple

log = logging.getLogger('greenq.worker')

#: RQ's readers may take an execution for dead this long (s) after the last beat that named it: never under 90.
LIFETIME_SECONDS = 180
#: Each execution is named in a beat this often (s): RQ's records of it need no more.
REFRESH_SECONDS = 30
#: Executions in one call at most, so that a beat of a full worker does not hold up the server.
CHUNK = 1000


#: Where the claim does not write RQ's record of an execution, a beat does once it runs for so long (s).
RECORD_AFTER_SECONDS = 1.0


class Heartbeat:
    """Responsible for the lease: `beat()` extends it, and RQ's records of those executions whose turn it is.

    `records`: whether RQ's record of an execution is still to be written by its first beat.
    """

    def __init__(
        self,
        client: Any,
        worker_name: str,
        token: str,
        in_flight: InFlight,
        rejoin: Callable[[], None],
        records: bool = False,
    ):
        self._client = client
        self._worker_name = worker_name
        self._token = token
        self._in_flight = in_flight
        self._rejoin = rejoin
        self._records = records
        self._named_at: dict[str, float] = {}
        self.last_beat = self.last_full_beat = time.monotonic()
        #: When the first lease that was seen ends.
        self._look_at = float('-inf')
        self.is_superseded = False

    @property
    def is_due(self) -> bool:
        """Whether the last beat is long enough ago, or some execution waits for its record."""
        if time.monotonic() - self.last_beat >= BEAT_SECONDS:
            return True
        return self._records and bool(self._whose_turn())

    @property
    def is_idle_due(self) -> bool:
        """Whether a worker that runs nothing is to beat. It asks about once a second."""
        return time.monotonic() - self.last_beat >= IDLE_BEAT_SECONDS - 0.5

    def beat_idle(self) -> bool:
        """The beat of a worker that runs nothing; returns whether another one is known to be lost.

        No lease ends before the first that was seen, so there is nothing to look for until then.
        """
        present = time.monotonic()
        look = present >= self._look_at
        verdict, left_ms = membership.beat_idle(
            self._client, self._worker_name, self._token, lease_ms=LEASE_SECONDS * 1000, look=look
        )
        if look:
            self._look_at = present + left_ms / 1000
        self._heed(verdict, [])
        self.last_beat = time.monotonic()
        return verdict == 'lost'

    def beat(self, worker_ttl: int) -> None:
        """One beat. `worker_ttl` (s) is how long RQ's record of the worker lives without another."""
        due = self._whose_turn()
        chunks = [due[at : at + CHUNK] for at in range(0, len(due), CHUNK)] or [[]]
        for chunk in chunks:
            verdict, lost = membership.beat(
                self._client,
                self._worker_name,
                self._token,
                [(*triple(execution), execution.created_at.timestamp()) for execution in chunk],
                lease_ms=LEASE_SECONDS * 1000,
                worker_ttl=worker_ttl,
                lifetime=LIFETIME_SECONDS,
            )
            self._named_at |= dict.fromkeys((execution.id for execution in chunk), time.monotonic())
            self._heed(verdict, lost)
        self.last_beat = self.last_full_beat = time.monotonic()

    def _whose_turn(self) -> list[Execution]:
        """Executions that no beat has named for a while, or that wait for their record."""
        present = time.monotonic()
        first_sight = present - REFRESH_SECONDS + RECORD_AFTER_SECONDS if self._records else present
        running = dict(self._in_flight)
        self._named_at = {id: self._named_at.get(id, first_sight) for id in running}
        return [running[id] for id, named in self._named_at.items() if present - named >= REFRESH_SECONDS]

    def _heed(self, verdict: str, lost: list[str]) -> None:
        if verdict == 'missing':
            log.warning('Worker %s: its record is gone from Redis, registering again', self._worker_name)
            self._rejoin()
        elif verdict == 'superseded':
            if not self.is_superseded:
                log.error('Worker %s: another worker has taken this name, stopping', self._worker_name)
            self.is_superseded = True
        for composite in lost:
            if composite.rpartition(':')[2] not in self._in_flight:
                continue  # it ended while the beat was on its way
            log.warning('Worker %s: execution %s is no longer its own', self._worker_name, composite)
