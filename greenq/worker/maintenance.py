"""Looks after what nobody else does: jobs of dead workers, registries, groups."""

import logging
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any

from redis.exceptions import RedisError

from greenq.defaults import REAP_SECONDS
from greenq.store import queries, transitions
from greenq.store.transitions import Recovered

log = logging.getLogger('greenq.worker')

#: Executions recovered by one call; the call is repeated until nothing is left.
CHUNK = 100
#: More than a worker can hold.
_ALL = 1_000_000


def recover_lost(
    client: Any, worker_name: str, *, lost_worker: str = '', adopt: Callable[[Recovered], None] | None = None
) -> int:
    """Recovers what dead workers held, or just `lost_worker`; returns how many executions that were.

    `adopt` is handed what the caller has to end. A supervisor, which has no name among the workers ('') and runs
    nothing, is left nothing to adopt.
    """
    total = 0
    while True:
        recovered = transitions.recover_lost(client, worker_name, limit=CHUNK, lost_worker=lost_worker)
        _hand_over(recovered, worker_name or lost_worker, adopt)
        total += len(recovered)
        if len(recovered) < CHUNK:
            return total


def _hand_over(recovered: Sequence[Recovered], worker_name: str, adopt: Callable[[Recovered], None] | None) -> None:
    for item in recovered:
        log.warning(
            'Worker %s: job %s was interrupted (%s), now %s (execution %s)',
            worker_name,
            item.job_id,
            item.cause,
            item.status,
            item.execution_id,
        )
        if item.status == 'adopted' and adopt is not None:
            adopt(item)


class Maintenance:
    """Responsible for recovery, every few seconds, and for asking for cleaning; `tick()` does what is due.

    `settle` ends an execution that the worker adopts; after trouble with Redis, which it raises, it is called again.
    `clean` cleans the registries if that is due. `in_flight` has the ids of the executions that the worker runs.
    """

    def __init__(
        self,
        client: Any,
        worker_name: str,
        settle: Callable[[Recovered], None],
        clean: Callable[[], None],
        in_flight: Container[str] = (),
    ):
        self._client = client
        self._worker_name = worker_name
        self._settle = settle
        self._clean = clean
        self._in_flight = in_flight
        self._reaped_at = float('-inf')
        self._adopted: deque[Recovered] = deque()
        self._ever_adopted: set[str] = set()
        self._is_reply_missing = False

    def tick(self) -> None:
        """Does what is due now. Trouble with Redis is raised."""
        present = time.monotonic()
        if present - self._reaped_at >= REAP_SECONDS:
            self._reaped_at = present
            self.recover_lost()
        self._settle_adopted()
        self._clean()

    def recover_lost(self, lost_worker: str = '') -> int:
        """Recovers what dead workers held, or just `lost_worker`; returns how many executions that were."""
        if self._is_reply_missing:
            self._recall_adopted()
        self._is_reply_missing = True
        total = recover_lost(self._client, self._worker_name, lost_worker=lost_worker, adopt=self._adopt)
        self._is_reply_missing = False
        self._settle_adopted()
        return total

    def recover_predecessor(self) -> None:
        """Recovers what a dead namesake left; to be called before the worker runs anything."""
        # In one call: what is adopted stays under the same name, so that another call would find it again.
        recovered = transitions.recover_lost(self._client, self._worker_name, limit=_ALL, lost_worker=self._worker_name)
        _hand_over(recovered, self._worker_name, self._adopt)
        self._settle_adopted()

    def _adopt(self, item: Recovered) -> None:
        if item.execution_id not in self._ever_adopted:
            self._ever_adopted.add(item.execution_id)
            self._adopted.append(item)

    def _settle_adopted(self) -> None:
        while self._adopted:
            item = self._adopted.popleft()
            try:
                self._settle(item)
            except RedisError:
                self._adopted.appendleft(item)
                raise

    def _recall_adopted(self) -> None:
        """The reply that was lost may have named executions that are the worker's since."""
        for job_id, execution_id, queue in queries.adopted_executions(self._client, self._worker_name):
            if execution_id not in self._in_flight:
                self._adopt(Recovered(job_id, execution_id, queue, 'adopted', cause=transitions.LOST))
