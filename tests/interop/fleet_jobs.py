"""The job of a mixed fleet: it enters its start and its end in a ledger. Only the standard library."""

from __future__ import annotations

import os
import time

LEDGER_VARIABLE = 'GREENQ_TEST_LEDGER'


def run(number: int, seconds: float, is_to_fail: bool) -> int:
    """Takes some time, then returns its number or raises."""
    _enter('start', number)
    time.sleep(seconds)
    _enter('end', number)
    if is_to_fail:
        raise ValueError(f'job {number} fails')
    return number


def _enter(event: str, number: int) -> None:
    """One write of one short line to a file that is only appended to: no two processes mix theirs."""
    ledger = os.open(os.environ[LEDGER_VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(ledger, f'{event} {number} {os.getpid()}\n'.encode())
    finally:
        os.close(ledger)
