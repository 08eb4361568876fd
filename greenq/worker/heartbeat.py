"""Keeps the worker and all its executions alive in Redis with one beat; joins again when its record was lost."""

import logging
import time
from collections.abc import Callable
from typing import Any

from greenq.defaults import BEAT_SECONDS, LEASE_SECONDS
from greenq.store import transitions
from greenq.worker.in_flight import InFlight, triple

log = logging.getLogger('greenq.worker')

#: RQ's readers may take an execution for dead this long (s) after the last beat that named it: never under 90.
LIFETIME_SECONDS = 180
#: Each execution is named in a beat this often (s): RQ's records of it need no more.
REFRESH_SECONDS = 30
#: Executions in one call at most, so that a beat of a full worker does not hold up the server.
CHUNK = 1000


class Heartbeat:
    """Responsible for the lease: `beat()` extends it, and RQ's records of those executions whose turn it is."""

    def __init__(self, client: Any, worker_name: str, token: str, in_flight: InFlight, rejoin: Callable[[], None]):
        self._client = client
        self._worker_name = worker_name
        self._token = token
        self._in_flight = in_flight
        self._rejoin = rejoin
        self._named_at: dict[str, float] = {}
        self.last_beat = time.monotonic()
        self.is_superseded = False

    @property
    def is_due(self) -> bool:
        """Whether the last beat is long enough ago."""
        return time.monotonic() - self.last_beat >= BEAT_SECONDS

    def beat(self, worker_ttl: int) -> None:
        """One beat. `worker_ttl` (s) is how long RQ's record of the worker lives without another."""
        due = self._whose_turn()
        chunks = [due[at : at + CHUNK] for at in range(0, len(due), CHUNK)] or [[]]
        for chunk in chunks:
            verdict, lost = transitions.beat(
                self._client,
                self._worker_name,
                self._token,
                chunk,
                lease_ms=LEASE_SECONDS * 1000,
                worker_ttl=worker_ttl,
                lifetime=LIFETIME_SECONDS,
            )
            self._heed(verdict, lost)
        self.last_beat = time.monotonic()

    def _whose_turn(self) -> list[tuple[str, str, str]]:
        """Executions that no beat has named for a while; a new one was named by its claim."""
        present = time.monotonic()
        named_at = {id: self._named_at.get(id, present) for id in tuple(self._in_flight)}
        due = []
        for execution_id, named in named_at.items():
            execution = self._in_flight.get(execution_id)
            if execution is not None and present - named >= REFRESH_SECONDS:
                due.append(triple(execution))
                named_at[execution_id] = present
        self._named_at = named_at
        return due

    def _heed(self, verdict: str, lost: list[str]) -> None:
        if verdict == 'missing':
            log.warning('Worker %s: its record is gone from Redis, registering again', self._worker_name)
            self._rejoin()
        elif verdict == 'superseded':
            if not self.is_superseded:
                log.error('Worker %s: another worker has taken this name, stopping', self._worker_name)
            self.is_superseded = True
        for composite in lost:
            log.warning('Worker %s: execution %s is no longer its own', self._worker_name, composite)
