"""Takes jobs for the slots of a worker: when it claims, how many, when it waits, and what goes back without having
begun. What executing is, it does not know."""

import math
import time

import gevent
from redis.exceptions import RedisError

from greenq.defaults import CLAIM_MAX_BATCH
from greenq.exceptions import StopRequested
from greenq.executions import Execution
from greenq.store import transitions
from greenq.store.transitions import Claimed
from greenq.utils import now
from greenq.worker.appetite import Appetite
from greenq.worker.in_flight import triple
from greenq.worker.reconnect import Backoff
from greenq.worker.record import WorkerStatus
from greenq.worker.slots import Ready, Slots
from greenq.worker.watched import WatchedWorker
from greenq.worker.wiring import DequeueStrategy

#: What was claimed ahead and could not start within this time (s) goes back.
PUT_BACK_SECONDS = 0.05
#: A claim that brings fewer jobs than this, and than it asked for, has probably emptied the queues.
FEW = 10
#: A claim for few free slots waits this long (s) for more to become free, so that claims stay batches under load.
GATHER_SECONDS = 0.002


class Intake(WatchedWorker):
    """A worker with slots, without what these do."""

    _slots: Slots
    _appetite: Appetite
    #: (job id, execution id, queue) of what goes back and of which Redis has not been told.
    _unreturned: list[tuple[str, str, str]]

    def _run(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        backoff = Backoff()
        while True:
            try:
                if not self._fill_slots(burst, max_jobs, max_idle_time):
                    break
                backoff.reset()
            except StopRequested:
                break
            except RedisError as error:
                self.log.error('Worker %s: Redis: %s; trying again', self.name, error)
                self._note_activity()
                backoff.sleep()
        self._note_stop()
        self._note_end()
        self.log.info('Worker %s: executed %d job(s), quitting', self.name, self._slots.started_count)
        return bool(self._slots.started_count)

    def _fill_slots(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> bool:
        """One round: claims for the free slots, or waits for a slot or for work; False when it is time to go."""
        if self._stop_requested or self._heart.is_superseded:
            raise StopRequested
        claimed = self._take_arrived()
        if claimed:
            self._let_begin()
        self._return_unbegun()
        if max_jobs is not None and self._slots.started_count >= max_jobs and not self._recycles_for:
            # In burst mode it is RQ's limit: the command ends.
            self._recycle(f'it has begun {max_jobs} job(s), as many as it may', is_replaced=not burst)
        if self._recycles_for or self._is_quiet:
            return self._take_none(burst)
        if self._left(max_jobs) <= 0:
            return self._busy_count() > 0 and self._wait_for_slot()
        wanted = self._wanted(max_jobs)
        if self._appetite.can_wait(wanted):
            return self._wait_for_room()
        if wanted <= 0:
            return self._wait_for_slot()
        was_busy = self._busy_count() > 0
        is_owed = self._waiter.parked_count > 0 or self._fetcher.is_unanswered
        if is_owed or not (claimed or self._waiter.is_watching):
            # What woke the worker is mostly a single job.
            wanted = min(wanted, FEW if self._waiter.parked_count == 1 else CLAIM_MAX_BATCH)
            taken = self._claim_for(wanted, burst)
            if taken is None:
                return True
            claimed += taken
        if claimed and (burst or len(claimed) >= min(wanted, FEW)):
            self._gather()
            return True
        if not claimed and burst and was_busy and not self._busy_count():
            # What ended during the claim may have put its job back after it.
            return True
        # If some were claimed, those were probably all: the wait tells of more.
        return self._wait_for_work(burst, max_idle_time, max_jobs)

    def _claim_for(self, count: int, burst: bool) -> list[Claimed] | None:
        """Claims so many jobs and hands them to the slots; None if that is for the next round."""
        if self._waiter.promised:
            # What standing claims bring would lie there unseen for as long as these bring enough.
            self._waiter.withdraw()
            return None
        claimed = self._claim(count)
        if claimed is None:
            self._end_waits()
            self.check_for_suspension(burst)
            return None
        self._dispatch(claimed)
        return claimed

    def _left(self, max_jobs: int | None) -> float:
        """How many jobs the worker may still begin."""
        if max_jobs is None:
            return math.inf
        return max_jobs - self._slots.started_count - len(self._slots.ready)

    def _wanted(self, max_jobs: int | None) -> int:
        """How many jobs it has room for, of those that it may begin."""
        return int(min(self._appetite.room(), self._left(max_jobs)))

    def _take_arrived(self) -> list[Claimed]:
        """Hands what standing claims have brought to the slots."""
        claimed = self._fetcher.take_arrived()
        if claimed:
            self._note_claimed(claimed)
            self._dispatch(claimed)
        return claimed

    def _let_begin(self) -> None:
        """What was claimed begins before anything else."""
        gevent.sleep(0)

    def _take_none(self, burst: bool) -> bool:
        """What was not begun goes back; what runs may end; False when that is done and the worker is to go."""
        if self._is_quiet and self._state != WorkerStatus.SUSPENDED:
            self.log.info('Worker %s: takes no more jobs until it is told to stop', self.name)
            self.set_state(WorkerStatus.SUSPENDED)
        self._waiter.withdraw()
        self._take_arrived()
        self._put_back_ready()
        if (burst or self._recycles_for) and not self._busy_count():
            return False
        return time.monotonic() < self._leaves_at and self._wait_for_slot()

    def _gather(self) -> None:
        """Waits a moment for more free slots if there are few, so that claims stay batches. If there are many, the next
        claim goes out at once: the jobs of this one start while its reply is awaited."""
        if self._appetite.room() < self._appetite.few():
            gevent.sleep(GATHER_SECONDS)

    def _wait_for_room(self) -> bool:
        gevent.sleep(GATHER_SECONDS)
        self._put_back_overdue()
        return True

    def _wait_for_slot(self) -> bool:
        # Cleared first: a slot that is freed while the waits are ended must not go unnoticed.
        self._slots.freed.clear()
        self._end_waits()
        self._slots.freed.wait(PUT_BACK_SECONDS if self._slots.ready else 1.0)
        self._put_back_overdue()
        return True

    def _wait_for_work(self, burst: bool, max_idle_time: int | None, max_jobs: int | None) -> bool:
        if self._busy_count():
            self._slots.idle_since = time.monotonic()
            if burst:
                return self._wait_for_slot()
        elif burst:
            self.log.info('Worker %s: done, quitting', self.name)
            return False
        idle_for = time.monotonic() - self._slots.idle_since
        if max_idle_time is not None and idle_for >= max_idle_time:
            self.log.info('Worker %s: idle for %d seconds, quitting', self.name, max_idle_time)
            return False
        if self._slots.ready:
            self._let_begin()
        seconds = 1.0 if max_idle_time is None else min(1.0, max_idle_time - idle_for)
        self._waiter.wait(seconds, self._welcome(max_jobs))
        return True

    def _welcome(self, max_jobs: int | None) -> int:
        """How many jobs may come without being asked for once more: few for each queue, or else a single one, as the
        order of the queues is not that in which they are waited for."""
        if self._stop_requested or self._is_quiet or self._recycles_for:
            return 0
        is_in_order = self._dequeue_strategy == DequeueStrategy.DEFAULT
        return min(self._wanted(max_jobs), len(self.queues) * (FEW if is_in_order else 1))

    def _end_waits(self) -> bool:
        """As for every worker; what came meanwhile has been claimed already, so it begins."""
        is_certain = super()._end_waits()
        self._take_arrived()
        return is_certain

    def _claim(self, count: int) -> list[Claimed] | None:
        """As for every worker, but for the order of the queues: a batch takes an equal share of each in round robin."""
        if self._dequeue_strategy == DequeueStrategy.ROUND_ROBIN:
            count = -(-count // len(self.queues))
        return super()._claim(count)

    def _note_claimed(self, claimed: list[Claimed]) -> None:
        super()._note_claimed(claimed)
        if self._dequeue_strategy != DequeueStrategy.DEFAULT:
            self.reorder_queues(self._queue_named(claimed[0].queue))

    def _dispatch(self, batch: list[Claimed]) -> None:
        """Hands a batch to the slots."""
        since, begun = time.monotonic(), now()
        ready = []
        for claimed in batch:
            execution = Execution.claimed(
                claimed.execution_id, claimed.job_id, self.connection, self.name, claimed.queue, begun
            )
            self.executions[execution.id] = execution
            ready.append(Ready(claimed, execution, since))
        self._slots.fill(ready)
        self._hub_watch.wake()

    # What was claimed and has not begun

    def _let_go_of_unbegun(self) -> None:
        try:
            self._end_waits()
            self._put_back_ready()
        except RedisError as error:
            self.log.error('Worker %s: Redis: %s; what was not begun is left to others', self.name, error)

    def _put_back_overdue(self) -> None:
        """Never hoard: what could not start in time is somebody else's to run."""
        ready = self._slots.ready
        waited = time.monotonic() - ready[0].since if ready else 0.0
        self._appetite.note_wait(waited)
        if waited > PUT_BACK_SECONDS:
            self._appetite.was_too_great()
            self._put_back_ready()

    def _put_back_ready(self) -> None:
        items = list(self._slots.ready)
        self._slots.ready.clear()
        for item in items:
            self.executions.pop(item.execution.id, None)
        self._unreturned += [triple(item.execution) for item in items]
        self._return_unbegun()

    def _in_hand(self) -> set[str]:
        return super()._in_hand() | {execution_id for _, execution_id, _ in self._unreturned}

    def _return_unbegun(self) -> None:
        """Gives back what never began. What Redis could not be told of is told again by the next call."""
        if self._unreturned:
            transitions.release(self._client, self.name, self._unreturned, interruption_limit=0)
            self._unreturned.clear()
