"""`python -m tests.faults`: the fault suite from the command line. See docs/faults.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from tests.faults import table
from tests.faults.oracle import Findings
from tests.faults.row import Row, chosen, run_rows
from tests.faults.rows import ROWS
from tests.faults.soak import SOAK_MINUTES, soak
from tests.faults.workers import LIBRARIES, Library


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments say; 1 if a promise does not hold."""
    signal.signal(signal.SIGTERM, _end_all)
    signal.signal(signal.SIGINT, _end_all)
    options = _parser().parse_args(arguments)
    if options.table:
        print(table.as_markdown([table.load(path) for path in options.table]))
        return 0
    library = LIBRARIES[options.library]
    try:
        rows = _rows(options, library)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    results = [] if options.soak and not options.long else _run(rows, library, options)
    if options.soak or (options.long and not options.rows and library.name == 'greenq'):
        findings = soak(minutes=options.soak or SOAK_MINUTES, seed=options.seed)
        results.append(table.Result('26', 'soak with mixed jobs and faults', 'nothing grows', findings))
        _report(results[-1])
    print(table.as_text(results))
    if options.json:
        options.json.write_text(json.dumps(table.dump(library.name, options.seed, results), indent=1) + '\n')
    return 0 if all(result.findings.holds for result in results) else 1


def _end_all(signum: int, frame: FrameType | None) -> None:
    """Ends at once, with all that was started: frozen processes and servers would stay for ever."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(128 + signum)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m tests.faults', description=__doc__)
    parser.add_argument('--long', action='store_true', help='at least 100 rounds of each row, then the soak')
    parser.add_argument('--rows', default='', help='some rows only, for example 1,8.oom,10')
    parser.add_argument('--rounds', type=int, help='so many rounds of each row that the run has')
    parser.add_argument('--seed', type=int, default=1, help='of all that is random (default: 1)')
    parser.add_argument('--library', choices=sorted(LIBRARIES), default='greenq', help='whose worker is tested')
    parser.add_argument('--parallel', type=int, default=4, help='rounds side by side (default: 4)')
    parser.add_argument('--json', type=Path, help='file for the results, which --table reads')
    parser.add_argument('--keep', type=Path, help='folder for the files of rounds that broke a promise')
    parser.add_argument('--soak', type=float, metavar='MINUTES', help='the soak only; with --long, its length')
    parser.add_argument('--table', type=Path, nargs='+', metavar='FILE', help='print the table of results as Markdown')
    return parser


def _rows(options: argparse.Namespace, library: Library) -> list[Row]:
    rows = chosen(ROWS, options.rows.split(',')) if options.rows else ROWS
    return [row for row in rows if library.name == 'greenq' or row.rq]


def _run(rows: Sequence[Row], library: Library, options: argparse.Namespace) -> list[table.Result]:
    def rounds(row: Row) -> int:
        usual = row.rounds(library, options.long)
        return options.rounds if usual and options.rounds else usual

    def on_round(row: Row, findings: Findings) -> None:
        for text in findings.broken[:3]:
            print(f'  {row.key}: {text}', flush=True)

    results = []
    began = time.monotonic()
    for row, findings in run_rows(
        [row for row in rows if rounds(row)],
        library,
        rounds,
        seed=options.seed,
        is_long=options.long,
        parallel=options.parallel,
        keep=options.keep,
        on_round=on_round,
    ):
        results.append(table.Result(row.key, row.fault, row.expected, findings))
        _report(results[-1], time.monotonic() - began)
        began = time.monotonic()
    return results


def _report(result: table.Result, seconds: float | None = None) -> None:
    """A line at once: a long run takes hours."""
    took = '' if seconds is None else f' ({seconds:.0f} s)'
    print(f'{result.key}: {result.verdict}{took}', flush=True)


if __name__ == '__main__':
    sys.exit(main())
