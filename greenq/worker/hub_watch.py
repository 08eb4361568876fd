"""Notices from within that the hub is kept from running, strikes what does it if that is overdue, and names it.

While jobs run, the hub renews a SIGALRM before it comes. So it comes only when the hub does not, into the very code
that is to blame: Python code at once, C code as soon as it returns. Nothing here logs or knows Redis: a handler runs
between any two instructions.

A job that sets a handler for SIGALRM has the signal, and its timer, for itself until it puts the earlier handler back;
meanwhile deadlines are noticed by the hub only.
"""

import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

from gevent import get_hub
from greenlet import getcurrent, greenlet

from greenq.defaults import DEADLINE_GRACE_SECONDS
from greenq.pulse import Pulse
from greenq.timeouts import is_packing
from greenq.worker.deadlines import REMIND_SECONDS, TICK_SECONDS, GeventDeathPenalty, Overdue

#: The alarm comes so long (s) after the last sign of life, and then at every tick that is missed.
ALARM_SECONDS = 0.3
#: Code where an exception may do lasting harm is given so many alarms to get out of it.
PATIENCE = 5
#: A block that swallows its deadline is given up so long (s) past it.
GIVE_UP_SECONDS = 2 * DEADLINE_GRACE_SECONDS
#: Frames of a stack that are kept, the innermost ones.
KEEP_FRAMES = 50

#: Modules that must run undisturbed, however deep in the stack they are.
_OWN = frozenset({'greenq.pulse', 'greenq.worker.deadlines', 'greenq.worker.switches', __name__})
#: Packages that keep locks or connections, whose innermost frames are given time.
_DELICATE = frozenset({'gevent', 'importlib', 'logging', 'queue', 'redis', 'threading', '_frozen_importlib'})
#: Packages in which somebody who is never to run again would be waited for by all others.
_LOCKING = frozenset({'importlib', 'logging', 'queue', 'redis', '_frozen_importlib'})

#: Greenlets that will never run again; whoever let go of one would have it run by throwing GreenletExit at it.
_parked: list[greenlet] = []

_Frame = tuple[str, int, str]


class Blockage(NamedTuple):
    """The hub was kept from running: for how long at least (s), and how much of that was computing."""

    seconds: float
    computing: float
    #: What `find` said of the greenlet in question.
    found: Any
    #: (file, line, function) of the code, outermost first; empty if it could not be seen.
    stack: list[_Frame]


class _Sighting:
    """A greenlet that was found running when the hub should have been, from one alarm to a later one or more."""

    def __init__(self, target: greenlet, found: Any, since: float, computed: float):
        self.target = target
        self.found = found
        self.since = self.until = since
        self.computed_before = self.computed = computed
        self.stack: list[_Frame] = []
        #: How often it was let be because of where it was.
        self.spared_count = 0

    def go_on(self) -> None:
        self.until, self.computed = time.monotonic(), time.thread_time()

    def as_blockage(self) -> Blockage:
        # Since the alarm before something else may have run, for a while.
        seconds = self.until - self.since - TICK_SECONDS
        return Blockage(seconds, min(self.computed - self.computed_before, seconds), self.found, self.stack)


class HubWatch:
    """Responsible for the signs of life of one hub, and for what keeps it from giving them.

    `find`: for a greenlet, the one whose blocks count for it (itself, or the slot of the job that started it) and
    whatever the caller wants to know of it. `jobs`: how many jobs are in hand. `interruption`: what is raised in code
    that has to make way. `block_warning`: what counts as a blockage (s); 0 is none.
    """

    def __init__(
        self,
        pulse: Pulse,
        find: Callable[[greenlet], tuple[greenlet, Any]],
        jobs: Callable[[], int],
        interruption: type[BaseException],
        block_warning: float,
    ):
        self._pulse = pulse
        self._find = find
        self._jobs = jobs
        self._interruption = interruption
        self._block_warning = block_warning
        #: From when on (monotonic) code that keeps the hub from running has to make way, in time or not.
        self.interrupts_at = math.inf
        self._blockages: list[Blockage] = []
        self._hub = get_hub()
        self._timer: Any = self._hub.loop.timer(TICK_SECONDS, TICK_SECONDS)
        self._is_ticking = False
        self._ticked_at = self._computed = 0.0
        #: Since the last sign of life: one after the other.
        self._sightings: list[_Sighting] = []
        self._earlier_handler: Any = None
        self._earlier_continued: Any = None
        #: None while it does not have the signals.
        self._earlier_alarm: _Alarm | None = None

    def start(self) -> None:
        """Takes its signals, if this is the main thread."""
        with suppress(ValueError):
            self._earlier_handler = signal.signal(signal.SIGALRM, self._on_alarm)
            self._earlier_continued = signal.signal(signal.SIGCONT, self._on_continued)
            self._earlier_alarm = _Alarm()
        self.beat()

    def stop(self) -> None:
        """Gives its signals back."""
        self._timer.stop()
        self._timer.close()
        self._is_ticking = False
        if self._earlier_alarm is None:
            return
        self._disarm()
        # None stands for a handler that was not set from Python, and cannot be put back from here.
        if self._is_mine():
            signal.signal(signal.SIGALRM, self._earlier_handler or signal.SIG_DFL)
            self._earlier_alarm.put_back()
        if signal.getsignal(signal.SIGCONT) == self._on_continued:
            signal.signal(signal.SIGCONT, self._earlier_continued or signal.SIG_DFL)
        self._earlier_alarm = None

    def wake(self) -> None:
        """There are jobs in hand: watches closely until there are none."""
        self._pulse.jobs = self._jobs()
        if not self._is_ticking:
            self._is_ticking = True
            self._note_life()
            self._timer.start(self._tick, update=True)
            self._arm()

    def beat(self) -> None:
        """The hub lives: to be called about once a second while there are no jobs."""
        self._pulse.jobs = self._jobs()
        self._pulse.beat()

    def take_blockages(self) -> list[Blockage]:
        """What was noticed since the last call."""
        blockages, self._blockages = self._blockages, []
        return blockages

    def _tick(self) -> None:
        if self._sightings:
            self._sightings[-1].go_on()
            if self._block_warning:
                noticed = [sighting.as_blockage() for sighting in self._sightings]
                self._blockages += [blockage for blockage in noticed if blockage.seconds >= self._block_warning]
        self._note_life()
        self.beat()
        if self._pulse.jobs:
            self._arm()
        else:
            self._is_ticking = False
            self._timer.stop()
            self._disarm()

    def _note_life(self) -> None:
        self._ticked_at, self._computed = time.monotonic(), time.thread_time()
        self._sightings = []

    # The alarm

    def _is_mine(self) -> bool:
        return signal.getsignal(signal.SIGALRM) == self._on_alarm

    def _arm(self) -> None:
        if self._earlier_alarm is None:
            return
        if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
            # A job has used it, and not put back what it found.
            signal.signal(signal.SIGALRM, self._on_alarm)
        if self._is_mine():
            signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS, TICK_SECONDS)
        else:
            # A job uses the signal itself: it must get what it has asked for, and nothing else.
            self._disarm()

    def _disarm(self) -> None:
        _, interval = signal.getitimer(signal.ITIMER_REAL)
        if self._is_mine() or math.isclose(interval, TICK_SECONDS):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        current = getcurrent()
        if current is self._hub or frame is None:
            return
        frames = _frames(frame)
        if not _OWN.isdisjoint(frames):
            return
        target, found = self._find(current)
        sighting = self._sight(current, found)
        sighting.stack = _stack(frame)
        if _package(frames[0]) in _DELICATE and (sighting.spared_count < PATIENCE or is_packing(frame)):
            sighting.spared_count += 1
            return
        block = GeventDeathPenalty.overdue_block(target)
        present = time.monotonic()
        if block is not None:
            if present < block.deadline + GIVE_UP_SECONDS or not _LOCKING.isdisjoint(map(_package, frames)):
                raise Overdue(block)
            self._park(current)
        if present >= self.interrupts_at and GeventDeathPenalty.is_in_block(target):
            self.interrupts_at = present + REMIND_SECONDS
            raise self._interruption

    def _on_continued(self, signum: int, frame: FrameType | None) -> None:
        """The whole process was stopped for a while: no job is to blame for that."""
        self._note_life()

    def _sight(self, current: greenlet, found: Any) -> _Sighting:
        last = self._sightings[-1] if self._sightings else None
        if last is None or last.target is not current or last.found is not found:
            since, computed = (last.until, last.computed) if last else (self._ticked_at, self._computed)
            last = _Sighting(current, found, since, computed)
            self._sightings.append(last)
        last.go_on()
        return last

    def _park(self, current: greenlet) -> None:
        """It swallows whatever is raised and leaves nobody else a turn: it gets none any more."""
        _parked.append(current)
        while True:
            self._hub.switch()


class _Alarm:
    """The alarm that was set when this was made, which stops it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds, self._interval = signal.setitimer(signal.ITIMER_REAL, 0)

    def put_back(self) -> None:
        if self._seconds:
            left = self._seconds - (time.monotonic() - self._began)
            # Zero would leave it stopped.
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), self._interval)


def _package(module: str) -> str:
    return module.partition('.')[0]


def _frames(frame: FrameType | None) -> list[str]:
    """Names of the modules whose code is on the stack, innermost first."""
    names = []
    while frame is not None:
        names.append(str(frame.f_globals.get('__name__', '')))
        frame = frame.f_back
    return names


def _stack(frame: FrameType | None) -> list[_Frame]:
    stack: list[_Frame] = []
    while frame is not None and len(stack) < KEEP_FRAMES:
        stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    stack.reverse()
    return stack
