"""What keeps the hub from running is noticed, named and, past its deadline, broken; nothing else is touched."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from greenlet import getcurrent, gettrace, greenlet, settrace
from redis.connection import HiredisRespSerializer

from greenq.pulse import Pulse
from greenq.timeouts import JobTimeoutException
from greenq.worker import deadlines, hub_watch
from greenq.worker.attempts import Interrupted
from greenq.worker.deadlines import GeventDeathPenalty
from greenq.worker.hub_watch import HubWatch
from greenq.worker.switches import Switches
from tests.worker.hard_jobs import match_for_ever, sleep_in_c, spin, spin_for, use_alarm

#: Seconds by which a machine with much else to do may be late.
SLACK = 1.0


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    pulse = Pulse()
    yield pulse
    GeventDeathPenalty.publish_soonest(None)
    pulse.close()


@pytest.fixture
def new_watch(pulse: Pulse) -> Iterator[Callable[..., HubWatch]]:
    """Makes watches, which watch at once, and end with the test."""
    watches = []

    def make(find: Any = lambda target: (target, None), jobs: int = 1, block_warning: float = 0.3) -> HubWatch:
        watch = HubWatch(pulse, find, lambda: jobs, Interrupted, block_warning)
        watch.start()
        watch.wake()
        watches.append(watch)
        return watch

    yield make
    for watch in watches:
        watch.stop()


@pytest.fixture
def watch(new_watch: Callable[..., HubWatch]) -> HubWatch:
    return new_watch()


class Alarms:
    """Counts the signals that reach this process, whatever becomes of them."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe2(os.O_NONBLOCK)
        self._writer = writer
        self._earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def count(self) -> int:
        try:
            return len(os.read(self._reader, 1 << 16))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        signal.set_wakeup_fd(self._earlier)
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    alarms = Alarms()
    yield alarms
    alarms.close()


@pytest.mark.parametrize('block', [spin, match_for_ever, lambda: spin_for(60)])
def test_code_that_never_waits_is_broken(watch: HubWatch, block: Callable[[], Any]) -> None:
    began = time.monotonic()
    with pytest.raises(JobTimeoutException, match=r'maximum timeout value \(0.4 seconds\)'), GeventDeathPenalty(0.4):
        block()
    assert 0.4 <= time.monotonic() - began < 1.4 + SLACK


def test_no_alarm_while_the_hub_lives(watch: HubWatch, alarms: Alarms) -> None:
    longest = 0.0
    with GeventDeathPenalty(5):
        for _ in range(20):
            began = time.monotonic()
            spin_for(0.03)
            gevent.sleep(0.02)
            longest = max(longest, time.monotonic() - began)
    # On a machine with too much to do the hub may have been late indeed.
    assert alarms.count() == 0 or longest > 0.15
    with GeventDeathPenalty(5):
        spin_for(0.5)
    assert alarms.count() > 0


@pytest.mark.slow
def test_nobody_but_the_overdue_is_hit(watch: HubWatch) -> None:
    def run(timeout: float, function: Callable[[], Any]) -> str:
        try:
            with GeventDeathPenalty(timeout):
                function()
        except JobTimeoutException:
            return 'late'
        return 'in time'

    greenlets = [
        gevent.spawn(run, 0.4, spin),
        gevent.spawn(run, 5, lambda: spin_for(0.5)),
        gevent.spawn(run, 0.4, lambda: gevent.sleep(0.05)),
        gevent.spawn(run, 5, lambda: gevent.sleep(1)),
        gevent.spawn(run, 0.4, lambda: gevent.sleep(5)),
    ]
    found = [each.get(timeout=10) for each in greenlets]
    # The third is over in time, but nobody could let it know.
    assert found[:2] == ['late', 'in time'] and found[3:] == ['in time', 'late']


def test_bookkeeping_is_not_hit(watch: HubWatch) -> None:
    with GeventDeathPenalty(0.1):
        pass
    spin_for(0.6)


def test_who_swallows_it_is_reminded(watch: HubWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, 'REMIND_SECONDS', 0.2)
    swallowed = []
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.1):
        while True:
            try:
                spin_for(60)
            except BaseException as error:
                swallowed.append(error)
                if len(swallowed) == 3:
                    raise
    assert len(swallowed) == 3


def test_greenlets_of_a_job_are_hit_for_it(new_watch: Callable[..., HubWatch]) -> None:
    slot = getcurrent()
    new_watch(find=lambda target: (slot, None))
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.3):
        gevent.spawn(spin).get()


def test_who_has_to_make_way_is_interrupted_though_in_time(watch: HubWatch) -> None:
    watch.interrupts_at = time.monotonic() + 0.4
    began = time.monotonic()
    with pytest.raises(Interrupted), GeventDeathPenalty(None):
        spin()
    assert time.monotonic() - began < 1 + SLACK


def test_who_listens_to_nothing_gets_no_turn_any_more(watch: HubWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, 'REMIND_SECONDS', 0.1)
    monkeypatch.setattr(hub_watch, 'GIVE_UP_SECONDS', 0.4)
    counts = [0]

    def swallow() -> None:
        while True:
            try:
                while True:
                    counts[0] += 1
                    abs(counts[0])
            except BaseException:
                pass

    def late() -> None:
        with GeventDeathPenalty(0.2):
            swallow()

    hopeless = greenlet(late, parent=gevent.get_hub())
    gevent.get_hub().loop.run_callback(hopeless.switch)
    began = time.monotonic()
    gevent.sleep(0.05)
    assert 0.6 <= time.monotonic() - began < 2 + SLACK
    [block] = GeventDeathPenalty.stuck(0.4)
    block.give_up(Interrupted())
    counted = counts[0]
    gevent.sleep(0.3)
    assert counts[0] == counted
    assert not GeventDeathPenalty.stuck(0)


@pytest.mark.slow
def test_blame(new_watch: Callable[..., HubWatch], pulse: Pulse) -> None:
    watch = new_watch(find=lambda target: (target, 'culprit' if target is getcurrent() else ''))
    gevent.sleep(0.15)

    spin_for(0.6)
    gevent.sleep(0.15)
    sleep_in_c(0.6)
    gevent.sleep(0.15)
    spin_for(0.2)
    gevent.sleep(0.15)

    spun, slept = watch.take_blockages()
    assert [spun.found, slept.found] == ['culprit'] * 2
    assert 0.4 <= spun.seconds <= 0.9 + SLACK and 0.4 <= slept.seconds <= 0.9 + SLACK
    assert spun.computing > slept.computing
    assert (spun.stack[-1][2], slept.stack[-1][2]) == ('spin_for', 'sleep_in_c')
    assert spun.stack[-2][::2] == (__file__, 'test_blame')
    assert watch.take_blockages() == []


def test_no_blame_for_a_stop_of_the_whole_process(watch: HubWatch) -> None:
    starter = subprocess.Popen(['sh', '-c', f'kill -STOP {os.getpid()}; sleep 1; kill -CONT {os.getpid()}'])
    until = time.monotonic() + 1.2
    with GeventDeathPenalty(5):
        while time.monotonic() < until:
            gevent.sleep(0.01)
    starter.wait()
    assert watch.take_blockages() == []


def test_no_blame_if_none_is_wanted(new_watch: Callable[..., HubWatch]) -> None:
    watch = new_watch(block_warning=0)
    spin_for(0.6)
    gevent.sleep(0.15)
    assert watch.take_blockages() == []


def test_signs_of_life(pulse: Pulse) -> None:
    counts = [3]
    watch = HubWatch(pulse, lambda target: (target, None), lambda: counts[0], Interrupted, 0)
    watch.start()
    assert pulse.has_begun and pulse.silence < 1
    watch.wake()
    assert pulse.jobs == 3
    for _ in range(3):
        gevent.sleep(0.15)
        assert pulse.silence < 0.15
    counts[0] = 0
    gevent.sleep(0.15)
    assert pulse.jobs == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    watch.stop()


def test_the_earliest_deadline_is_published(pulse: Pulse) -> None:
    GeventDeathPenalty.publish_soonest(pulse)
    present = time.monotonic()
    with GeventDeathPenalty(50):
        assert pulse.soonest == pytest.approx(present + 50, abs=1)
        with GeventDeathPenalty(20):
            assert pulse.soonest == pytest.approx(present + 20, abs=1)
            with GeventDeathPenalty(40):
                pass
            assert pulse.soonest == pytest.approx(present + 20, abs=1)
        assert pulse.soonest == pytest.approx(present + 50, abs=1)
    assert pulse.soonest == float('inf')


def test_the_signal_is_given_back(new_watch: Callable[..., HubWatch]) -> None:
    def handler(signum: int, frame: Any) -> None:
        pass

    earlier = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 60)
    watch = new_watch()
    assert signal.getsignal(signal.SIGALRM) != handler
    watch.stop()
    assert signal.getsignal(signal.SIGALRM) == handler
    assert 50 < signal.setitimer(signal.ITIMER_REAL, 0)[0] <= 60
    signal.signal(signal.SIGALRM, earlier)


def test_a_job_may_use_the_signal_itself(watch: HubWatch) -> None:
    gevent.sleep(0.05)
    with GeventDeathPenalty(5):
        assert use_alarm() == [pytest.approx(0.5, abs=0.4)]
    gevent.sleep(0.15)
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.3):
        spin()


@pytest.mark.parametrize('seed', range(3))
def test_deadlines_around_the_end_of_a_block(
    new_watch: Callable[..., HubWatch], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Each block either ends in time or raises what it was asked for, and what follows it is not touched."""
    monkeypatch.setattr(hub_watch, 'ALARM_SECONDS', 0.0002)
    monkeypatch.setattr(hub_watch, 'TICK_SECONDS', 0.0002)
    new_watch(block_warning=0)
    dice = random.Random(seed)
    outcomes = {'late': 0, 'in time': 0}

    def execute() -> str:
        try:
            with GeventDeathPenalty(dice.uniform(0.000001, 0.0004)), GeventDeathPenalty(dice.choice([None, 1])):
                if dice.random() < 0.02:
                    gevent.sleep(0)
                spin_for(dice.uniform(0, 0.00002))
                return 'in time'
        except JobTimeoutException:
            return 'late'

    give_up_at = time.monotonic() + 20

    def slot() -> None:
        # How many come late depends on the machine: until there are enough of both.
        while (min(outcomes.values()) < 100 or sum(outcomes.values()) < 16000) and time.monotonic() < give_up_at:
            outcomes[execute()] += 1
            assert not GeventDeathPenalty.is_in_block(getcurrent())

    slots = [gevent.spawn(slot) for _ in range(4)]
    gevent.joinall(slots, timeout=30, raise_error=True)

    assert min(outcomes.values()) >= 100
    assert not GeventDeathPenalty.stuck(-1)


def test_an_entry_of_a_watch_does_not_outlive_its_block_for_long() -> None:
    with GeventDeathPenalty(180):
        for _ in range(5000):
            with GeventDeathPenalty(200):
                pass
        [kept] = [len(watch) for hub, watch in GeventDeathPenalty._watches.items() if hub is gevent.get_hub()]
    assert kept < 300


# Whose code runs


@pytest.fixture
def switches(pulse: Pulse) -> Iterator[Switches]:
    switches = Switches(pulse, lambda target: getattr(target, 'works_for', ''))
    switches.start()
    yield switches
    switches.stop()


def test_the_pulse_names_whose_code_runs(switches: Switches, pulse: Pulse) -> None:
    seen: dict[str, list[str]] = {}

    def slot(name: str) -> None:
        switches.begin(getcurrent(), name)
        seen[name] = [pulse.current]
        for _ in range(3):
            gevent.sleep(0)
            seen[name].append(pulse.current)
        switches.rest(getcurrent())
        gevent.sleep(0)
        seen[name].append(pulse.current)
        switches.forget(getcurrent())

    def helper() -> None:
        seen['helper'] = [pulse.current]

    others = [gevent.spawn(slot, name) for name in 'ab']
    third = gevent.Greenlet(helper)
    third.works_for = 'a'
    third.start()
    gevent.joinall([*others, third], raise_error=True)

    assert seen == {'a': ['a'] * 4 + [''], 'b': ['b'] * 4 + [''], 'helper': ['a']}
    assert pulse.current == ''


def test_who_followed_the_switches_before_still_does(pulse: Pulse) -> None:
    events: list[str] = []

    def tracer(event: str, args: Any) -> None:
        events.append(event)

    settrace(tracer)
    try:
        switches = Switches(pulse, lambda target: '')
        switches.start()
        gevent.sleep(0)
        switches.stop()
        assert gettrace() == tracer
    finally:
        settrace(None)
    assert 'switch' in events


def test_delicate_code_is_given_time(watch: HubWatch) -> None:
    """Such as the connection that all jobs share; only for a moment, because it may be what does not end."""
    namespace: dict[str, Any] = {'__name__': 'redis.made_up', 're': re, 'spin': spin}
    exec(compile('def read(until):\n    while True:\n        pass', 'redis/made_up.py', 'exec'), namespace)
    began = time.monotonic()
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.1):
        namespace['read'](None)
    assert 0.5 < time.monotonic() - began < 1.2 + SLACK


def test_a_job_that_packs_numbers_for_ever(watch: HubWatch) -> None:
    """Hiredis crashes the process if it is interrupted in the middle of that."""
    serializer: Any = HiredisRespSerializer()
    numbers = range(3000)
    for _ in range(5):
        with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.05):
            while True:
                serializer.pack('RPUSH', 'numbers', *numbers)


def test_a_job_that_does_not_put_the_handler_back(watch: HubWatch) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    gevent.sleep(0.2)
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.3):
        spin()
