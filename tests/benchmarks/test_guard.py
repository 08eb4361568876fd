"""The guard's verdict."""

from __future__ import annotations

from benchmarks.guard import Bound, judge


def test_the_median_of_the_rounds_is_judged() -> None:
    (finding,) = judge({'speed': [0.1, 0.5, 0.9]}, {'speed': Bound(0.4)})

    assert finding.measured == 0.5
    assert finding.holds


def test_a_ratio_below_its_bound_is_a_complaint_of_one_line() -> None:
    (finding,) = judge({'speed': [0.5, 0.3, 0.2]}, {'speed': Bound(0.4)})

    assert not finding.holds
    assert finding.complaint() == 'speed: 0.3 of the floor is less than the bound of 0.4: greenq became slower'


def test_a_count_above_its_bound_is_one_too() -> None:
    (finding,) = judge({'commands per job': [11.0]}, {'commands per job': Bound(10, is_upper=True)})

    assert not finding.holds
    assert finding.complaint() == 'commands per job: 11 is more than the bound of 10: greenq became slower'


def test_a_value_at_its_bound_holds() -> None:
    findings = judge({'speed': [0.4], 'commands': [10]}, {'speed': Bound(0.4), 'commands': Bound(10, is_upper=True)})

    assert all(finding.holds for finding in findings)
