"""Repeat: what it accepts and which interval comes next."""

from __future__ import annotations

from typing import Any

import pytest

from greenq.repeat import Repeat


@pytest.mark.parametrize(('interval', 'intervals'), [(0, [0]), (5, [5]), ([5, 10], [5, 10]), (iter([3]), [3])])
def test_intervals_are_kept_as_a_list(interval: Any, intervals: list[int]) -> None:
    repeat = Repeat(times=2, interval=interval)
    assert (repeat.times, repeat.intervals) == (2, intervals)


def test_equal_values_are_equal_repeats() -> None:
    assert Repeat(2, 5) == Repeat(2, [5])
    assert Repeat(2, 5) != Repeat(3, 5)
    assert repr(Repeat(2)) == 'Repeat(times=2, intervals=[0])'


@pytest.mark.parametrize(('times', 'interval'), [(0, 5), (-1, 5), (1, -5), (3, [5, -10])])
def test_what_makes_no_sense_is_refused(times: int, interval: Any) -> None:
    with pytest.raises(ValueError, match=r'greater than 0|negative numbers are not allowed'):
        Repeat(times, interval)


@pytest.mark.parametrize('interval', [None, 'soon', object()])
def test_an_interval_that_is_no_number_is_a_type_error(interval: Any) -> None:
    with pytest.raises(TypeError, match=r'intervals must be an int or iterable of ints|not supported'):
        Repeat(1, interval)


def test_intervals_are_used_in_turn_and_the_last_one_stays() -> None:
    assert [Repeat.get_interval(count, [5, 10, 15]) for count in range(5)] == [5, 10, 15, 15, 15]
    with pytest.raises(IndexError):
        Repeat.get_interval(0, [])
