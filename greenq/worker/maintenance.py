"""Looks after what nobody else does: jobs of dead workers, registries, groups."""

import logging
import time
from collections.abc import Callable
from typing import Any

from greenq.defaults import MAX_INTERRUPTIONS, REAP_SECONDS
from greenq.store import transitions
from greenq.store.transitions import Recovered
from greenq.worker.outcomes import poison_reason

log = logging.getLogger('greenq.worker')

#: Executions recovered by one call; the call is repeated until nothing is left.
CHUNK = 100


class Maintenance:
    """Responsible for recovery, every few seconds, and for asking for cleaning; `tick()` does what is due.

    `settle` ends an execution whose worker asked to have what it loses failed; `clean` cleans the registries if that
    is due.
    """

    def __init__(self, client: Any, worker_name: str, settle: Callable[[Recovered], None], clean: Callable[[], None]):
        self._client = client
        self._worker_name = worker_name
        self._settle = settle
        self._clean = clean
        self._reaped_at = float('-inf')

    def tick(self) -> None:
        """Does what is due now. Trouble with Redis is raised."""
        present = time.monotonic()
        if present - self._reaped_at >= REAP_SECONDS:
            self._reaped_at = present
            self.recover_lost()
        self._clean()

    def recover_lost(self, lost_worker: str = '') -> int:
        """Recovers what dead workers held, or what `lost_worker` held; returns how many executions that were."""
        total = 0
        while True:
            recovered = transitions.recover_lost(
                self._client,
                self._worker_name,
                interruption_limit=MAX_INTERRUPTIONS,
                poison_reason=poison_reason(MAX_INTERRUPTIONS),
                limit=CHUNK,
                lost_worker=lost_worker,
            )
            for item in recovered:
                log.warning(
                    'Worker %s: job %s was interrupted, now %s (execution %s)',
                    self._worker_name,
                    item.job_id,
                    item.status,
                    item.execution_id,
                )
                if item.status == 'adopted':
                    self._settle(item)
            total += len(recovered)
            if len(recovered) < CHUNK:
                return total
