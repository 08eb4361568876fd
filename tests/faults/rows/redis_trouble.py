"""Rows 6, 7, 8 and 21: Redis dies, loses its last second, changes its master, refuses writes, forgets everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.faults import jobs
from tests.faults.ledger import read_places
from tests.faults.row import row
from tests.faults.servers import TROUBLE, Server
from tests.faults.trial import Trial
from tests.faults.workers import Worker

#: Promises of greenq (s): until work goes on once Redis is back, and once another server leads.
RETURN_SECONDS, FAILOVER_SECONDS = 10.0, 15.0
#: What `appendfsync everysec` may lose (s): a second, and Redis' word that it may be one more.
WINDOW_SECONDS = 2.0


@contextmanager
def producing(trial: Trial, rate: float, client: Any = None) -> Iterator[None]:
    """Enqueues naps during the block; what is refused or unanswered is noted, and the next one tried."""
    is_over = threading.Event()

    def produce() -> None:
        queue = trial.queue(client=client)
        while not is_over.wait(1 / rate):
            trial.try_to_enqueue(trial.rng.choice([0.0, 0.1, 0.3]), queue)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        yield
    finally:
        is_over.set()
        producer.join()


def _rate(trial: Trial) -> float:
    """Jobs a second: what a worker of RQ's gets done, and more for greenq's."""
    return 60.0 if trial.is_greenq else 5.0


def _start_worker_and_load(trial: Trial) -> Worker:
    worker = trial.start_worker(slots=50)
    trial.naps(60 if trial.is_greenq else 5, 0.2, 2.0)
    trial.wait_for_starts(1)
    return worker


def _wait_for_work(trial: Trial, worker: Worker, since: float, limit: float = RETURN_SECONDS) -> None:
    """Until a job begins that was enqueued after the trouble, and the worker hears commands again."""
    patience = 30.0
    fresh: list[str] = []
    until = time.monotonic() + patience
    while not fresh and time.monotonic() < until:
        try:
            fresh = trial.enqueue(jobs.nap, [()])
        except TROUBLE:
            time.sleep(0.05)
    trial.must_come(lambda: set(fresh) & trial.ledger.started(), 'a new job begins', patience)
    trial.must_come(lambda: _listens(trial, worker), 'the worker hears commands', patience)
    trial.note_recovery(time.monotonic() - since, limit)
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')


def _listens(trial: Trial, worker: Worker) -> bool:
    return dict(trial.client.pubsub_numsub(f'rq:pubsub:{worker.name}')) == {f'rq:pubsub:{worker.name}'.encode(): 1}


# ---- 6 ----


@row('6.always', 'kill -9 of Redis (appendfsync always), started again', 'nothing lost; work goes on in 10 s')
def killed_redis(trial: Trial) -> None:
    server = trial.start_server('appendonly yes', 'appendfsync always', 'auto-aof-rewrite-percentage 0')
    worker = _start_worker_and_load(trial)
    with producing(trial, _rate(trial)):
        trial.pause(0.2, 1.0)
        server.kill()
        trial.pause(0.0, 2.0)
        server.start()
        since = time.monotonic()
        _wait_for_work(trial, worker, since)
    trial.settle()


@row(
    '6.everysec',
    'loss of power (appendfsync everysec): Redis goes back by up to 1 s',
    'lost: only what was accepted in that second; work goes on in 10 s',
)
def power_cut(trial: Trial) -> None:
    server = trial.start_server('appendonly yes', 'appendfsync everysec', 'auto-aof-rewrite-percentage 0')
    server.watch_file()
    worker = _start_worker_and_load(trial)
    with producing(trial, _rate(trial)):
        trial.pause(1.2, 2.0)
        state = server.cut_power(trial.rng.uniform(0.0, 1.0))
        trial.pause(0.0, 1.0)
        _note_what_is_rolled_back(trial, state)
        server.start()
        since = time.monotonic()
        _wait_for_work(trial, worker, since)
    trial.settle()


def _note_what_is_rolled_back(trial: Trial, state: float, slack: float = 0.1) -> None:
    """What was accepted after the moment `state` may be gone; what ran or ended after it may run again."""
    moment = state - slack
    trial.promises.may_be_lost |= {id for id, at in trial.accepted_at.items() if at >= moment}
    for id, runs in trial.ledger.runs().items():
        if runs[-1].ended is None or runs[-1].ended >= moment:
            trial.promises.may_repeat.add(id)


@row(
    '6.away', 'kill -9 of the worker process while Redis is away for some seconds', 'nothing lost; work goes on in 10 s'
)
def killed_child_without_redis(trial: Trial) -> None:
    server = trial.start_server('appendonly yes', 'appendfsync always')
    worker = _start_worker_and_load(trial)
    trial.pause(0.0, 0.5)
    server.kill()
    worker.kill_child()
    trial.promises.may_repeat |= trial.ledger.started()
    trial.pause(0.5, 4.0)
    server.start()
    since = time.monotonic()
    _wait_for_work(trial, worker, since)
    trial.settle()


# ---- 7 ----


def _start_pair(trial: Trial) -> tuple[Server, Server]:
    options = ('repl-diskless-sync yes', 'repl-diskless-sync-delay 0', 'repl-ping-replica-period 1')
    master, replica = trial.start_server(*options), trial.start_server(*options)
    replica.follow(master)
    replica.wait_until_in_step()
    return master, replica


def _enqueue_replicated(trial: Trial, client: Any, count: int) -> None:
    """Jobs whose producer waited (WAIT) until the replica had them, which closes the window for them."""
    trial.enqueue(jobs.nap, [(0.3,)] * count, queue=trial.queue(client=client))
    trial.require(client.wait(1, 5000) == 1, 'the replica does not keep up')


@row('7.failover', 'the master dies, its replica is promoted', 'work goes on in 15 s; with WAIT nothing is lost')
def failover(trial: Trial) -> None:
    master, replica = _start_pair(trial)
    with trial.start_network() as network:
        worker = trial.start_worker(url=network.url, slots=20)
        _enqueue_replicated(trial, trial.client, 100 if trial.is_greenq else 10)
        trial.wait_for_starts(1)
        trial.pause(0.0, 0.8)
        master.kill()
        trial.pause(0.2, 2.0)
        # What it had not told the replica yet is as if it had not been.
        trial.promises.may_repeat |= trial.ledger.started()
        replica.lead()
        trial.serve_from(replica)
        network.lead_to(replica.port)
        _wait_for_work(trial, worker, time.monotonic(), FAILOVER_SECONDS)
        trial.settle()


@row('7.readonly', 'the master becomes a replica (READONLY), clients follow later', 'the same')
def demotion(trial: Trial) -> None:
    master, replica = _start_pair(trial)
    with trial.start_network() as network:
        worker = trial.start_worker(url=network.url, slots=20)
        _enqueue_replicated(trial, trial.client, 100 if trial.is_greenq else 10)
        trial.wait_for_starts(1)
        trial.pause(0.0, 0.8)
        replica.lead()
        trial.serve_from(replica)
        master.follow(replica)
        trial.pause(0.2, 0.5)
        trial.promises.may_repeat |= trial.ledger.started()
        trial.pause(0.5, 3.0)
        network.lead_to(replica.port)
        _wait_for_work(trial, worker, time.monotonic(), FAILOVER_SECONDS)
        trial.settle()


# ---- 8 ----


def _refuse(trial: Trial, refuse: Callable[[], None], allow: Callable[[], None], low: float, high: float) -> None:
    worker = trial.start_worker(slots=20)
    trial.naps(60 if trial.is_greenq else 5, 0.2, 2.0)
    trial.wait_for_starts(1)
    trial.pause(0.0, 0.5)
    refuse()
    # RQ's worker may die of it and leave what it ran; greenq's has no excuse.
    if not trial.is_greenq:
        trial.note_interrupted()
    began = time.monotonic()
    trial.require(not trial.try_to_enqueue(), 'enqueue does not raise')
    trial.require(time.monotonic() - began < 1.0, 'enqueue does not raise at once')
    trial.pause(low, high)
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')
    allow()
    _wait_for_work(trial, worker, time.monotonic())
    trial.settle()


@row(
    '8.misconf',
    'Redis cannot save (MISCONF) for 1 to 5 s',
    'outcomes are kept and written; work goes on in 10 s',
    long=34,
)
def misconf(trial: Trial) -> None:
    _refuse(trial, trial.server.break_saving, trial.server.mend_saving, 1.0, 5.0)


@row('8.noreplicas', 'Redis misses its replicas (NOREPLICAS) for 1 to 5 s', 'the same', long=33)
def noreplicas(trial: Trial) -> None:
    server = trial.server
    _refuse(trial, lambda: server.demand_replicas(1), lambda: server.demand_replicas(0), 1.0, 5.0)


@row('8.oom', 'Redis is full (OOM)', 'enqueue raises; the queue drains; nothing runs twice', long=33)
def full_redis(trial: Trial) -> None:
    worker = trial.start_worker(slots=20)
    trial.naps(100 if trial.is_greenq else 10, 0.0, 0.3)
    trial.pause(0.0, 0.5)
    trial.server.fill()
    if not trial.is_greenq:
        trial.note_interrupted()
    began = time.monotonic()
    trial.require(not trial.try_to_enqueue(), 'enqueue does not raise')
    trial.require(time.monotonic() - began < 1.0, 'enqueue does not raise at once')
    trial.must_come(lambda: _has_drained(trial), 'the queue drains', 20.0)
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')
    trial.server.empty()
    _wait_for_work(trial, worker, time.monotonic())
    trial.settle()


def _has_drained(trial: Trial) -> bool:
    return not any({'queued', 'parked'} & set(where) for where in read_places(trial.client).values())


# ---- 21 ----


@row(
    '21.evicted',
    "the worker's record is deleted while jobs run",
    'it registers again in 5 s; nothing runs twice',
    long=50,
)
def evicted_record(trial: Trial) -> None:
    worker = _start_worker_and_load(trial)
    trial.pause(0.0, 1.0)
    trial.client.delete(f'rq:worker:{worker.name}')
    _wait_for_registration(trial, worker)
    trial.settle()


@row('21.flushall', 'FLUSHALL while jobs run', 'it registers again in 5 s; new jobs run, old ones end unheard', long=50)
def flushed(trial: Trial) -> None:
    worker = _start_worker_and_load(trial)
    trial.pause(0.0, 1.0)
    trial.client.flushall()
    # Everything that was promised was taken back.
    trial.promises.ends.clear()
    trial.promises.may_repeat.clear()
    if trial.rng.random() < 0.5:
        trial.client.script_flush()
    _wait_for_registration(trial, worker)
    _wait_for_work(trial, worker, time.monotonic())
    trial.naps(20 if trial.is_greenq else 3, 0.0, 0.5)
    trial.settle()


def _wait_for_registration(trial: Trial, worker: Worker) -> None:
    client = trial.client

    def is_registered() -> bool:
        return bool(client.exists(f'rq:worker:{worker.name}')) and bool(
            client.sismember('rq:workers', f'rq:worker:{worker.name}')
        )

    since = time.monotonic()
    trial.must_come(is_registered, 'the worker registers again', 30.0)
    trial.note_recovery(time.monotonic() - since, 6.0)
