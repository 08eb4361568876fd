"""Speed, idle cost and latency of the workers: `python -m benchmarks.worker`.

The gevent worker runs beside the fork worker and beside `benchmarks.floor`, in turns, on one server. Compare within one
run; a busy machine shifts all of them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from redis import Redis

from benchmarks.common import Call, WorkerProcess, machine, running_server, running_worker, table
from benchmarks.jobs import clock, nap, noop
from greenq import Queue

NAP_SECONDS = 0.05
NOOP: Call = (noop, ())
NAP: Call = (nap, (NAP_SECONDS,))

Figures = dict[str, float]


@dataclass(frozen=True)
class Contender:
    """A kind of worker, and how many jobs it is given."""

    name: str
    slots: int
    naps: int
    noops: int

    def command(self, client: Redis, queue: str) -> Sequence[str]:
        """What starts it, after `python -m`."""
        url = f'unix://{client.connection_pool.connection_kwargs["path"]}'
        if self.name == 'floor':
            return ('benchmarks.floor', url, queue, str(self.slots))
        options = ('--concurrency', str(self.slots)) if self.name == 'gevent' else ()
        return ('greenq', 'worker', '--url', url, '-w', self.name, '--quiet', *options, queue)


@click.command()
@click.option('--rounds', type=click.IntRange(min=1), default=3, show_default=True, help='The medians of so many.')
@click.option('--slots', type=click.IntRange(min=1), default=1000, show_default=True)
@click.option('--naps', type=click.IntRange(min=1), default=5000, show_default=True, help='Jobs that wait 50 ms.')
@click.option('--noops', type=click.IntRange(min=1), default=20000, show_default=True, help='Jobs that do nothing.')
@click.option('--fork-jobs', type=click.IntRange(min=0), default=60, show_default=True, help='Of each kind.')
@click.option('--idle-seconds', type=click.IntRange(min=0), default=10, show_default=True)
@click.option('--samples', type=click.IntRange(min=0), default=200, show_default=True, help='Of latency.')
@click.option('--persistent', is_flag=True, help='Let the server keep its append-only file, as embedded servers do.')
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path), help='Write the figures there.')
def main(
    rounds: int,
    slots: int,
    naps: int,
    noops: int,
    fork_jobs: int,
    idle_seconds: int,
    samples: int,
    persistent: bool,
    json_file: Path | None,
) -> None:
    """Measure the workers of greenq beside each other."""
    contenders = [Contender('gevent', slots, naps, noops), Contender('floor', slots, naps, noops)]
    if fork_jobs:
        contenders.append(Contender('fork', 1, fork_jobs, fork_jobs))
    seen: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    with running_server(persistent) as client:
        for _ in range(rounds):
            for contender in contenders:
                seen[contender.name].append(_measure(contender, client, idle_seconds, samples))
                # Whatever a measurement leaves behind must not be in the way of the next.
                client.flushall()
    medians = {name: _medians(figures) for name, figures in seen.items()}
    click.echo(table(_rows(medians)))
    click.echo(f'\n{LEGEND}')
    click.echo(
        f'medians of {rounds} rounds; {slots} slots; '
        f'server {"with" if persistent else "without"} append-only file; {machine()}'
    )
    if json_file is not None:
        json_file.write_text(json.dumps({'medians': medians, 'rounds': seen}, indent=1))


def _measure(contender: Contender, client: Redis, idle_seconds: int, samples: int) -> Figures:
    queue = Queue('bench', connection=client)
    with running_worker(contender.command(client, queue.name), queue) as worker:
        worker.warm_up(NOOP)
        naps = contender.naps / worker.drain(NAP, contender.naps).seconds
        noops = worker.drain(NOOP, contender.noops)
        return {
            'naps_per_second': naps,
            'naps_percent_of_ideal': 100 * naps * NAP_SECONDS / contender.slots,
            'noops_per_second': contender.noops / noops.seconds,
            'noop_worker_cpu_us': noops.worker_us,
            'noop_server_cpu_us': noops.server_us,
            **_latency(worker, samples),
            **_idle_cost(client, idle_seconds),
        }


def _latency(worker: WorkerProcess, samples: int) -> Figures:
    """Milliseconds from the call of `enqueue` to the start of the job, on an idle worker."""
    taken = []
    for _ in range(samples):
        began = time.monotonic()
        job = worker.queue.enqueue(clock)
        result = job.latest_result(timeout=10)
        if result is None:
            raise RuntimeError(f'job {job.id} has no result after 10 s')
        taken.append((result.return_value - began) * 1000)
        # Until the worker waits again.
        time.sleep(0.02)
    if len(taken) < 2:
        return {}
    return {'latency_ms_p50': statistics.median(taken), 'latency_ms_p99': statistics.quantiles(taken, n=100)[98]}


def _idle_cost(client: Redis, seconds: int) -> Figures:
    """What a worker without work costs Redis: requests, and commands with those inside scripts."""
    if not seconds:
        return {}
    # The worker's wait for the last sample is over by then.
    time.sleep(1)
    before = client.info('stats')
    time.sleep(seconds)
    after = client.info('stats')
    # One of each is the question itself.
    return {
        name: (int(after[field]) - int(before[field]) - 1) / seconds
        for name, field in (
            ('idle_requests_per_second', 'total_reads_processed'),
            ('idle_commands_per_second', 'total_commands_processed'),
        )
    }


def _medians(rounds: Sequence[Figures]) -> Figures:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


COLUMNS = {
    'naps_per_second': ('waits/s', '{:,.0f}'),
    'naps_percent_of_ideal': ('% of ideal', '{:.0f}'),
    'noops_per_second': ('no-ops/s', '{:,.0f}'),
    'noop_worker_cpu_us': ('worker us', '{:,.0f}'),
    'noop_server_cpu_us': ('server us', '{:,.0f}'),
    'latency_ms_p50': ('latency p50', '{:.2f}'),
    'latency_ms_p99': ('p99', '{:.2f}'),
    'idle_requests_per_second': ('idle req/s', '{:.1f}'),
    'idle_commands_per_second': ('commands/s', '{:.1f}'),
}


LEGEND = (
    f'waits: jobs that sleep {NAP_SECONDS * 1000:.0f} ms; worker us, server us: CPU time for one no-op job; '
    'latency: ms from enqueue to start on an idle worker'
)


def _rows(medians: Mapping[str, Figures]) -> list[list[str]]:
    """A row for each worker, then how the gevent worker compares to the others."""
    names = [name for name in COLUMNS if name in medians['gevent']]
    rows = [['worker', *(COLUMNS[name][0] for name in names)]]
    rows += [
        [worker, *(COLUMNS[name][1].format(figures[name]) for name in names)] for worker, figures in medians.items()
    ]
    for other in [name for name in medians if name != 'gevent']:
        ratios = [medians['gevent'][name] / medians[other][name] if medians[other][name] else 0 for name in names]
        rows.append([f'gevent / {other}', *(f'{ratio:.2f}x' for ratio in ratios)])
    return rows


if __name__ == '__main__':
    main()
