"""The greenlets that execute jobs: how a claimed job gets one, and when the others have a turn. What executing is, it
does not know."""

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gevent import get_hub
from gevent.event import Event
from greenlet import getcurrent, greenlet

from greenq.executions import Execution
from greenq.store.transitions import Claimed
from greenq.worker.switches import Switches

#: Slots whose jobs never wait let the hub look at connections and timers this often (s).
TURN_SECONDS = 0.005


class Ready(NamedTuple):
    """A claimed job that waits for a slot."""

    claimed: Claimed
    execution: Execution
    since: float


class Slots:
    """Up to `concurrency` greenlets, made when first needed; each calls `execute` for one job after the other, which
    must not raise. `switches` is told what they execute."""

    def __init__(self, concurrency: int, execute: Callable[[Ready], None], switches: Switches | None = None):
        self._concurrency = concurrency
        self._execute = execute
        self._switches = switches
        self._slots: set[greenlet] = set()
        self._idle: list[greenlet] = []
        #: Whether a slot was woken that has not begun yet.
        self._is_rousing = False
        #: The slots execute on until then; whether one of them waits until the hub has run.
        self._turn_ends = 0.0
        self._is_turning = False
        self.ready: deque[Ready] = deque()
        #: execution id -> the slot that executes it
        self.running: dict[str, greenlet] = {}
        self.started_count = 0
        self.ended_count = 0
        #: Set whenever a job has ended.
        self.freed = Event()
        self.idle_since = time.monotonic()

    def __len__(self) -> int:
        """Jobs in hand: those that run, and those that wait for a slot."""
        return len(self.running) + len(self.ready)

    @property
    def running_count(self) -> int:
        """Jobs that run."""
        return len(self.running)

    @property
    def ready_count(self) -> int:
        """Jobs that wait for a slot."""
        return len(self.ready)

    def take_ready(self, execution_id: str) -> Ready | None:
        """Takes an execution that waits for a slot out of its line; None if it is not there."""
        for item in self.ready:
            if item.execution.id == execution_id:
                self.ready.remove(item)
                return item
        return None

    def fill(self, items: Iterable[Ready]) -> None:
        """Hands jobs over to idle slots; missing ones are made."""
        self.ready.extend(items)
        # Who hands them over was called by the hub just now.
        self._turn_ends = time.monotonic() + TURN_SECONDS
        self._rouse()

    def _rouse(self) -> None:
        """Wakes or makes one slot, if a job waits for one. It wakes the next one in its turn: if all were woken at
        once, whatever else became ready meanwhile would have to wait for them."""
        if self._is_rousing or not self.ready:
            return
        if self._idle:
            slot = self._idle.pop()
        elif len(self._slots) < self._concurrency:
            slot = greenlet(self._serve, parent=get_hub())
            self._slots.add(slot)
        else:
            return
        self._is_rousing = True
        get_hub().loop.run_callback(slot.switch)

    def slot_of(self, execution_id: str) -> greenlet | None:
        """The slot that executes this; None if none does."""
        return self.running.get(execution_id)

    def executed_by(self, slot: greenlet) -> str:
        """What a slot executes; '' for nothing, or if it is no slot."""
        return next((execution_id for execution_id, other in self.running.items() if other is slot), '')

    def give_up(self, execution_id: str) -> None:
        """Its job will not end: another slot takes its place, and should it end after all, it ends for good."""
        slot = self.running.pop(execution_id, None)
        if slot is not None:
            self._slots.discard(slot)
            self.ended_count += 1
            self.freed.set()
            self._rouse()

    def _serve(self) -> None:
        """A slot: executes ready jobs one after the other, each in a context of its own; sleeps when there is none."""
        me = getcurrent()
        hub = get_hub()
        switches = self._switches
        self._is_rousing = False
        while True:
            while self.ready:
                if time.monotonic() >= self._turn_ends:
                    if self._is_turning:
                        # One that waits for its turn is enough: it wakes the others.
                        break
                    self._let_hub_run(me, hub)
                    continue
                item = self.ready.popleft()
                execution_id = item.execution.id
                self.running[execution_id] = me
                self.started_count += 1
                self._rouse()
                if switches is not None:
                    switches.begin(me, execution_id)
                contextvars.copy_context().run(self._execute, item)
                if self.running.pop(execution_id, None) is None:
                    if switches is not None:
                        switches.forget(me)
                    return
                self.ended_count += 1
                if not self.freed.is_set():
                    self.freed.set()
            self.idle_since = time.monotonic()
            if switches is not None:
                switches.rest(me)
            self._idle.append(me)
            hub.switch()
            self._is_rousing = False

    def _let_hub_run(self, me: greenlet, hub: Any) -> None:
        self._is_turning = True
        # A timer, as callbacks run without a look at anything else.
        with hub.loop.timer(0.0) as timer:
            timer.start(me.switch)
            hub.switch()
        self._is_turning = False
        self._turn_ends = time.monotonic() + TURN_SECONDS
