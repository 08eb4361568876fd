"""Looks after what nobody else does: jobs of dead workers, registries, groups."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from greenq.defaults import REAP_SECONDS
from greenq.store import membership, queries, transitions
from greenq.store.membership import Recovered

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
        recovered = membership.recover_lost(client, worker_name, limit=CHUNK, lost_worker=lost_worker)
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
    `clean` cleans the registries if that is due. `in_hand` says which executions the worker runs, is about to
    give back, or has an outcome of that is not written yet.
    """

    def __init__(
        self,
        client: Any,
        worker_name: str,
        settle: Callable[[Recovered], None],
        clean: Callable[[], None],
        in_hand: Callable[[], set[str]] = set,
    ):
        self._client = client
        self._worker_name = worker_name
        self._settle = settle
        self._clean = clean
        self._in_hand = in_hand
        self._reaped_at = float('-inf')
        self._adopted: deque[Recovered] = deque()
        self._ever_adopted: set[str] = set()
        self._is_reply_missing = False
        self._strays: set[str] = set()

    def hurry(self) -> None:
        """Some worker is lost: recovery is due at once."""
        self._reaped_at = float('-inf')

    def tick(self, interval: float = REAP_SECONDS) -> None:
        """Does what is due now, if recovery is every `interval` seconds. Trouble with Redis is raised."""
        present = time.monotonic()
        if present - self._reaped_at >= interval:
            self._reaped_at = present
            self.recover_lost()
            self._release_strays()
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
        recovered = membership.recover_lost(self._client, self._worker_name, limit=_ALL, lost_worker=self._worker_name)
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
        in_hand = self._in_hand()
        for held in queries.held_executions(self._client, self._worker_name):
            if held.beginner != self._worker_name and held.execution_id not in in_hand:
                self._adopt(Recovered(held.job_id, held.execution_id, held.queue, 'adopted', cause=membership.LOST))

    def _release_strays(self) -> None:
        """Gives back what is under the worker's lease though it has ended here: Redis has lost its end, as it does when
        it comes back from an older copy of its data. What is so at two looks in a row is no reply on its way."""
        if queries.held_count(self._client, self._worker_name) == len(self._in_hand()):
            self._strays = set()
            return
        held_by_me = queries.held_executions(self._client, self._worker_name)
        # Asked after Redis: what ended meanwhile is a suspect for once, what began is none.
        known = self._in_hand() | {item.execution_id for item in self._adopted}
        suspects = {held.execution_id: held for held in held_by_me if held.execution_id not in known}
        strays = [(held.job_id, held.execution_id, held.queue) for id, held in suspects.items() if id in self._strays]
        if strays:
            log.warning('Worker %s: Redis lost the end of %d jobs, they run again', self._worker_name, len(strays))
            transitions.release(self._client, self._worker_name, strays, cause='Redis lost its end')
        self._strays = set(suspects)
