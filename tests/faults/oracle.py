"""Judges a round: what was promised to whom, against the ledger and Redis. It drives nothing and waits for nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tests.faults.ledger import ENDED, Ledger, read_fields, read_places, read_result_counts

#: The status that each place goes with; a stopped job is among the failed.
STATUSES = {
    'queued': {'queued'},
    'parked': {'queued'},
    'intermediate': {'queued'},
    'started': {'started'},
    'finished': {'finished'},
    'failed': {'failed', 'stopped'},
    'scheduled': {'scheduled'},
    'deferred': {'deferred'},
    'canceled': {'canceled'},
}


@dataclass
class Promises:
    """What a round's jobs are entitled to."""

    #: Accepted job -> where it must end: finished, failed, 'ended' (either), or 'dropped' (in no place).
    ends: dict[str, str] = field(default_factory=dict)
    #: Jobs whose enqueue raised: they may be there or not, but in one place only.
    uncertain: set[str] = field(default_factory=set)
    #: Jobs that ran when the fault struck: at-least-once lets them run again.
    may_repeat: set[str] = field(default_factory=set)
    #: Jobs that the documented loss window covers.
    may_be_lost: set[str] = field(default_factory=set)
    #: Jobs that never begin, or never come to their end, though they are to be in `finished`.
    without_end: set[str] = field(default_factory=set)


@dataclass
class Findings:
    """What one round, or all rounds of a row, came to."""

    rounds: int = 0
    jobs: int = 0
    lost: int = 0
    stuck: int = 0
    #: Runs beyond the first of a job, allowed or not.
    duplicates: int = 0
    #: Jobs that failed though they should not have.
    failed: int = 0
    #: Jobs that were lost as the documentation says they may.
    lost_as_documented: int = 0
    #: Worst seconds until what the fault hit went on; None where nothing is to recover.
    recovery: float | None = None
    #: Everything that breaks a promise, in words.
    broken: list[str] = field(default_factory=list)
    #: Further figures: name -> the worst of them.
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.broken

    def note_recovery(self, seconds: float) -> None:
        self.recovery = seconds if self.recovery is None else max(self.recovery, seconds)

    def note_figure(self, name: str, value: float) -> None:
        self.figures[name] = max(self.figures.get(name, -math.inf), value)

    def add(self, other: Findings) -> None:
        """Adds another round."""
        for name in ('rounds', 'jobs', 'lost', 'stuck', 'duplicates', 'failed', 'lost_as_documented'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.recovery is not None:
            self.note_recovery(other.recovery)
        for name, value in other.figures.items():
            self.note_figure(name, value)
        self.broken += other.broken


def judge(client: Any, ledger: Ledger, promises: Promises) -> Findings:
    """Compares what was promised with what is; call it when the round is to be over."""
    findings = Findings(rounds=1, jobs=len(promises.ends))
    places = read_places(client)
    runs = ledger.runs()
    for id, end in promises.ends.items():
        _judge_place(findings, id, end, places.get(id, []), promises)
        _judge_runs(findings, id, runs, places.get(id, []), promises)
    _judge_strangers(findings, places, promises)
    _judge_records(findings, client, places, promises)
    return findings


def check_at_any_time(client: Any, promises: Promises) -> list[str]:
    """What must hold at every moment, also while things are broken: each accepted job is in one place."""
    places = read_places(client)
    wrong = {id: places.get(id, []) for id in promises.ends if len(places.get(id, [])) != 1}
    return [f'{id} is in {where or "no place"} at the moment of the fault' for id, where in wrong.items()]


def _judge_place(findings: Findings, id: str, end: str, where: list[str], promises: Promises) -> None:
    broken = findings.broken
    if len(where) > 1:
        broken.append(f'{id} is in {len(where)} places: {", ".join(where)}')
    elif not where:
        if end == 'dropped':
            return
        if id in promises.may_be_lost:
            findings.lost_as_documented += 1
        else:
            findings.lost += 1
            broken.append(f'{id} is lost')
    elif end == 'dropped':
        broken.append(f'{id} should have been dropped, but is {where[0]}')
    elif where[0] not in ENDED:
        findings.stuck += 1
        broken.append(f'{id} is stuck: {where[0]}')
    elif end in ENDED and where[0] != end:
        findings.failed += where[0] == 'failed'
        broken.append(f'{id} is {where[0]}, not {end}')


def _judge_runs(findings: Findings, id: str, runs: dict[str, list[Any]], where: list[str], promises: Promises) -> None:
    own = runs.get(id, [])
    if len(own) > 1:
        findings.duplicates += len(own) - 1
        if id not in promises.may_repeat:
            findings.broken.append(f'{id} ran {len(own)} times without a reason')
    if where == ['finished'] and id not in promises.without_end and not any(run.ended is not None for run in own):
        findings.broken.append(f'{id} is finished, but never came to its end')


def _judge_strangers(findings: Findings, places: dict[str, list[str]], promises: Promises) -> None:
    for id in places.keys() - promises.ends.keys():
        if id not in promises.uncertain:
            findings.broken.append(f'{id} is {places[id]}, but nobody enqueued it')
        elif len(places[id]) > 1:
            findings.broken.append(f'{id} is in {len(places[id])} places: {", ".join(places[id])}')


def _judge_records(findings: Findings, client: Any, places: dict[str, list[str]], promises: Promises) -> None:
    """Status and place agree, and what has ended has one result."""
    single = {id: where[0] for id, where in places.items() if len(where) == 1 and id in promises.ends}
    statuses = read_fields(client, list(single), 'status')
    for id, place in single.items():
        if statuses[id] not in STATUSES[place]:
            findings.broken.append(f'{id} is {place}, but its status is {statuses[id] or "missing"}')
    ended = [id for id, place in single.items() if place in ENDED]
    for id, count in read_result_counts(client, ended).items():
        if count != 1:
            findings.broken.append(f'{id} has {count} results')
