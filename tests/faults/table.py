"""The results of a run as a table for the terminal, as JSON, and as the Markdown table of the README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.oracle import Findings
from tests.faults.trial import PATIENCE_SECONDS

#: Broken promises that are kept in JSON for each row; a systematic one says the same a thousand times.
_KEPT = 20
_HEAD = ('row', 'fault', 'rounds', 'jobs', 'lost', 'stuck', 'duplicates', 'failed', 'worst recovery s', 'verdict')


@dataclass(frozen=True)
class Result:
    """What all rounds of a row came to."""

    key: str
    fault: str
    expected: str
    findings: Findings

    @property
    def verdict(self) -> str:
        if self.findings.holds:
            return 'holds'
        return f'BROKEN ({len(self.findings.broken)}x)'

    @property
    def recovery(self) -> str:
        seconds = self.findings.recovery
        if seconds is None:
            return ''
        return f'not in {PATIENCE_SECONDS:g}' if seconds >= PATIENCE_SECONDS - 1 else f'{seconds:.1f}'


def as_text(results: Sequence[Result]) -> str:
    """For the terminal."""
    lines = [_HEAD, *(_cells(result) for result in results)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEAD))]
    table = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    figures = [
        f'{result.key}: ' + ', '.join(f'{name} {value:.4g}' for name, value in result.findings.figures.items())
        for result in results
        if result.findings.figures
    ]
    return '\n'.join([*table, *(['', 'Further figures, the worst of all rounds:', *figures] if figures else [])])


def _cells(result: Result) -> tuple[str, ...]:
    found = result.findings
    numbers = (found.rounds, found.jobs, found.lost, found.stuck, found.duplicates, found.failed)
    return (result.key, result.fault, *map(str, numbers), result.recovery, result.verdict)


def dump(library: str, seed: int, results: Sequence[Result]) -> dict[str, Any]:
    """As data for JSON."""
    rows = []
    for result in results:
        row = asdict(result)
        row['findings']['broken_count'] = len(result.findings.broken)
        row['findings']['broken'] = result.findings.broken[:_KEPT]
        rows.append(row)
    return {'library': library, 'seed': seed, 'rows': rows}


def load(path: Path) -> tuple[str, list[Result]]:
    """The library and the results of a run, from its JSON."""
    data = json.loads(path.read_text())
    results = []
    for row in data['rows']:
        found = row['findings']
        found.pop('broken_count')
        results.append(Result(row['key'], row['fault'], row['expected'], Findings(**found)))
    return data['library'], results


def as_markdown(runs: Sequence[tuple[str, list[Result]]]) -> str:
    """A column for each library, a row for each fault."""
    columns: dict[str, dict[str, Result]] = {}
    for library, results in runs:
        columns.setdefault(library, {}).update({result.key: result for result in results})
    faults = {result.key: result.fault for column in columns.values() for result in column.values()}
    lines = [
        '| | fault | ' + ' | '.join(columns) + ' |',
        '|---|---|' + '---|' * len(columns),
    ]
    for key in sorted(faults, key=lambda key: (int(key.partition('.')[0]), list(faults).index(key))):
        cells = [_markdown_cell(column.get(key)) for column in columns.values()]
        lines.append(f'| {key} | {faults[key]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _markdown_cell(result: Result | None) -> str:
    """What a reader wants to know first: whether something went wrong, and how long it took."""
    if result is None:
        return '-'
    found = result.findings
    wrong = [
        f'{count} {word}'
        for count, word in ((found.lost, 'lost'), (found.stuck, 'stuck'), (found.failed, 'failed'))
        if count
    ]
    if any('worker ended with status' in text for text in found.broken):
        wrong.append('its worker exits')
    if found.lost_as_documented:
        wrong.append(f'{found.lost_as_documented} in the loss window')
    if not wrong and not found.holds:
        wrong = [found.broken[0].partition(': ')[2] or found.broken[0]]
    words = ', '.join(wrong) or 'ok'
    if result.recovery:
        words += f', {result.recovery} s'
    return f'{words} ({found.rounds} x {round(found.jobs / max(found.rounds, 1))} jobs)'
