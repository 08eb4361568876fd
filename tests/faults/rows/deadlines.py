"""Rows 16 to 18: jobs that do not end by themselves, each a bit worse to stop than the one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.faults import jobs
from tests.faults.row import row
from tests.faults.rows.bad_jobs import check_reason
from tests.faults.trial import Trial

#: The job's timeout, the grace after it (s), and what the machine may take to start the next worker.
TIMEOUT, GRACE, SLACK = 1.0, 5.0, 1.0


def _overstay(trial: Trial, job: Callable[[str], Any], limit: float, *, replaces_process: bool) -> None:
    """A job that has to be ended, among others; `limit` (s) counts from its start."""
    worker = trial.start_worker(slots=20)
    pids = [child.pid for child in worker.children()]
    neighbours = trial.naps(10 if trial.is_greenq else 1, 0.0, 3.0)
    trial.wait_for_starts(1)
    trial.pause(0.0, 0.5)
    (bad,) = trial.enqueue(job, [()], end='failed', timeout=int(TIMEOUT))
    neighbours += trial.naps(10 if trial.is_greenq else 1, 0.0, 2.0)
    if replaces_process:
        trial.promises.may_repeat |= set(neighbours)
    client = trial.client
    trial.must_come(lambda: bad in trial.ledger.started(), 'the job begins', fatal=True)
    since = trial.ledger.runs()[bad][0].began
    trial.must_come(lambda: client.zscore('rq:failed:default', bad) is not None, 'the job fails')
    trial.note_recovery(time.monotonic() - since, limit)
    trial.settle()
    check_reason(trial, bad)
    if trial.is_greenq and not replaces_process:
        trial.require([child.pid for child in worker.children()] == pids, 'the process with the jobs was replaced')
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')


@row('16.loop', '`while True: pass` (timeout 1 s)', 'JobTimeoutException in 1 s more; neighbours delayed only', long=50)
def endless_loop(trial: Trial) -> None:
    _overstay(trial, jobs.loop_for_ever, TIMEOUT + 1.0, replaces_process=False)


@row('16.regex', 'a regular expression that backtracks for ever (timeout 1 s)', 'the same', long=50)
def endless_match(trial: Trial) -> None:
    _overstay(trial, jobs.match_for_ever, TIMEOUT + 1.0, replaces_process=False)


@row('17.gil', 'C code that holds the interpreter (timeout 1 s)', 'its process is killed 5 s later, it fails', long=50)
def held_interpreter(trial: Trial) -> None:
    _overstay(trial, jobs.hold_interpreter, TIMEOUT + GRACE + SLACK + 2.0, replaces_process=True)


@row('17.blocked', 'C code that blocks the process (timeout 1 s)', 'the same', long=50)
def blocked_process(trial: Trial) -> None:
    _overstay(trial, jobs.block_in_c, TIMEOUT + GRACE + SLACK + 2.0, replaces_process=True)


@row('18', 'a job that swallows every exception (timeout 1 s)', 'its process is replaced 15 s later at most, it fails')
def swallowed_timeouts(trial: Trial) -> None:
    _overstay(trial, jobs.swallow_for_ever, TIMEOUT + 3 * GRACE + SLACK, replaces_process=True)
