"""What a supervisor does in Redis for workers that cannot: keeps the lease of one that hangs, hands over the jobs of
one that is dead. It needs a connection only then."""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

log = logging.getLogger('greenq.supervisor')

#: The lease of a worker that hangs is extended this often (s).
HOLD_SECONDS = 5.0


class _Death(NamedTuple):
    """A death that Redis is to be told of."""

    worker_name: str
    culprit: str
    is_overdue: bool
    cause: str


class Custody:
    """Responsible for the jobs of workers that hang or are dead.

    `connect` makes the connection when it is first needed; `worker_ttl` (s) is how long RQ's record of a worker lives
    without a beat.
    """

    def __init__(self, connect: Callable[[], Any], worker_ttl: int):
        self._connect = connect
        self._worker_ttl = worker_ttl
        self._held_at: dict[str, float] = {}
        self._unreported: list[_Death] = []
        self._try_at = 0.0

    def hold(self, worker_name: str) -> None:
        """Extends the lease of a worker that hangs, every few seconds."""
        present = time.monotonic()
        if present - self._held_at.get(worker_name, 0.0) < HOLD_SECONDS:
            return
        self._held_at[worker_name] = present
        from greenq.defaults import LEASE_SECONDS
        from greenq.store import membership
        from greenq.worker.heartbeat import LIFETIME_SECONDS

        try:
            membership.extend(
                self._connect(),
                worker_name,
                lease_ms=LEASE_SECONDS * 1000,
                lifetime=LIFETIME_SECONDS,
                worker_ttl=self._worker_ttl + 60,
            )
        except Exception as error:
            log.warning('The lease of worker %s, which hangs, cannot be extended: %s', worker_name, error)

    def quiet(self, worker_name: str) -> bool:
        """Has a worker that knows no signal for it take no more jobs; returns whether it heard."""
        from greenq.command import send_command

        try:
            return send_command(self._connect(), worker_name, 'quiet') > 0
        except Exception as error:
            log.warning('Worker %s cannot be told to take no more jobs: %s', worker_name, error)
            return False

    def report_death(self, worker_name: str, culprit: str, *, cause: str, is_overdue: bool = False) -> None:
        """Hands over the jobs of a dead worker: `culprit` is the execution that it was running ('' if unknown);
        `is_overdue` if the worker was killed because that one hung past its deadline. Tries again until Redis knows."""
        self._held_at.pop(worker_name, None)
        self._unreported.append(_Death(worker_name, culprit, is_overdue, cause))
        self._try_at = 0.0
        self.settle_debts()

    def settle_debts(self) -> None:
        """Tells Redis of deaths that it does not know of yet."""
        if not self._unreported or time.monotonic() < self._try_at:
            return
        try:
            while self._unreported:
                self._hand_over(self._unreported[0])
                del self._unreported[0]
        except Exception as error:
            # Whatever the reason, the supervisor has workers to watch.
            log.warning('Redis cannot be told of a dead worker, trying again: %s', error)
            self._try_at = time.monotonic() + 1.0

    def _hand_over(self, death: _Death) -> None:
        from greenq.store import membership
        from greenq.worker.maintenance import recover_lost

        connection = self._connect()
        verdict = self._verdict(connection, death)
        membership.report_death(
            connection, death.worker_name, culprit=death.culprit, verdict=verdict, cause=death.cause
        )
        recover_lost(connection, '', lost_worker=death.worker_name)

    def _verdict(self, connection: Any, death: _Death) -> str:
        """A job is overdue only past its own deadline: it may have held up a neighbour past that one's."""
        if not death.culprit:
            return ''
        if not death.is_overdue:
            return 'suspect'
        from greenq.store import queries

        deadline = queries.deadline_of(connection, death.worker_name, death.culprit)
        return 'suspect' if deadline is None or time.time() < deadline else 'overdue'
