"""Figures as text: `python -m benchmarks.report FILE` prints again what a run wrote with `--json`, and may draw it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.contenders import FLOOR_RQ
from benchmarks.figures import Results
from benchmarks.targets import Verdict, judge
from benchmarks.workloads import BACKLOGS, IN_FLIGHT, NAP_SLOTS

#: The contenders that the others are shown as a multiple of.
BASES = (FLOOR_RQ, 'rq-fork', 'celery-gevent')

Rows = list[list[str]]


class Column(NamedTuple):
    """A figure under a heading."""

    heading: str
    name: str
    format: str = '{:,.0f}'


class Section(NamedTuple):
    """A table."""

    title: str
    columns: Sequence[Column]


SECTIONS = (
    Section(
        'No-op jobs: per second, CPU time of worker and server per job; HTTP calls of 50 ms at 200 slots, by requests '
        'and by aiohttp',
        (
            Column('jobs/s', 'noop.jobs_per_second'),
            Column('worker us', 'noop.worker_us'),
            Column('server us', 'noop.server_us'),
            Column('requests/s', 'http.jobs_per_second'),
            Column('aiohttp/s', 'http_async.jobs_per_second'),
        ),
    ),
    Section(
        'Jobs that sleep 50 ms: per second, and percent of what so many slots could do; own: those of a fixed number',
        tuple(
            column
            for name, heading in (*((str(slots), f'@{slots:,}') for slots in NAP_SLOTS), ('fixed', '@own'))
            for column in (
                Column(heading, f'naps_{name}.jobs_per_second'),
                Column('%', f'naps_{name}.percent_of_ideal', '{:.1f}'),
            )
        ),
    ),
    Section(
        'Enqueueing: jobs per second one by one and in bulk; latency: ms until a job starts on an idle worker',
        (
            Column('one/s', 'enqueue.one_per_second'),
            Column('bulk/s', 'enqueue.bulk_per_second'),
            Column('p50', 'latency.p50_ms', '{:.2f}'),
            Column('p99', 'latency.p99_ms', '{:.2f}'),
        ),
    ),
    Section(
        'Redis: commands (also inside scripts) / round trips per job enqueued, under load, alone on an idle worker; '
        'idle worker per second',
        (
            Column('enqueue', 'enqueue.one_commands', '{:.1f}'),
            Column('rt', 'enqueue.one_round_trips', '{:.2f}'),
            Column('load', 'noop.commands', '{:.1f}'),
            Column('rt', 'noop.round_trips', '{:.2f}'),
            Column('alone', 'single.commands', '{:.1f}'),
            Column('rt', 'single.round_trips', '{:.1f}'),
            Column('idle/s', 'idle.commands_per_second', '{:.1f}'),
            Column('rt/s', 'idle.round_trips_per_second', '{:.1f}'),
        ),
    ),
    Section(
        'Memory (PSS, MiB): all processes and the largest alone; KiB per job in flight',
        (
            Column('idle', 'memory.idle_mib', '{:.0f}'),
            Column('largest', 'memory.idle_largest_mib', '{:.0f}'),
            *(
                column
                for count in IN_FLIGHT
                for column in (
                    Column(f'{count:,}', f'memory.{count}_mib', '{:.0f}'),
                    Column('largest', f'memory.{count}_largest_mib', '{:.0f}'),
                    Column('KiB/job', f'memory.{count}_kib_per_job', '{:,.1f}'),
                )
            ),
        ),
    ),
    Section(
        'No-op jobs per second while so many more are queued; one and two processes with 500 slots each',
        (
            *(Column(name, f'backlog_{name}.jobs_per_second') for name in BACKLOGS),
            Column('no-op, 1', 'processes_1.noops_per_second'),
            Column('2', 'processes_2.noops_per_second'),
            Column('sleeps, 1', 'processes_1.naps_per_second'),
            Column('2', 'processes_2.naps_per_second'),
        ),
    ),
)


def text(results: Results, settings: dict[str, Any]) -> str:
    """The whole report."""
    parts = [f'{title}\n\n{aligned(rows)}' for title, rows in tables(results)]
    if results.failures:
        parts.append('\n'.join(['Not measured:', *(f'  {failure}' for failure in results.failures)]))
    if doubled := _doubled(results):
        parts.append('\n'.join(['Ran more than once:', *doubled]))
    parts += [conditions(settings), checklist(judge(results))]
    return '\n\n'.join(parts)


def _doubled(results: Results) -> list[str]:
    return [
        f'  {contender}: {count:.0f} job(s) of {name.removesuffix(".doubled")}'
        for contender, figures in results.rounds.items()
        for name, values in figures.items()
        if name.endswith('.doubled') and (count := sum(values))
    ]


def markdown(results: Results) -> str:
    """The tables, for a README."""
    parts = []
    for title, (head, *body) in tables(results):
        lines = ['|'.join(['', *head, '']), '|'.join(['', '---', *['--:'] * (len(head) - 1), ''])]
        lines += ['|'.join(['', *row, '']) for row in body]
        parts.append('\n'.join([title + ':', '', *lines]))
    return '\n\n'.join(parts)


def tables(results: Results) -> Iterable[tuple[str, Rows]]:
    """Title and rows of each table that has figures; the first row is the heading."""
    if (rows := _ratio_rows(results)) is not None:
        yield 'No-op jobs per second as a multiple of others', rows
    for section in SECTIONS:
        columns = [column for column in section.columns if _is_measured(results, column)]
        if not columns:
            continue
        rows = [['', *(column.heading for column in columns)]]
        for contender in results.contenders():
            values = [results.median(contender, column.name) for column in columns]
            if any(value is not None for value in values):
                cells = [
                    '-' if value is None else column.format.format(value)
                    for column, value in zip(columns, values, strict=True)
                ]
                rows.append([contender, *cells])
        yield section.title, rows


def _is_measured(results: Results, column: Column) -> bool:
    return any(results.values(contender, column.name) for contender in results.contenders())


def _ratio_rows(results: Results) -> Rows | None:
    name = 'noop.jobs_per_second'
    bases = [base for base in BASES if results.values(base, name)]
    if not bases:
        return None
    rows = [['', *(f'to {base}' for base in bases)]]
    for contender in results.contenders():
        ratios = [results.ratio(contender, base, name) for base in bases]
        if any(ratio is not None for ratio in ratios):
            rows.append([contender, *('-' if ratio is None else _multiple(ratio) for ratio in ratios)])
    return rows


def _multiple(ratio: float) -> str:
    return f'{ratio:,.0f}x' if ratio >= 20 else f'{ratio:.1f}x' if ratio >= 2 else f'{ratio:.2g}x'


def checklist(verdicts: Sequence[Verdict]) -> str:
    """A line for each target."""
    marks: dict[bool | None, str] = {True: '[x]', False: '[ ]', None: '[-]'}
    rows = []
    for target, measured, holds in verdicts:
        bound = 'works' if target.bound is None else f'{"<=" if target.is_upper else ">="} {target.bound:g}'
        value = 'not measured' if measured is None else f'{measured:.3g} {target.unit}'.strip()
        rows.append([f'{marks[holds]} {target.text}', bound, value, '' if holds is not False else 'MISSED'])
    counts = {holds: sum(verdict.holds is holds for verdict in verdicts) for holds in marks}
    summary = (
        f'{counts[True]} of {len(rows)} targets hold, {counts[False]} are missed, {counts[None]} were not measured'
    )
    return f'Targets\n\n{aligned(rows)}\n\n{summary}'


def conditions(settings: dict[str, Any]) -> str:
    """Where and how it ran."""
    lines = [f'{name}: {value}' for name, value in settings.items() if name != 'versions']
    versions = settings.get('versions', {})
    told = (
        f'{name} ({", ".join(f"{what} {number}" for what, number in found.items())})'
        for name, found in versions.items()
    )
    return '\n'.join([*lines, f'versions: {"; ".join(told)}'])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def as_json(results: Results, settings: dict[str, Any]) -> str:
    """Everything that a run found."""
    targets = [
        {
            'target': target.text,
            'bound': target.bound,
            'is_upper': target.is_upper,
            'unit': target.unit,
            'measured': measured,
            'holds': holds,
        }
        for target, measured, holds in judge(results)
    ]
    return json.dumps(
        {
            'settings': settings,
            'medians': results.medians(),
            'rounds': results.rounds,
            'latencies_ms': results.latencies,
            'failures': results.failures,
            'seconds': results.seconds,
            'targets': targets,
        },
        indent=1,
    )


def from_json(document: str) -> tuple[Results, dict[str, Any]]:
    """What `as_json` was given."""
    data = json.loads(document)
    return Results(data['rounds'], data['latencies_ms'], data['failures'], data['seconds']), data['settings']


@click.command()
@click.argument('file', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--plot', type=click.Path(file_okay=False, path_type=Path), help='Draw the plots into this directory.')
@click.option('--markdown', 'as_markdown', is_flag=True, help='Print the tables only, for a README.')
def main(file: Path, plot: Path | None, as_markdown: bool) -> None:
    """Print, and draw, the figures of an earlier run."""
    results, settings = from_json(file.read_text())
    if plot is not None:
        from benchmarks.plots import draw

        draw(results, plot)
    render: Callable[[], str] = (lambda: markdown(results)) if as_markdown else (lambda: text(results, settings))
    click.echo(render())


if __name__ == '__main__':
    main()
