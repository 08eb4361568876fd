"""The guard against slower code: `python -m benchmarks.guard`; exit status 1 if greenq has become slower.

greenq's worker and its floor run side by side, in turns, so that a slow or busy machine slows both; what is judged is
the median of the ratios within each round, never a time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click
from redis.exceptions import RedisError

from benchmarks.contenders import FLOOR_RQ, GREENQ, OWN, Installed
from benchmarks.processes import end_on_sigterm
from benchmarks.report import aligned
from benchmarks.servers import running_server
from benchmarks.session import Lost, Session
from benchmarks.workloads import NAP_SECONDS

#: Few enough that sleeps leave both workers time to spare, so that a busy machine does not make greenq the slower one.
SLOTS = 100
NOOPS = 6_000
NAPS = 1_500
ONE_BY_ONE = 300
#: On a machine so slow that the rounds take longer than this (s), fewer must do, but not fewer than LEAST_ROUNDS.
ROUNDS_SECONDS = 20
LEAST_ROUNDS = 3


class Bound(NamedTuple):
    """The least that a ratio to the floor may be or, if `is_upper`, the most that a count may be."""

    value: float
    is_upper: bool = False


#: Ratios: about half of what two quiet cores give (0.6, 0.2, 0.96, 0.5, 0.48), since busy ones give less. What a
#: worker loses that claims or commits job by job, or a producer that asks twice, is more.
BOUNDS = {
    'no-op jobs per second': Bound(0.28),
    'no-op jobs per second of CPU': Bound(0.1),
    '50-ms sleeps per second': Bound(0.6),
    'enqueueing one by one': Bound(0.24),
    'enqueue_many': Bound(0.22),
    # Counts of Redis, of greenq alone: they do not depend on the machine.
    'commands per job': Bound(9, is_upper=True),
    'round trips per job': Bound(0.1, is_upper=True),
}

Samples = dict[str, list[float]]


class Finding(NamedTuple):
    """What came out for one bound."""

    name: str
    bound: Bound
    measured: float

    @property
    def holds(self) -> bool:
        """Whether it is within its bound."""
        return self.measured <= self.bound.value if self.bound.is_upper else self.measured >= self.bound.value

    def complaint(self) -> str:
        """One line for the log of a CI job."""
        what = 'more than' if self.bound.is_upper else 'less than'
        unit = '' if self.bound.is_upper else ' of the floor'
        return (
            f'{self.name}: {self.measured:.3g}{unit} is {what} the bound of {self.bound.value:g}: greenq became slower'
        )


def judge(samples: Mapping[str, Sequence[float]], bounds: Mapping[str, Bound]) -> list[Finding]:
    """The median of each figure beside its bound."""
    return [Finding(name, bound, statistics.median(samples[name])) for name, bound in bounds.items()]


def measure(greenq: Session, floor: Session, rounds: int) -> Samples:
    """Ratios and counts of each round."""
    samples: Samples = {name: [] for name in BOUNDS}
    began = time.monotonic()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() - began > ROUNDS_SECONDS:
            break
        pair = (greenq, floor) if number % 2 == 0 else (floor, greenq)
        noops = {session: session.drain('noop', NOOPS) for session in pair}
        naps = {session: session.drain('nap', NAPS, (NAP_SECONDS,)) for session in pair}
        singles = {session: session.enqueue_one_by_one('noop', ONE_BY_ONE) for session in pair}
        mine, its = noops[greenq], noops[floor]
        for name, value in (
            # Less time is more speed.
            ('no-op jobs per second', its.seconds / mine.seconds),
            ('no-op jobs per second of CPU', its.worker_us / mine.worker_us),
            ('50-ms sleeps per second', naps[floor].seconds / naps[greenq].seconds),
            ('enqueueing one by one', singles[floor] / singles[greenq]),
            ('enqueue_many', its.filling_seconds / mine.filling_seconds),
            ('commands per job', mine.server.commands),
            ('round trips per job', mine.server.round_trips),
        ):
            samples[name].append(value)
    return samples


@click.command()
@click.option('--rounds', type=click.IntRange(min=1), default=5, show_default=True, help='The medians of so many.')
def main(rounds: int) -> None:
    """Compare greenq with the floor, and complain if it is slower than it was."""
    end_on_sigterm()
    contenders = {contender.name: Installed(contender) for contender in OWN}
    try:
        with (
            running_server(None, persistent=False) as server,
            Session(contenders[GREENQ], server, SLOTS) as greenq,
            Session(contenders[FLOOR_RQ], server, SLOTS) as floor,
        ):
            findings = judge(measure(greenq, floor, rounds), BOUNDS)
    except (Lost, RuntimeError, RedisError) as error:
        raise click.ClickException(str(error)) from error
    rows = [['', 'measured', 'bound']]
    for name, bound, measured in findings:
        rows.append([name, f'{measured:.3g}', f'{"<=" if bound.is_upper else ">="} {bound.value:g}'])
    click.echo(aligned(rows))
    complaints = [finding.complaint() for finding in findings if not finding.holds]
    for complaint in complaints:
        click.echo(complaint, err=True)
    sys.exit(1 if complaints else 0)


if __name__ == '__main__':
    main()
