"""Writes outcomes: whatever has gathered goes out as one transition a kind (group commit).

An outcome stays here until Redis has it: trouble means waiting and trying again, never dropping. Alone, an outcome
waits for nothing; under load the batch grows by itself.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from greenq.store import transitions
from greenq.store.transitions import Failed, Finished, Refused, Retried, Verdict
from greenq.worker.outcomes import Outcome
from greenq.worker.reconnect import Backoff

log = logging.getLogger('greenq.worker')

BATCH = 500


class Pending(NamedTuple):
    """An outcome that waits to be written, and what to call, if anything, with whether it was accepted."""

    outcome: Outcome
    then: Callable[[bool], None] | None


class Finisher:
    """Responsible for getting outcomes into Redis; `record` hands one over, `flush` writes what has gathered."""

    def __init__(self, client: Any, worker_name: str, idle_state: Callable[[], str]):
        self._client = client
        self._worker_name = worker_name
        self._idle_state = idle_state
        self._pending: deque[Pending] = deque()
        #: By the identity of each batch.
        self._being_written: dict[int, list[Pending]] = {}
        self.lost_count = 0

    def __len__(self) -> int:
        """Outcomes that Redis does not have yet."""
        return len(self._pending) + sum(map(len, self._being_written.values()))

    def execution_ids(self) -> set[str]:
        """The executions whose outcome Redis does not have yet."""
        batches = (self._pending, *self._being_written.values())
        return {pending.outcome.execution_id for batch in batches for pending in batch}

    def record(self, outcome: Outcome, then: Callable[[bool], None] | None) -> None:
        """Takes charge of an outcome; writes it at once."""
        self._pending.append(Pending(outcome, then))
        self.flush()

    def enqueue(self, outcome: Outcome, then: Callable[[bool], None] | None) -> None:
        """Takes charge of an outcome that some later `flush` writes."""
        self._pending.append(Pending(outcome, then))

    def flush(self, give_up_after: float | None = None) -> bool:
        """Writes all that has gathered, waiting out Redis trouble; returns False if it gave up (seconds)."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), BATCH))]
            self._being_written[id(batch)] = batch
            is_written = self._write_patiently(batch, give_up_after)
            del self._being_written[id(batch)]
            if not is_written:
                self._pending.extendleft(reversed(batch))
                return False
        return True

    def _write_patiently(self, batch: list[Pending], give_up_after: float | None) -> bool:
        backoff = Backoff()
        give_up_at = None if give_up_after is None else time.monotonic() + give_up_after
        is_repeat = False
        while True:
            try:
                accepted = self._write(batch, is_repeat)
            except RedisError as error:
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    return False
                log.warning(
                    'Worker %s: cannot write %d outcome(s), trying again: %s', self._worker_name, len(batch), error
                )
                backoff.sleep()
                is_repeat = True
            else:
                self._tell(batch, accepted)
                return True

    def _give_back(self, outcome: Outcome, reason: str) -> None:
        """After a refusal that no waiting mends: the job runs again, until it is failed as poison."""
        log.error('Worker %s: outcome of job %s is refused by Redis: %s', self._worker_name, outcome.job_id, reason)
        transitions.release(
            self._client,
            self._worker_name,
            [(outcome.job_id, outcome.execution_id, outcome.queue)],
            cause=f'Redis refused its outcome: {reason}',
        )

    def _write(self, batch: list[Pending], is_repeat: bool) -> list[Verdict]:
        """One transition for each kind of outcome in the batch; what became of each."""
        accepted: list[Verdict] = [False] * len(batch)
        places: dict[type, list[int]] = {}
        for i, pending in enumerate(batch):
            places.setdefault(type(pending.outcome), []).append(i)
        state = self._idle_state()
        for kind, transition in _TRANSITIONS.items():
            if kind in places:
                outcomes: Iterable[Any] = [batch[i].outcome for i in places[kind]]
                replies = transition(self._client, self._worker_name, outcomes, state=state, repeat=is_repeat)
                for i, reply in zip(places[kind], replies, strict=True):
                    accepted[i] = reply
        return accepted

    def _tell(self, batch: list[Pending], accepted: list[Verdict]) -> None:
        for pending, verdict in zip(batch, accepted, strict=True):
            if verdict is not True:
                self._note_refusal(pending.outcome, verdict)
            if pending.then is None:
                continue
            try:
                pending.then(verdict is True)
            except Exception:
                # The outcome is in Redis; a broken webhook must not keep the next ones from getting there.
                log.exception('Worker %s: what follows job %s failed', self._worker_name, pending.outcome.job_id)

    def _note_refusal(self, outcome: Outcome, verdict: Verdict) -> None:
        if isinstance(verdict, Refused):
            self._give_back(outcome, verdict)
        else:
            self.lost_count += 1
            log.warning(
                "Worker %s: outcome of job %s dropped: its execution %s is no longer this worker's",
                self._worker_name,
                outcome.job_id,
                outcome.execution_id,
            )


_TRANSITIONS: dict[type, Callable[..., list[Verdict]]] = {
    Finished: transitions.finish,
    Failed: transitions.fail,
    Retried: transitions.retry,
}
