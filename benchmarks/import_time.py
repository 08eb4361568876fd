"""What `import greenq` costs beside `import redis`: `python -m benchmarks.import_time`.

Exit status 1 if it is more than 1.3 times as much.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import click

from benchmarks.machine import describe
from benchmarks.report import aligned

LIMIT = 1.3
STATEMENTS = ('import redis', 'import greenq', 'from greenq import Queue')


@click.command()
@click.option('--rounds', type=click.IntRange(min=1), default=15, show_default=True)
def main(rounds: int) -> None:
    """Compare imports, each in fresh interpreters, in turns."""
    for statement in STATEMENTS:
        _milliseconds(statement)
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            taken[statement].append(_milliseconds(statement))
    medians = {statement: statistics.median(times) for statement, times in taken.items()}
    base = medians['import redis']
    rows = [('', 'ms', 'vs redis')]
    rows += [(statement, f'{median:.1f}', f'{median / base:.2f}x') for statement, median in medians.items()]
    click.echo(aligned(rows))
    click.echo(f'\nmedians of {rounds}; {describe()}')
    if medians['import greenq'] > LIMIT * base:
        sys.exit(1)


def _milliseconds(statement: str) -> float:
    code = f'import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)'
    result = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    return float(result.stdout) * 1000


if __name__ == '__main__':
    main()
