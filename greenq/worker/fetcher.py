"""Gets jobs for free slots: waits for work, claims a batch."""

import itertools
import os
import time
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError

from greenq.store import transitions
from greenq.store.transitions import Claimed


class Standing(NamedTuple):
    """A claim that is sent behind a call that waits for work, and carried out when something has come."""

    command: tuple[Any, ...]
    execution_ids: list[str]


class Fetcher:
    """Responsible for claiming: `fetch` takes what is there, in the order of the queues it is given; `standing` makes a
    claim that somebody else sends, who then calls `settle` or `note_lost`."""

    def __init__(self, client: Any, worker_name: str, lifetime: int, record: bool = True):
        self._client = client
        self._worker_name = worker_name
        self._lifetime = lifetime
        self._record = record
        self._unanswered: list[str] | None = None
        self._prefix = os.urandom(10).hex()
        self._numbers = itertools.count()
        self._arrived: list[Claimed] = []
        #: How far the clock of this process is ahead of Redis' (s).
        self._ahead = 0.0

    def fetch(self, queues: list[str], count: int) -> list[Claimed] | None:
        """At most `count` jobs; None while workers are suspended. Trouble with Redis is raised.

        A claim whose reply was lost is repeated under the same execution ids, so that what it took is found again.
        """
        is_repeat = self._unanswered is not None
        execution_ids = self._unanswered or self._new_execution_ids(count)
        try:
            claimed = transitions.claim(
                self._client,
                self._worker_name,
                queues,
                execution_ids,
                lifetime=self._lifetime,
                count=count,
                repeat=is_repeat,
                record=self._record,
            )
        except RedisError:
            # Even a refusal may follow an earlier try whose reply was lost.
            self._unanswered = execution_ids
            raise
        self._unanswered = None
        return claimed

    def standing(self, queues: list[str], count: int) -> Standing:
        """A claim for at most `count` jobs."""
        execution_ids = self._new_execution_ids(count)
        command = transitions.standing_claim(
            self._worker_name,
            queues,
            execution_ids,
            lifetime=self._lifetime,
            record=self._record,
            ahead=self._ahead,
        )
        return Standing(command, execution_ids)

    def settle(self, standing: Standing, reply: Any) -> int:
        """Takes the reply to a standing claim, an error perhaps, and returns how many ids it took from those parked.
        What it left the next `fetch` finds, and why."""
        if isinstance(reply, RedisError):
            if not isinstance(reply, NoScriptError):
                self.note_lost(standing)
            return 0
        claimed, unparked, moment = transitions.read_standing_claim(reply, standing.execution_ids)
        if moment is not None:
            self.note_clock(moment)
        self._arrived += claimed
        return unparked

    def note_lost(self, standing: Standing) -> None:
        """The reply will not come; the claim may have been carried out, or may still be."""
        self._unanswered = [*(self._unanswered or []), *standing.execution_ids]

    def note_clock(self, redis_time: float) -> None:
        """What Redis' clock says now (epoch seconds)."""
        self._ahead = time.time() - redis_time

    @property
    def is_unanswered(self) -> bool:
        """Whether some claim may have brought jobs of which only the next `fetch` tells."""
        return self._unanswered is not None

    @property
    def has_arrived(self) -> bool:
        """Whether standing claims have brought something since the last `take_arrived`."""
        return bool(self._arrived)

    def take_arrived(self) -> list[Claimed]:
        """What standing claims have brought since the last call."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def _new_execution_ids(self, count: int) -> list[str]:
        return [self.new_execution_id() for _ in range(count)]

    def new_execution_id(self) -> str:
        """32 hex digits, as RQ's, of which 20 are this process's."""
        return f'{self._prefix}{next(self._numbers):012x}'
