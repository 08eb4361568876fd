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


def test_its_traceback_tells_where_the_block_hung() -> None:
    def hang_here() -> None:
        gevent.sleep(5)

    with pytest.raises(JobTimeoutException) as raised, GeventDeathPenalty(0.02):
        hang_here()
    assert 'hang_here' in [entry.name for entry in raised.traceback]


def test_what_greenlets_of_a_late_block_pass_on_is_translated() -> None:
    """It may have been caught in one block, and be raised in another one."""
    caught = []
    with pytest.raises(JobTimeoutException), GeventDeathPenalty(0.02):
        try:
            gevent.sleep(5)
        except BaseException as error:
            caught.append(error)
            raise
    with pytest.raises(CallbackTimeoutError), GeventDeathPenalty(5, CallbackTimeoutError):
        raise caught[0]


def test_many_blocks_are_struck_in_the_order_of_their_deadlines() -> None:
    struck = []

    def late(number: int) -> None:
        block = GeventDeathPenalty(0.3 - number / 1000)
        try:
            with block:
                gevent.sleep(5)
        except JobTimeoutException:
            struck.append(block.deadline)

    greenlets = [gevent.spawn(late, number) for number in range(200)]
    others = [gevent.spawn(_in_time) for _ in range(200)]
    gevent.joinall([*greenlets, *others], timeout=5, raise_error=True)
    assert struck == sorted(struck)
    assert len(struck) == 200


def _in_time() -> None:
    with GeventDeathPenalty(0.2):
        gevent.sleep(0.01)


def test_a_block_that_was_given_up_ends_as_it_was_told() -> None:
    blocks: list[GeventDeathPenalty] = []

    def stuck() -> str:
        try:
            with GeventDeathPenalty(0.02):
                for _ in range(4):
                    try:
                        gevent.sleep(0.1)
                    except BaseException as error:
                        assert isinstance(error, deadlines.Overdue)
                        blocks.append(error.block)
        except KeyError:
            return 'as told'
        return 'its own way'

    greenlet = gevent.spawn(stuck)
    gevent.sleep(0.15)
    assert GeventDeathPenalty.stuck(0.05) == blocks
    assert not GeventDeathPenalty.stuck(5)
    blocks[0].give_up(KeyError())
    assert not GeventDeathPenalty.stuck(0)
    assert greenlet.get(timeout=5) == 'as told'
