"""What greenq has to reach on this benchmark: each target with its bound, judged from the figures of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.contenders import FLOOR_RQ, GREENQ, OWN
from benchmarks.figures import Results

Measure = Callable[[Results], float | None]


class Target(NamedTuple):
    """A figure and the least (or, if `is_upper`, the most) that it may be; without a bound, that it can be measured."""

    text: str
    measure: Measure
    bound: float | None
    is_upper: bool = False
    unit: str = 'x'


class Verdict(NamedTuple):
    """A target and what came out. `holds` is None if it could not be judged."""

    target: Target
    measured: float | None
    holds: bool | None


def judge(results: Results) -> list[Verdict]:
    """All targets."""
    return [_verdict(target, target.measure(results)) for target in TARGETS]


def _verdict(target: Target, measured: float | None) -> Verdict:
    if measured is None or target.bound is None:
        return Verdict(target, measured, None if measured is None else True)
    return Verdict(target, measured, measured <= target.bound if target.is_upper else measured >= target.bound)


def _to(other: str, name: str) -> Measure:
    return lambda results: results.ratio(GREENQ, other, name)


def _own(name: str) -> Measure:
    return lambda results: results.median(GREENQ, name)


def _grown(name: str, base: str) -> Measure:
    return lambda results: results.ratio(GREENQ, GREENQ, name, base)


def _to_best_peer(name: str) -> Measure:
    own = {contender.name for contender in OWN}

    def measure(results: Results) -> float | None:
        ratios = [results.ratio(GREENQ, peer, name) for peer in results.contenders() if peer not in own]
        return min((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


_RATE = '.jobs_per_second'
_IDEAL = '.percent_of_ideal'

TARGETS = (
    Target('no-op jobs, to floor-rq', _to(FLOOR_RQ, f'noop{_RATE}'), 0.5),
    Target('no-op jobs, to rq fork', _to('rq-fork', f'noop{_RATE}'), 150),
    Target('no-op jobs, to celery gevent', _to('celery-gevent', f'noop{_RATE}'), 18),
    Target('no-op jobs, to dramatiq gevent', _to('dramatiq-gevent', f'noop{_RATE}'), 2),
    Target('50-ms sleeps at 100 slots, of the ideal', _own(f'naps_100{_IDEAL}'), 95, unit='%'),
    Target('50-ms sleeps at 500 slots, of the ideal', _own(f'naps_500{_IDEAL}'), 90, unit='%'),
    Target('50-ms sleeps at 1,000 slots, of the ideal', _own(f'naps_1000{_IDEAL}'), 75, unit='%'),
    Target('50-ms sleeps at 5,000 slots, to those at 1,000', _grown(f'naps_5000{_RATE}', f'naps_1000{_RATE}'), 1.0),
    Target('HTTP calls by requests, to the best peer', _to_best_peer(f'http{_RATE}'), 1.1),
    Target('HTTP calls by requests, to floor-rq', _to(FLOOR_RQ, f'http{_RATE}'), 0.9),
    Target('memory per job in flight', _own('memory.1000_kib_per_job'), 12, True, 'KiB'),
    Target('memory of the idle worker, all its processes', _own('memory.idle_mib'), 40, True, 'MiB'),
    Target('10,000 jobs in flight in one process', _own('memory.10000_mib'), None, unit='MiB'),
    Target('latency p50, to floor-rq', _to(FLOOR_RQ, 'latency.p50_ms'), 1.1, True),
    Target('latency p99, to floor-rq', _to(FLOOR_RQ, 'latency.p99_ms'), 1.25, True),
    Target('commands per job under load', _own('noop.commands'), 10, True, ''),
    Target('round trips per job under load', _own('noop.round_trips'), 0.1, True, ''),
    Target('round trips of one job on an idle worker', _own('single.round_trips'), 4, True, ''),
    Target('commands per second of an idle worker', _own('idle.commands_per_second'), 1, True, ''),
    Target('round trips of enqueueing a job', _own('enqueue.one_round_trips'), 1.01, True, ''),
    Target('enqueueing one by one, to rq', _to('rq-fork', 'enqueue.one_per_second'), 2),
    Target('enqueue_many, to rq', _to('rq-fork', 'enqueue.bulk_per_second'), 2.2),
    Target(
        'two processes to one, no-op jobs', _grown('processes_2.noops_per_second', 'processes_1.noops_per_second'), 1.3
    ),
    Target(
        'two processes to one, 50-ms sleeps', _grown('processes_2.naps_per_second', 'processes_1.naps_per_second'), 1.8
    ),
    Target('no-op jobs with 1m queued, to 1k', _grown(f'backlog_1m{_RATE}', f'backlog_1k{_RATE}'), 0.9),
)
