"""Deadlines of greenlets: they strike in their block and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from greenlet import getcurrent

from greenq.timeouts import JobTimeoutException
from greenq.worker import deadlines
from greenq.worker.deadlines import GeventDeathPenalty


class CallbackTimeoutError(Exception):
    pass


def test_a_block_that_is_late() -> None:
    with pytest.raises(JobTimeoutException, match=r'maximum timeout value \(0.05 seconds\)'), GeventDeathPenalty(0.05):
        gevent.sleep(5)


def test_a_block_in_time() -> None:
    with GeventDeathPenalty(0.02):
        gevent.sleep(0)
    gevent.sleep(0.05)


@pytest.mark.parametrize('timeout', [None, 0, -1])
def test_no_limit(timeout: float | None) -> None:
    with GeventDeathPenalty(timeout):
        gevent.sleep(0.01)


def test_except_exception_does_not_swallow_it() -> None:
    rounds = 0
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.05):
        while True:
            try:
                gevent.sleep(5)
            except Exception:
                rounds += 1
    assert rounds == 0


def test_who_swallows_everything_is_reminded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, 'REMIND_SECONDS', 0.05)
    swallowed = []
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.05):
        while True:
            try:
                gevent.sleep(5)
            except BaseException as error:
                swallowed.append(error)
                if len(swallowed) == 3:
                    raise
    assert len(swallowed) == 3


def test_nested_blocks_raise_what_each_asked_for() -> None:
    with GeventDeathPenalty(5):
        with pytest.raises(CallbackTimeoutError), GeventDeathPenalty(0.02, CallbackTimeoutError):
            gevent.sleep(5)
        gevent.sleep(0.01)
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.02), GeventDeathPenalty(5, CallbackTimeoutError):
        gevent.sleep(5)


def test_a_neighbour_is_not_hit() -> None:
    def late() -> str:
        try:
            with GeventDeathPenalty(0.02):
                gevent.sleep(5)
        except JobTimeoutException:
            return 'late'
        return 'in time'

    def unhurried() -> str:
        with GeventDeathPenalty(5):
            gevent.sleep(0.06)
        return 'in time'

    greenlets = [gevent.spawn(function) for function in (late, unhurried, late)]
    assert [greenlet.get(timeout=5) for greenlet in greenlets] == ['late', 'in time', 'late']


def test_an_interruption_waits_for_a_block() -> None:
    """Outside of blocks is the worker's own bookkeeping, which nothing may hit."""
    story = []

    def slot() -> None:
        me.append(getcurrent())
        gevent.sleep(0.05)
        story.append('bookkeeping done')
        try:
            with GeventDeathPenalty(None):
                story.append('never here')
        except KeyError:
            story.append('interrupted')

    me: list[Any] = []
    greenlet = gevent.spawn(slot)
    gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(GeventDeathPenalty.interrupt, me[0], KeyError())
    greenlet.get(timeout=5)
    assert story == ['bookkeeping done', 'interrupted']


def test_an_interruption_inside_a_block_is_at_once() -> None:
    def slot() -> float:
        started = time.monotonic()
        try:
            with GeventDeathPenalty(None):
                gevent.sleep(5)
        except KeyError:
            pass
        return time.monotonic() - started

    greenlet = gevent.spawn(slot)
    gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(GeventDeathPenalty.interrupt, greenlet, KeyError())
    assert greenlet.get(timeout=5) < 1


def test_an_announced_interruption_can_be_taken_back() -> None:
    GeventDeathPenalty.interrupt(getcurrent(), KeyError())
    GeventDeathPenalty.forget(getcurrent())
    with GeventDeathPenalty(1):
        pass
