"""Retry: what it accepts and which interval comes next."""

from __future__ import annotations

from typing import Any

import pytest

from greenq.retry import Retry


@pytest.mark.parametrize(
    ('interval', 'intervals'),
    [(0, [0]), (5, [5]), ([5, 10], [5, 10]), ((1, 2), [1, 2]), (iter([3, 4]), [3, 4]), (1.5, [1.5])],
)
def test_intervals_are_kept_as_a_list(interval: Any, intervals: list[int]) -> None:
    assert Retry(2, interval).intervals == intervals


def test_the_defaults_are_at_once_and_at_the_back() -> None:
    retry = Retry(max=1)
    assert vars(retry) == {'max': 1, 'intervals': [0], 'enqueue_at_front': False}


@pytest.mark.parametrize(('maximum', 'interval'), [(0, 0), (-1, 0), (1, -5), (1, [1, -5]), (1, iter([1, -5]))])
def test_what_makes_no_sense_is_refused(maximum: int, interval: Any) -> None:
    with pytest.raises(ValueError, match=r'greater than 0|negative numbers are not allowed'):
        Retry(maximum, interval)


@pytest.mark.parametrize('interval', [None, 'soon', object()])
def test_an_interval_that_is_no_number_is_a_type_error(interval: Any) -> None:
    with pytest.raises(TypeError):
        Retry(1, interval)


def test_repr_shows_how_to_make_it() -> None:
    assert repr(Retry(1)) == 'Retry(max=1, interval=0, enqueue_at_front=False)'
    assert repr(Retry(3, [5, 10], True)) == 'Retry(max=3, interval=[5, 10], enqueue_at_front=True)'


def test_intervals_are_used_in_turn_and_the_last_one_stays() -> None:
    assert [Retry.get_interval(count, [1, 2, 3]) for count in range(5)] == [1, 2, 3, 3, 3]
    assert Retry.get_interval(7, 4) == 4
    assert Retry.get_interval(1, None) == 0
    assert Retry.get_interval(1, []) == 0
