"""The rows of the fault matrix, a few rounds each; `python -m tests.faults --long` runs more.

Row 25, a fleet of RQ's and greenq's workers, is `tests/interop/test_mixed_fleet.py`; row 26, the soak, is not run here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults.oracle import Findings
from tests.faults.row import Row, run_round
from tests.faults.rows import ROWS
from tests.faults.workers import GREENQ

pytestmark = pytest.mark.faults

#: Of all that is random; a failure is reproduced by `python -m tests.faults --rows <row> --seed <seed>`.
SEED = 4
#: Rounds side by side. Most of their time they wait for a lease to end.
PARALLEL = 4

#: Those that run alone are the last.
QUICK = sorted((row for row in ROWS if row.quick), key=lambda row: row.alone)


@pytest.fixture(scope='module')
def rounds(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Future[Findings]]]]:
    """The rounds of the rows that are to be tested, under way; those whose times suffer from others come last."""
    wanted = {row.key for row in map(_row_of, request.session.items) if row}
    rows = [row for row in QUICK if row.key in wanted]
    with ThreadPoolExecutor(PARALLEL) as together, ThreadPoolExecutor(1) as alone:
        futures = {row.key: _submit(together, row) for row in rows if not row.alone}
        earlier = [future for each in futures.values() for future in each]

        def after_all(row: Row, number: int) -> Findings:
            for future in earlier:
                future.exception()
            return run_round(row, GREENQ, SEED, number, is_long=False)

        for row in rows:
            if row.alone:
                futures[row.key] = [alone.submit(after_all, row, number) for number in range(row.quick)]
        yield futures


def _row_of(item: pytest.Item) -> Row | None:
    """The row that a test is about."""
    callspec = getattr(item, 'callspec', None)
    row = callspec.params.get('row') if callspec else None
    return row if isinstance(row, Row) else None


def _submit(pool: ThreadPoolExecutor, row: Row) -> list[Future[Findings]]:
    return [pool.submit(run_round, row, GREENQ, SEED, number, False) for number in range(row.quick)]


@pytest.mark.parametrize('row', [pytest.param(row, id=row.key) for row in QUICK])
def test_row(row: Row, rounds: dict[str, list[Future[Findings]]]) -> None:
    total = Findings()
    for future in rounds[row.key]:
        total.add(future.result())
    print(f'{row.key}: {total}')
    assert total.broken == [], f'{row.fault}: {row.expected}'
