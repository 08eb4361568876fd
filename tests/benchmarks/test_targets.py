"""Targets are judged from a run's own figures, and reports say how."""

from __future__ import annotations

import json

from benchmarks.figures import Results
from benchmarks.report import as_json, checklist, from_json, markdown, text
from benchmarks.targets import Verdict, judge

SETTINGS = {'machine': 'a machine', 'versions': {'gevent': {'greenq': '1.0'}}}


def a_run(greenq_noops: float = 12_000.0) -> Results:
    results = Results()
    results.add('gevent', {'noop.jobs_per_second': greenq_noops, 'http.jobs_per_second': 110.0, 'noop.commands': 7.0})
    results.add('floor-rq', {'noop.jobs_per_second': 20_000.0, 'http.jobs_per_second': 100.0})
    results.add('saq', {'http.jobs_per_second': 90.0})
    results.add('arq', {'http.jobs_per_second': 120.0})
    return results


def verdict(results: Results, text: str) -> Verdict:
    return next(verdict for verdict in judge(results) if verdict.target.text == text)


def test_a_reached_target_holds() -> None:
    assert verdict(a_run(), 'no-op jobs, to floor-rq')[1:] == (0.6, True)


def test_a_missed_target_does_not_hold_and_is_shown() -> None:
    results = a_run(greenq_noops=9_000.0)

    assert verdict(results, 'no-op jobs, to floor-rq')[1:] == (0.45, False)
    line = next(line for line in checklist(judge(results)).splitlines() if 'no-op jobs, to floor-rq' in line)
    assert line.startswith('[ ]')
    assert line.endswith('MISSED')


def test_an_upper_bound_is_one() -> None:
    assert verdict(a_run(), 'commands per job under load').holds is True
    results = Results()
    results.add('gevent', {'noop.commands': 10.5})
    assert verdict(results, 'commands per job under load').holds is False


def test_the_best_peer_is_the_one_that_counts_and_floors_are_no_peers() -> None:
    found = verdict(a_run(), 'HTTP calls by requests, to the best peer')

    assert found.measured == 110 / 120
    assert found.holds is False


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    assert {found.holds for found in judge(Results())} == {None}
    assert 'not measured' in checklist(judge(Results()))


def test_a_report_survives_json() -> None:
    results = a_run()
    results.add_latencies('gevent', [1.0, 2.0])
    results.failures.append('round 1, noop: huey: it was lost')
    results.add('saq', {'noop.doubled': 2.0})
    document = as_json(results, SETTINGS)

    again, settings = from_json(document)

    assert text(again, settings) == text(results, SETTINGS)
    assert 'it was lost' in text(again, settings)
    assert 'saq: 2 job(s) of noop' in text(again, settings)
    assert json.loads(document)['medians']['gevent']['latency.p50_ms'] == 1.5


def test_tables_for_a_readme_hold_a_row_for_each_contender_that_was_measured() -> None:
    table = markdown(a_run()).splitlines()

    assert '|gevent|0.6x|' in table
    assert '|saq|-|90|' in table
