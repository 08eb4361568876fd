"""Gets jobs for free slots: waits for work, claims a batch."""

import itertools
import os
from typing import Any

from redis.exceptions import RedisError

from greenq.store import transitions
from greenq.store.transitions import Claimed


class Fetcher:
    """Responsible for claiming: `fetch` takes what is there, in the order of the queues it is given."""

    def __init__(self, client: Any, worker_name: str, lifetime: int, record: bool = True):
        self._client = client
        self._worker_name = worker_name
        self._lifetime = lifetime
        self._record = record
        self._unanswered: list[str] | None = None
        self._prefix = os.urandom(10).hex()
        self._numbers = itertools.count()

    def fetch(self, queues: list[str], count: int) -> list[Claimed] | None:
        """At most `count` jobs; None while workers are suspended. Trouble with Redis is raised.

        A claim whose reply was lost is repeated under the same execution ids, so that what it took is found again.
        """
        is_repeat = self._unanswered is not None
        execution_ids = self._unanswered or [self.new_execution_id() for _ in range(count)]
        try:
            claimed = transitions.claim(
                self._client,
                self._worker_name,
                queues,
                execution_ids,
                lifetime=self._lifetime,
                repeat=is_repeat,
                record=self._record,
            )
        except RedisError:
            # Even a refusal may follow an earlier try whose reply was lost.
            self._unanswered = execution_ids
            raise
        self._unanswered = None
        return claimed

    def new_execution_id(self) -> str:
        """32 hex digits, as RQ's, of which 20 are this process's."""
        return f'{self._prefix}{next(self._numbers):012x}'
