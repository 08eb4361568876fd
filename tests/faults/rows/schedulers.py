"""Row 24: schedulers and cron of which the leading one dies in the middle of its work."""

from __future__ import annotations

import re
import sys
import time

from tests.faults import jobs
from tests.faults.ledger import read_places
from tests.faults.row import row
from tests.faults.rows.process_death import HOST_SECONDS
from tests.faults.trial import Trial
from tests.faults.workers import Worker
from tests.helpers import ROOT

#: Seconds over which the jobs are spread that two schedulers have to look after.
SPREAD_SECONDS = 6.0
TICK_SECONDS = 1

_CRON = """
from {library} import cron
from tests.faults import jobs

cron.register(jobs.tick, queue_name='default', interval={seconds}, result_ttl=86400)
"""


@row('24.scheduler', 'two schedulers, the leading host is killed', 'each job once, in time or up to 30 s late')
def killed_scheduler(trial: Trial) -> None:
    hosts = [trial.start_worker('--with-scheduler', slots=20) for _ in range(2)]
    count = 200 if trial.is_greenq else 40
    delays = sorted(trial.rng.uniform(0.5, SPREAD_SECONDS) for _ in range(count))
    ids = trial.schedule(jobs.nap, delays)
    leader = _leader(trial, hosts)
    trial.pause(0.5, SPREAD_SECONDS - 1.0)
    leader.kill_all()
    since = time.monotonic()
    trial.note_interrupted()
    trial.settle()
    last = max((runs[0].began for runs in trial.ledger.runs().values()), default=since)
    due = max(trial.accepted_at[id] + delay for id, delay in zip(ids, delays, strict=True))
    late = last - max(due, since) if trial.promises.ends.keys() <= trial.ledger.started() else 60.0
    trial.note_recovery(max(late, 0.0), HOST_SECONDS)


def _leader(trial: Trial, hosts: list[Worker]) -> Worker:
    """The host whose scheduler says that it has the lock."""
    client = trial.client
    trial.must_come(lambda: client.get('rq:scheduler-lock:default'), 'a scheduler leads', fatal=True)
    said = re.compile(r'cquired.* lock', re.IGNORECASE)
    trial.must_come(lambda: any(said.search(host.output) for host in hosts), 'it says so', fatal=True)
    return next(host for host in hosts if said.search(host.output))


@row('24.cron', 'two cron processes, one is killed', 'each tick once, none missing')
def killed_cron(trial: Trial) -> None:
    trial.start_worker(slots=10)
    config = trial.folder / 'cron_jobs.py'
    config.write_text(_CRON.format(library=trial.library.name, seconds=TICK_SECONDS))
    program = 'rq.cli' if trial.library.name == 'rq' else 'greenq'
    command = [sys.executable, '-m', program, 'cron', '--path', str(ROOT), '--url', trial.server.url, str(config)]
    crons = [trial.start_process(name, command) for name in ('cron-1', 'cron-2')]
    trial.must_come(trial.ledger.started, 'the first tick', fatal=True)
    first = time.monotonic()
    trial.pause(1.0, 4.0)
    trial.rng.choice(crons).kill_all()
    trial.pause(2.0, 4.0)
    for cron in crons:
        cron.end()
    elapsed = time.monotonic() - first
    trial.must_come(lambda: not trial.ledger.running() and not _waits(trial), 'all ticks have run')
    trial.promises.ends.update(dict.fromkeys(read_places(trial.client), 'finished'))
    ticks = len(trial.ledger.started())
    trial.findings.note_figure('ticks too many', max(ticks - (elapsed / TICK_SECONDS + 1), 0.0))
    trial.findings.note_figure('ticks missing', max(elapsed / TICK_SECONDS - 1 - ticks, 0.0))
    trial.require(ticks <= elapsed / TICK_SECONDS + 1, f'{ticks} ticks in {elapsed:.1f} s: some came twice')
    trial.require(ticks >= elapsed / TICK_SECONDS - 2, f'{ticks} ticks in {elapsed:.1f} s: some are missing')


def _waits(trial: Trial) -> bool:
    return any({'queued', 'parked', 'started'} & set(where) for where in read_places(trial.client).values())
