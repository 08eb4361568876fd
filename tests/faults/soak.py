"""Row 26: minutes or hours of mixed jobs and random faults, during which nothing may grow."""

from __future__ import annotations

import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.faults import jobs
from tests.faults.network import Network
from tests.faults.oracle import Findings
from tests.faults.servers import TROUBLE
from tests.faults.trial import Trial
from tests.faults.workers import GREENQ, Worker

SOAK_MINUTES = 20.0
#: Jobs a second, how long (s) a result is kept, how often (s) a fault strikes and a sample is taken.
RATE, RESULT_SECONDS, FAULT_SECONDS, SAMPLE_SECONDS = 40.0, 10, 15.0, 5.0
#: Queue of the jobs that end their process.
RISKY = 'risky'
#: By how much each may be more in the last third than in the first (of which the start is left out): factor, and what
#: is always allowed.
TOLERANCES = {'rss (MB)': (1.15, 10.0), 'descriptors': (1.1, 5.0), 'keys': (1.3, 100.0), 'connections': (1.2, 10.0)}


@dataclass(frozen=True)
class _Sample:
    """What may not grow, at one moment."""

    at: float
    values: dict[str, float]


def soak(minutes: float, seed: int) -> Findings:
    """Runs it; the findings say what was lost, and what grew."""
    with (
        tempfile.TemporaryDirectory(prefix='greenq-soak-') as folder,
        Trial(GREENQ, random.Random(f'{seed}:soak'), Path(folder), is_long=True) as trial,
    ):
        trial.start_server('appendonly yes', 'appendfsync everysec')
        with trial.start_network() as network:
            return _Soak(trial, network).run(minutes * 60)


class _Soak:
    """Three workers: one whose process is never harmed, and which is measured; one to harm, which alone takes the jobs
    that end their process; one behind the network."""

    def __init__(self, trial: Trial, network: Network) -> None:
        self._trial = trial
        self._network = network
        self._steady = trial.start_worker('--quiet', name='steady', slots=50)
        self._victim = self._new_victim()
        self._remote = trial.start_worker('--quiet', url=network.url, slots=50)
        self._accepted: set[str] = set()
        self._samples: list[_Sample] = []
        self._faults = 0

    def run(self, seconds: float) -> Findings:
        is_over = threading.Event()
        producer = threading.Thread(target=self._produce, args=(is_over,))
        producer.start()
        began = time.monotonic()
        next_fault = began + FAULT_SECONDS
        try:
            while time.monotonic() < began + seconds:
                time.sleep(SAMPLE_SECONDS)
                self._sample(began)
                if time.monotonic() >= next_fault:
                    self._strike()
                    next_fault = time.monotonic() + FAULT_SECONDS
        finally:
            is_over.set()
            producer.join()
        return self._judge(seconds)

    def _produce(self, is_over: threading.Event) -> None:
        """Jobs of all kinds. Their results expire, so the ledger alone tells whether they ran."""
        trial, rng = self._trial, self._trial.rng
        queues = {name: trial.queue(name) for name in ('default', RISKY)}
        while not is_over.wait(1 / RATE):
            dice = rng.random()
            func: Callable[..., Any] = jobs.nap
            arguments: tuple[Any, ...] = (rng.choice([0.0, 0.05, 0.5, 2.0]),)
            if dice < 0.02:
                func, arguments = jobs.fail, ()
            elif dice < 0.022:
                func, arguments = jobs.exit_at_once, ()
            elif dice < 0.05:
                func, arguments = jobs.take, (bytes(200_000),)
            id = trial.new_id()
            try:
                queues[RISKY if func is jobs.exit_at_once else 'default'].enqueue(
                    f'{func.__module__}.{func.__name__}',
                    args=(id, *arguments),
                    job_id=id,
                    result_ttl=RESULT_SECONDS,
                    failure_ttl=RESULT_SECONDS,
                )
            except TROUBLE:
                continue
            if func is jobs.nap:
                self._accepted.add(id)

    def _strike(self) -> None:
        rng = self._trial.rng
        self._faults += 1
        rng.choice([self._kill_child, self._kill_host, self._restart_redis, self._freeze, self._reset, self._stop])()

    def _kill_child(self) -> None:
        self._victim.kill_child()

    def _kill_host(self) -> None:
        self._victim.kill_all()
        self._victim = self._new_victim()

    def _stop(self) -> None:
        self._victim.signal(signal.SIGTERM)
        if self._victim.wait(40) is None:
            self._trial.require(False, 'a worker does not leave')
        self._victim = self._new_victim()

    def _new_victim(self) -> Worker:
        return self._trial.start_worker(RISKY, 'default', '--quiet', '--with-scheduler', slots=50)

    def _restart_redis(self) -> None:
        # Killed, not cut off from power: what it wrote is in its file.
        self._trial.server.kill()
        self._trial.pause(0.0, 2.0)
        self._trial.server.start()

    def _freeze(self) -> None:
        self._network.freeze()
        self._trial.pause(1.0, 20.0)
        self._network.thaw()

    def _reset(self) -> None:
        self._network.reset_every(5)
        self._trial.pause(1.0, 3.0)
        self._network.reset_every(0)

    # ---- measuring ----

    def _sample(self, began: float) -> None:
        try:
            client = self._trial.server.client()
            with client:
                keys, connections = client.dbsize(), len(client.client_list())
        except TROUBLE:
            return
        family = self._steady.family()
        values = {
            'rss (MB)': sum(_of(process, lambda each: each.memory_info().rss) for process in family) / 2**20,
            'descriptors': sum(_of(process, lambda each: each.num_fds()) for process in family),
            'keys': keys,
            'connections': connections,
        }
        self._samples.append(_Sample(time.monotonic() - began, values))

    def _judge(self, seconds: float) -> Findings:
        trial = self._trial
        trial.must_come(lambda: self._accepted <= trial.ledger.ended(), 'all that was accepted has ended')
        missing = self._accepted - trial.ledger.ended()
        findings = trial.findings
        findings.rounds, findings.jobs, findings.lost = self._faults, len(self._accepted), len(missing)
        findings.duplicates = trial.ledger.starts() - len(trial.ledger.started())
        findings.note_figure('faults', self._faults)
        first = [sample for sample in self._samples if seconds / 6 <= sample.at < seconds / 2]
        last = [sample for sample in self._samples if sample.at >= seconds * 2 / 3]
        for name, (factor, extra) in TOLERANCES.items():
            before, after = (statistics.median(sample.values[name] for sample in part) for part in (first, last))
            findings.note_figure(f'{name}, first third', before)
            findings.note_figure(f'{name}, last third', after)
            trial.require(after <= before * factor + extra, f'{name} grew from {before:.0f} to {after:.0f}')
        return findings


def _of(process: psutil.Process, measure: Callable[[Any], float]) -> float:
    try:
        return measure(process)
    except psutil.NoSuchProcess:
        return 0.0
