"""Medians, percentiles and ratios of rounds."""

from __future__ import annotations

import pytest

from benchmarks.figures import Results, paired_ratio, percentile
from benchmarks.records import Record, missing_and_doubled


@pytest.mark.parametrize(
    ('percent', 'expected'),
    [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)],
)
def test_percentile_is_the_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    samples = [float(number) for number in range(100, 0, -1)]

    assert percentile(samples, percent) == expected


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.0], 99) == 7.0


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was ten times slower in the last round, for both; the medians alone would say 1.5.
    assert paired_ratio([100, 120, 12], [50, 80, 6]) == 2.0


def test_ratio_with_a_missing_round_is_that_of_the_medians() -> None:
    assert paired_ratio([100, 300, 200], [50]) == 4.0


@pytest.mark.parametrize(('above', 'below'), [([], [1.0]), ([1.0], []), ([1.0], [0.0]), ([1.0, 2.0], [0.0])])
def test_ratio_without_figures_is_none(above: list[float], below: list[float]) -> None:
    assert paired_ratio(above, below) is None


def test_results_give_medians_of_rounds_and_percentiles_of_pooled_latencies() -> None:
    results = Results()
    for rate, latencies in ((10.0, [1.0, 2.0]), (30.0, [3.0]), (20.0, [90.0])):
        results.add('gevent', {'noop.jobs_per_second': rate})
        results.add_latencies('gevent', latencies)

    assert results.medians() == {
        'gevent': {'noop.jobs_per_second': 20.0, 'latency.p50_ms': 2.5, 'latency.p99_ms': 90.0}
    }
    assert results.median('gevent', 'latency.p50_ms') == 2.5
    assert results.median('gevent', 'noop.worker_us') is None
    assert results.ratio('gevent', 'floor-rq', 'noop.jobs_per_second') is None


def test_jobs_that_are_missing_or_ran_twice_are_found() -> None:
    records = [Record(number, 0.0, 1.0) for number in (0, 1, 1, 3, 7)]

    assert missing_and_doubled(records, 4) == (1, 2)
    assert missing_and_doubled(records[:2], 2) == (0, 0)
