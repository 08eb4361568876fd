"""Rows 14, 15 and 19: jobs that raise what they should not, return what cannot be kept, or cannot even be read."""

from __future__ import annotations

import base64
import zlib
from typing import Any

from tests.faults import jobs
from tests.faults.row import row
from tests.faults.trial import Trial
from tests.faults.workers import Worker

RAISED = (
    'sys.exit',
    'KeyboardInterrupt',
    'GreenletExit',
    'SystemError',
    'MemoryError',
    'RecursionError',
    'Unprintable',
)
#: How long (s) one bad job may keep its neighbours from running.
BLOCK_SECONDS = 1.0


def _check_worker(trial: Trial, worker: Worker, pids: list[int]) -> None:
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')
    if trial.is_greenq:
        trial.require([child.pid for child in worker.children()] == pids, 'the process with the jobs was replaced')


def _pids(worker: Worker) -> list[int]:
    return [child.pid for child in worker.children()]


def check_reason(trial: Trial, id: str) -> None:
    """A failed job says why."""
    entries: list[Any] = trial.client.xrevrange(f'rq:results:{id}', count=1)
    text = ''
    if entries:
        encoded = entries[0][1].get(b'exc_string', b'')
        text = zlib.decompress(base64.b64decode(encoded)).decode() if encoded else ''
    trial.require(text.strip(), f'{id} failed without a reason')


@row('14', 'sys.exit, KeyboardInterrupt, GreenletExit, MemoryError and the like', 'the job fails; neighbours untouched')
def bad_exceptions(trial: Trial) -> None:
    worker = trial.start_worker(slots=20)
    pids = _pids(worker)
    names = list(RAISED)
    trial.rng.shuffle(names)
    bad = []
    for name in names:
        trial.naps(3 if trial.is_greenq else 1, 0.0, 0.5)
        bad += trial.enqueue(jobs.raise_named, [(name,)], end='failed')
    trial.naps(10 if trial.is_greenq else 1, 0.0, 1.0)
    trial.settle()
    for id in bad:
        check_reason(trial, id)
    _check_worker(trial, worker, pids)


@row(
    '15',
    'results and exceptions that cannot be pickled or are huge, huge arguments',
    'ended with a reason; neighbours wait less than 1 s',
    alone=True,
)
def bad_results(trial: Trial) -> None:
    worker = trial.start_worker(slots=20)
    pids = _pids(worker)
    size = trial.pick(20, 50)
    if trial.is_greenq:
        trial.enqueue(jobs.measure_gaps, [(3.0,)])
        trial.wait_for_starts(1)
    # RQ keeps a note in place of a result that it cannot store, and counts the job as finished; so may greenq.
    trial.enqueue(jobs.return_unpicklable, [()], end='ended')
    trial.enqueue(jobs.return_huge, [(size,)], end='ended')
    bad = trial.enqueue(jobs.raise_unpicklable, [()], end='failed')
    bad += trial.enqueue(jobs.raise_huge, [(trial.pick(2, 20),)], end='failed')
    trial.enqueue(jobs.take, [(bytes(trial.pick(5, 20) << 20),)])
    trial.naps(20 if trial.is_greenq else 2, 0.0, 2.0)
    trial.settle()
    for id in bad:
        check_reason(trial, id)
    for gap in trial.ledger.gaps().values():
        trial.findings.note_figure('neighbours waited (s)', gap)
        trial.require(gap < BLOCK_SECONDS, f'neighbours were kept from running for {gap:.2f} s')
    _check_worker(trial, worker, pids)


# ---- 19 ----


@row('19', 'corrupt records, missing ones, unknown functions, modules that do not import', 'only these fail')
def unreadable_jobs(trial: Trial) -> None:
    client = trial.client
    here = 'tests.faults'
    bad = {
        'created_at': trial.enqueue(jobs.nap, [()], end='failed'),
        'timeout': trial.enqueue(jobs.nap, [()], end='failed'),
        'data': trial.enqueue(jobs.nap, [()], end='failed'),
        'function': trial.enqueue(f'{here}.jobs.no_such_job', [()], end='failed'),
        'module': trial.enqueue(f'{here}.no_such_module.job', [()], end='failed'),
        'import': trial.enqueue(f'{here}.raises_on_import.job', [()], end='failed'),
    }
    (gone,) = trial.enqueue(jobs.nap, [()], end='dropped')
    # What cannot be read may still be run: RQ and greenq need no date to call a function.
    for field in ('created_at', 'timeout', 'data'):
        client.hset(f'rq:job:{bad[field][0]}', field, trial.rng.randbytes(20))
    trial.promises.ends[bad['created_at'][0]] = 'ended'
    client.delete(f'rq:job:{gone}')
    trial.naps(20 if trial.is_greenq else 3, 0.0, 0.5)
    _shuffle_queue(trial)
    worker = trial.start_worker(slots=20)
    pids = _pids(worker)
    trial.settle()
    for name, (id,) in bad.items():
        if name != 'created_at':
            check_reason(trial, id)
    _check_worker(trial, worker, pids)


def _shuffle_queue(trial: Trial) -> None:
    client = trial.client
    ids = client.lrange('rq:queue:default', 0, -1)
    trial.rng.shuffle(ids)
    client.delete('rq:queue:default')
    client.rpush('rq:queue:default', *ids)


@row('19.import', 'a job whose module takes for ever to import (timeout 1 s)', 'it fails in time; only it', long=20)
def hanging_import(trial: Trial) -> None:
    trial.naps(20 if trial.is_greenq else 3, 0.0, 0.5)
    trial.enqueue('tests.faults.hangs_on_import.job', [()], end='failed', timeout=1)
    trial.naps(20 if trial.is_greenq else 3, 0.0, 0.5)
    _shuffle_queue(trial)
    worker = trial.start_worker(slots=20)
    pids = _pids(worker)
    trial.settle()
    _check_worker(trial, worker, pids)
