"""Death penalties: they strike in time, only inside their block, and leave nothing armed behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from types import FrameType

import pytest

from greenq.timeouts import (
    BaseDeathPenalty,
    BaseTimeoutException,
    HorseMonitorTimeoutException,
    JobTimeoutException,
    TimerDeathPenalty,
    UnixSignalDeathPenalty,
    get_default_death_penalty_class,
)
from tests.helpers import ROOT

PENALTIES = [UnixSignalDeathPenalty, TimerDeathPenalty]


def spin(seconds: float) -> None:
    """Run Python code, and give other threads a chance, for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0)


@pytest.mark.parametrize('penalty', PENALTIES)
def test_too_long_a_block_is_interrupted_with_a_message(penalty: type[BaseDeathPenalty]) -> None:
    started = time.monotonic()
    with pytest.raises(JobTimeoutException, match=r'exceeded maximum timeout value \(0.05 seconds\)'), penalty(0.05):
        spin(20)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize('penalty', PENALTIES)
def test_the_exception_can_be_chosen_and_keeps_its_constructor(penalty: type[BaseDeathPenalty]) -> None:
    with pytest.raises(HorseMonitorTimeoutException), penalty(0.02, HorseMonitorTimeoutException, job_id='a'):
        spin(20)
    assert str(HorseMonitorTimeoutException('mine')) == 'mine'


@pytest.mark.parametrize('penalty', PENALTIES)
def test_a_block_in_time_is_left_alone_also_afterwards(penalty: type[BaseDeathPenalty]) -> None:
    with penalty(0.05):
        pass
    spin(0.15)


@pytest.mark.parametrize('penalty', PENALTIES)
def test_what_the_block_raises_passes(penalty: type[BaseDeathPenalty]) -> None:
    with pytest.raises(KeyError, match='mine'), penalty(30):
        raise KeyError('mine')


@pytest.mark.parametrize('penalty', PENALTIES)
@pytest.mark.parametrize('timeout', [None, 0, -1])
def test_no_timeout_arms_nothing(penalty: type[BaseDeathPenalty], timeout: int | None) -> None:
    threads = threading.active_count()
    with penalty(timeout):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        assert threading.active_count() == threads


@pytest.mark.parametrize('penalty', PENALTIES)
def test_a_deadline_that_falls_on_the_end_of_its_block_never_strikes_later(penalty: type[BaseDeathPenalty]) -> None:
    outcomes = []
    for _ in range(300):
        try:
            with penalty(0.001):
                spin(0.001)
        except JobTimeoutException:
            outcomes.append('timeout')
        else:
            outcomes.append('done')
        spin(0.0002)
    assert len(outcomes) == 300


def test_a_signal_penalty_restores_the_handler_and_the_timer_it_found() -> None:
    struck: list[int] = []

    def mine(signum: int, frame: FrameType | None) -> None:
        struck.append(signum)

    previous = signal.signal(signal.SIGALRM, mine)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with UnixSignalDeathPenalty(30):
            spin(0.01)
        assert signal.getsignal(signal.SIGALRM) is mine
        end = time.monotonic() + 10
        while not struck and time.monotonic() < end:
            time.sleep(0.01)
        assert struck == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_signal_penalties_nest() -> None:
    reached = []
    with pytest.raises(HorseMonitorTimeoutException), UnixSignalDeathPenalty(0.3, HorseMonitorTimeoutException):
        with pytest.raises(JobTimeoutException), UnixSignalDeathPenalty(0.05):
            spin(20)
        reached.append('inner')
        spin(20)
    assert reached == ['inner']


def test_the_timer_works_in_any_thread_and_strikes_only_there() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with TimerDeathPenalty(0.05):
                spin(20)
        except BaseTimeoutException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in caught] == [JobTimeoutException]


def test_a_penalty_must_say_how() -> None:
    with pytest.raises(NotImplementedError, match='setup_death_penalty'), BaseDeathPenalty(1):
        pass


def test_unix_gets_signals_by_default() -> None:
    assert get_default_death_penalty_class() is UnixSignalDeathPenalty


PACKING = """
import random
from redis.connection import HiredisRespSerializer
from greenq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

serializer, strikes = HiredisRespSerializer(), 0
for _ in range(500):
    try:
        with UnixSignalDeathPenalty(random.uniform(100e-6, 1e-3)):
            while True:
                serializer.pack('RPUSH', 'rq:numbers', *range(50))
    except JobTimeoutException:
        strikes += 1
print(strikes)
"""


def test_a_job_that_sends_numbers_to_redis_survives_its_deadline() -> None:
    """Hiredis crashes the process if it is interrupted while it packs one."""
    done = subprocess.run([sys.executable, '-c', PACKING], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, '500')
