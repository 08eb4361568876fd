"""Rows 22 and 23: a million jobs wait, a hundred thousand are due or failed at once, thousands sleep side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.faults import jobs
from tests.faults.ledger import count_ended
from tests.faults.row import row
from tests.faults.trial import Trial
from tests.faults.workers import Worker

#: Longest time (s) for which greenq may hold up Redis.
STALL_SECONDS = 0.05
#: What the process with the jobs may grow by (MB) while it works off everything.
GROWTH_MB = 60.0


@contextmanager
def watching_redis(trial: Trial) -> Iterator[None]:
    """Measures during the block how long Redis keeps others waiting, by a PING every few milliseconds."""
    client = trial.client
    client.config_set('slowlog-log-slower-than', 5000)
    client.slowlog_reset()
    is_over = threading.Event()
    waits = [0.0]

    def ping() -> None:
        with trial.server.client() as pinging:
            while not is_over.wait(0.002):
                waits[0] = max(waits[0], _time_ping(pinging, trial.server.pid))

    pinger = threading.Thread(target=ping)
    pinger.start()
    try:
        yield
    finally:
        is_over.set()
        pinger.join()
    slowest = max(client.slowlog_get(128), key=lambda entry: entry['duration'], default=None)
    what = f', perhaps for {slowest["command"][:50]!r}' if slowest else ''
    trial.findings.note_figure('longest PING (ms)', waits[0] * 1000)
    trial.require(waits[0] <= STALL_SECONDS, f'Redis stood still for {waits[0] * 1000:.0f} ms{what}')


def _time_ping(client: Any, server_pid: int) -> float:
    """Seconds that a PING took, but for those that server and client waited for a processor, which others had."""
    before = _waited(f'{server_pid}') + _waited('thread-self')
    began = time.monotonic()
    client.ping()
    took = time.monotonic() - began
    return took - (_waited(f'{server_pid}') + _waited('thread-self') - before)


def _waited(process: str) -> float:
    """Seconds for which a process was ready and had no processor; 0 where the system does not say."""
    try:
        return int(Path(f'/proc/{process}/schedstat').read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _memory_mb(worker: Worker) -> float:
    """Of all its processes."""
    total = 0
    for process in worker.family():
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return total / 2**20


def _wait_for_end(trial: Trial, total: int, patience: float) -> None:
    client = trial.client
    trial.must_come(lambda: count_ended(client) >= total, f'all {total} have ended', patience)


@row(
    '22.queued',
    '1,000,000 jobs wait (quick: 20,000)',
    'flat memory; Redis never stands still for 50 ms',
    long=1,
    rq=False,
    alone=True,
)
def long_queue(trial: Trial) -> None:
    total = trial.pick(20_000, 1_000_000)
    for at in range(0, total, 10_000):
        trial.enqueue(jobs.nap, [()] * min(10_000, total - at), description='')
    worker = trial.start_worker('--quiet', slots=200)
    trial.wait_for_starts(2000)
    before = _memory_mb(worker)
    began, so_far = time.monotonic(), trial.ledger.starts()
    with watching_redis(trial):
        _wait_for_end(trial, total, 1200.0)
    trial.findings.note_figure('jobs per second', (total - so_far) / (time.monotonic() - began))
    grown = _memory_mb(worker) - before
    trial.findings.note_figure('grown by (MB)', grown)
    trial.require(grown < GROWTH_MB, f'the worker grew by {grown:.0f} MB')


@row(
    '22.scheduled',
    '100,000 jobs are due at once (quick: 3,000)',
    'Redis never stands still for 50 ms',
    long=2,
    rq=False,
    alone=True,
)
def many_due(trial: Trial) -> None:
    total = trial.pick(3000, 100_000)
    trial.schedule(jobs.nap, [0.0] * total)
    with watching_redis(trial):
        trial.start_worker('--with-scheduler', '--quiet', slots=100)
        _wait_for_end(trial, total, 600.0)


@row('22.failed', '100,000 failed jobs expire at once (quick: 3,000)', 'the same', long=2, rq=False, alone=True)
def many_failed(trial: Trial) -> None:
    total = trial.pick(3000, 100_000)
    client: Any = trial.client
    ids = trial.enqueue(jobs.fail, [()] * total, end='failed', failure_ttl=3600)
    worker = trial.start_worker('--quiet', slots=100)
    _wait_for_end(trial, total, 600.0)
    worker.end()
    # An hour goes by.
    for at in range(0, total, 10_000):
        client.zadd('rq:failed:default', dict.fromkeys(ids[at : at + 10_000], 1.0))
    trial.promises.ends.update(dict.fromkeys(ids, 'dropped'))
    with watching_redis(trial):
        trial.start_worker('--quiet', '--maintenance-interval', '1')
        trial.must_come(lambda: not client.zcard('rq:failed:default'), 'the registry is cleaned', 120.0)


@row(
    '23',
    '10,000 jobs sleep at once (quick: 1,000), all write through the worker',
    'few connections; all wait alike',
    long=5,
    rq=False,
    alone=True,
)
def many_sleepers(trial: Trial) -> None:
    total = trial.pick(1000, 10_000)
    client: Any = trial.client
    trial.enqueue(jobs.use_redis, [(2.0,)] * total)
    worker = trial.start_worker('--quiet', slots=total)
    own = len(client.client_list()) - 10
    most = 0
    until = time.monotonic() + 120.0
    while count_ended(client) < total and time.monotonic() < until:
        most = max(most, len(client.client_list()))
        time.sleep(0.05)
    trial.findings.note_figure('connections', most)
    trial.require(most - max(own, 0) < 60, f'{most} connections')
    trial.settle()
    ends = sorted(run.ended or 0.0 for runs in trial.ledger.runs().values() for run in runs)
    starts = sorted(runs[0].began for runs in trial.ledger.runs().values())
    trial.findings.note_figure('all at once after (s)', starts[-1] - starts[0])
    trial.findings.note_figure('first end to last (s)', ends[-1] - ends[0])
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')
