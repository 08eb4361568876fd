"""What a row of the fault matrix is, and how its rounds are run: seeded, side by side, each judged. No faults."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.oracle import Findings
from tests.faults.trial import Trial
from tests.faults.workers import GREENQ, Library

#: Rounds of each row in the long run, unless a row says why it has fewer.
LONG_ROUNDS = 100
#: The same for RQ, whose recoveries are waited for to the limit each time.
RQ_ROUNDS = 10


@dataclass(frozen=True)
class Row:
    """A fault and what is to follow: `run` is one round, with random moments of its own."""

    #: Number in the matrix, and a word if that has several kinds of the fault: '8.oom'.
    key: str
    fault: str
    expected: str
    run: Callable[[Trial], None]
    #: Rounds in the quick and in the long run.
    quick: int
    long: int
    #: Whether `rq worker` can be put to the same test.
    rq: bool
    #: Whether its times suffer from other rounds beside it.
    alone: bool

    @property
    def number(self) -> int:
        return int(self.key.partition('.')[0])

    def rounds(self, library: Library, is_long: bool) -> int:
        if not is_long:
            return self.quick
        return self.long if library is GREENQ else min(self.long, RQ_ROUNDS)


_rows: list[Row] = []


def row(
    key: str,
    fault: str,
    expected: str,
    *,
    quick: int = 1,
    long: int = LONG_ROUNDS,
    rq: bool = True,
    alone: bool = False,
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Makes a function a row of the matrix."""

    def register(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
        _rows.append(Row(key, fault, expected, run, quick, long, rq, alone))
        return run

    return register


def registered_rows() -> list[Row]:
    return sorted(_rows, key=lambda row: row.number)


def chosen(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows of some keys; '8' stands for all kinds of 8. ValueError for a name that none has."""
    unknown = [name for name in names if not any(_is_meant(row, name) for row in rows)]
    if unknown:
        raise ValueError(f'There is no row {unknown[0]!r}. Use some of: {", ".join(row.key for row in rows)}.')
    return [row for row in rows if any(_is_meant(row, name) for name in names)]


def _is_meant(row: Row, name: str) -> bool:
    return name in (row.key, str(row.number))


def run_round(row: Row, library: Library, seed: int, number: int, is_long: bool, keep: Path | None = None) -> Findings:
    """One round. What breaks it is in the findings, with the round's folder if `keep` names a place for it."""
    rng = random.Random(f'{seed}:{row.key}:{number}')
    folder = Path(tempfile.mkdtemp(prefix=f'greenq-fault-{row.key}-'))
    try:
        with Trial(library, rng, folder, is_long) as trial:
            try:
                row.run(trial)
            except Exception as error:
                trial.require(False, f'the round ended early: {_describe(error)}')
            findings = _judge(trial)
        if findings.broken and keep is not None:
            shutil.copytree(folder, keep / f'{row.key}-{number}', dirs_exist_ok=True, ignore=_no_special_files)
        findings.broken = [f'round {number}: {text}' for text in findings.broken]
        return findings
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_special_files(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder) / name).is_file() and not (Path(folder) / name).is_dir()]


def _judge(trial: Trial) -> Findings:
    try:
        return trial.judge()
    except Exception as error:
        trial.require(False, f'the round cannot be judged: {_describe(error)}')
        trial.findings.rounds = 1
        return trial.findings


def _describe(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})'


def run_rows(
    rows: Sequence[Row],
    library: Library,
    rounds: Callable[[Row], int],
    *,
    seed: int,
    is_long: bool,
    parallel: int,
    keep: Path | None = None,
    on_round: Callable[[Row, Findings], None] = lambda row, findings: None,
) -> Iterator[tuple[Row, Findings]]:
    """Runs rows one after the other, the rounds of each side by side if it allows that; yields each row's sum."""
    lock = threading.Lock()

    def run(row: Row, number: int) -> Findings:
        findings = run_round(row, library, seed, number, is_long, keep)
        with lock:
            on_round(row, findings)
        return findings

    for row in rows:
        total = Findings()
        with ThreadPoolExecutor(1 if row.alone else parallel) as pool:
            for findings in pool.map(run, [row] * rounds(row), range(rounds(row))):
                total.add(findings)
        yield row, total
