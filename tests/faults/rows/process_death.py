"""Rows 1 to 5, 12, 13 and 20: processes that die, stop, freeze, or take another's name."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from tests.faults import jobs
from tests.faults.ledger import count_ended, held_by, read_fields
from tests.faults.row import row
from tests.faults.trial import Trial
from tests.faults.workers import Worker

#: Promises of greenq (s); the first is that of a child under a live supervisor.
CHILD_SECONDS, HOST_SECONDS = 2.0, 30.0
#: What a worker may take (s) beyond its grace, and what the machine may take to notice it.
LEAVE_SECONDS, SLACK_SECONDS = 2.0, 1.0


@row('1', 'kill -9 of the process with 500 jobs', 'all given back in 2 s, all run again, no retry used', alone=True)
def killed_child(trial: Trial) -> None:
    count = 500 if trial.is_greenq else 10
    worker = trial.start_worker(slots=500)
    retry = {'retry': trial.library.api.Retry(max=2)} if trial.is_greenq else {}
    ids = trial.naps(count + count // 5, 1.0, 3.0, **retry)
    trial.wait_for_starts(trial.rng.randint(1, count if trial.is_greenq else 1))
    trial.pause(0.0, 0.5)
    worker.kill_child()
    since = time.monotonic()
    executions = trial.note_interrupted()
    trial.check_places()
    trial.wait_until_recovered(executions, CHILD_SECONDS, since)
    trial.settle()
    if trial.is_greenq:
        left = read_fields(trial.client, ids, 'retries_left')
        trial.require(set(left.values()) == {'2'}, 'a retry was used')
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')


@row('2', 'kill -9 of a whole host', 'its peers run its jobs within 30 s')
def killed_host(trial: Trial) -> None:
    doomed, _ = trial.start_worker(slots=30), trial.start_worker(slots=30)
    trial.naps(90 if trial.is_greenq else 10, 1.0, 3.0)
    _wait_until_working(trial, doomed)
    trial.pause(0.0, 2.0)
    doomed.kill_all()
    since = time.monotonic()
    executions = held_by(trial.client, trial.note_interrupted(), doomed.name)
    trial.check_places()
    trial.wait_until_recovered(executions, HOST_SECONDS, since)
    trial.settle()


def _wait_until_working(trial: Trial, worker: Worker) -> None:
    """Until some job runs in a worker."""

    def works() -> bool:
        pids = {process.pid for process in worker.family()}
        return any(runs[-1].pid in pids and runs[-1].ended is None for runs in trial.ledger.runs().values())

    trial.must_come(works, f'{worker.name} runs a job', fatal=True)


#: More than a worker with 100 slots has in hand: claimed, running, and ended but not recorded.
IN_HAND = 700


@row('3', 'kill -9 among claims and finishes of tiny jobs, 5 times', 'no loss; a finish is whole or not at all')
def killed_midway(trial: Trial) -> None:
    queues = ('high', 'default')
    worker = trial.start_worker(*queues, slots=100)
    count = 4000 if trial.is_greenq else 300
    for name in queues:
        trial.enqueue(jobs.nap, [()] * (count // 2), queue=trial.queue(name))
    for kill in range(5):
        _wait_for_fresh_jobs(trial)
        trial.pause(0.0, 0.1)
        if trial.is_greenq:
            worker.kill_child()
        else:
            worker.kill_all()
        since = time.monotonic()
        executions = trial.note_interrupted(*queues)
        trial.check_places()
        if trial.is_greenq:
            trial.wait_until_recovered(executions, CHILD_SECONDS + SLACK_SECONDS, since, queues)
        else:
            worker = trial.start_worker(*queues, name=f'again{kill}')
    trial.settle()


def _wait_for_fresh_jobs(trial: Trial) -> None:
    """Until whatever was interrupted has ended: three interruptions in a row would rightly fail it."""
    client = trial.client
    enough = min(count_ended(client) + (IN_HAND if trial.is_greenq else 1), len(trial.promises.ends))
    trial.must_come(lambda: count_ended(client) >= enough, 'jobs go on')


# ---- 4: stops ----


def _stop_with_short_jobs(trial: Trial, number: signal.Signals) -> None:
    grace = 10.0
    worker = trial.start_worker(slots=10, grace=grace)
    trial.naps(40 if trial.is_greenq else 6, 0.3, 1.5)
    trial.wait_for_starts(trial.rng.randint(1, 20) if trial.is_greenq else 1)
    trial.pause(0.0, 0.3)
    worker.signal(number)
    took = worker.wait(30.0)
    trial.require(took is not None and took <= grace + LEAVE_SECONDS, f'left after {took} s')
    trial.require(worker.status == 0, f'ended with status {worker.status}')
    trial.check_places()
    trial.require(not trial.ledger.running(), 'a job was cut off within the grace')
    trial.start_worker()
    trial.settle()


@row('4.short', 'SIGTERM, jobs shorter than the grace', 'they end, nothing runs twice, none fails')
def stopped_with_short_jobs(trial: Trial) -> None:
    _stop_with_short_jobs(trial, signal.SIGTERM)


@row('4.int', 'SIGINT, jobs shorter than the grace', 'the same', long=50)
def interrupted_with_short_jobs(trial: Trial) -> None:
    _stop_with_short_jobs(trial, signal.SIGINT)


def _stop_with_long_jobs(trial: Trial, grace: float, stop: Callable[[Worker], None], limit: float) -> None:
    """`stop` returns at the moment from which `limit` (s) counts."""
    flag = trial.folder / 'go'
    worker = trial.start_worker(slots=10, grace=grace)
    running = trial.enqueue(jobs.wait_for, [(str(flag),)] * (10 if trial.is_greenq else 1))
    trial.wait_for_starts(len(running))
    waiting = trial.naps(10, 0.0, 0.2)
    trial.pause(0.0, 1.0)
    stop(worker)
    took = worker.wait(20.0)
    trial.note_recovery(20.0 if took is None else took, limit)
    executions = trial.note_interrupted()
    trial.require(not executions, f'{len(executions)} jobs were not given back')
    trial.check_places()
    queue = [id.decode() for id in trial.client.lrange('rq:queue:default', 0, -1)]
    trial.require(queue == [*running, *waiting], 'what was interrupted is not at the front of its queue')
    flag.touch()
    trial.start_worker()
    trial.settle()


@row('4.long', 'SIGTERM, jobs longer than the grace', 'at the front of the queue before the exit, in grace + 2 s')
def stopped_with_long_jobs(trial: Trial) -> None:
    _stop_with_long_jobs(trial, 1.0, lambda worker: worker.signal(signal.SIGTERM), 1.0 + LEAVE_SECONDS + SLACK_SECONDS)


@row('4.second', 'a second SIGTERM', 'the same, at once', long=50)
def stopped_twice(trial: Trial) -> None:
    def stop(worker: Worker) -> None:
        worker.signal(signal.SIGTERM)
        trial.pause(1.2, 2.0)  # closer together they are one
        worker.signal(signal.SIGTERM)

    _stop_with_long_jobs(trial, 60.0, stop, LEAVE_SECONDS + SLACK_SECONDS)


# ---- 5 ----


@row('5', 'rolling restart of 3 workers under load', 'nothing lost or failed; bounded wait', alone=True)
def rolling_restart(trial: Trial) -> None:
    workers = [trial.start_worker(slots=20, grace=10.0) for _ in range(3)]
    is_over = threading.Event()
    producer = threading.Thread(target=_produce, args=(trial, is_over, 100.0 if trial.is_greenq else 20.0))
    producer.start()
    try:
        for at in trial.rng.sample(range(3), 3):
            trial.pause(0.2, 0.8)
            workers[at].signal(signal.SIGTERM)
            trial.require(workers[at].wait(30.0) is not None, 'a worker does not leave')
            trial.require(workers[at].status == 0, f'a worker ended with status {workers[at].status}')
            trial.start_worker(slots=20)
    finally:
        is_over.set()
        producer.join()
    trial.settle()
    waits = sorted(runs[0].began - trial.accepted_at[id] for id, runs in trial.ledger.runs().items())
    p99 = waits[len(waits) * 99 // 100]
    trial.findings.note_figure('p99 wait (s)', p99)
    trial.require(p99 <= 3.0, f'the 99th percentile of the waits is {p99:.2f} s')


def _produce(trial: Trial, is_over: threading.Event, rate: float) -> None:
    queue = trial.queue()
    while not is_over.wait(1 / rate):
        trial.enqueue(jobs.nap, [(0.05 if trial.is_greenq else 0.0,)], queue=queue)


# ---- 12 ----


@row('12', 'SIGSTOP of a host for longer than its lease, then SIGCONT', 'peers take over; one final state, one result')
def frozen_host(trial: Trial) -> None:
    doomed, _ = trial.start_worker(slots=20), trial.start_worker(slots=20)
    trial.naps(60 if trial.is_greenq else 6, 1.0, 3.0)
    _wait_until_working(trial, doomed)
    trial.pause(0.0, 1.0)
    doomed.freeze()
    since = time.monotonic()
    executions = held_by(trial.client, trial.note_interrupted(), doomed.name)
    trial.wait_until_recovered(executions, HOST_SECONDS, since)
    if trial.rng.random() < 0.5:
        trial.pause(0.0, 3.0)
    doomed.thaw()
    trial.settle()
    # The one that came back is of use again.
    trial.naps(60 if trial.is_greenq else 4, 0.2, 0.5)
    trial.settle()


# ---- 13 ----


def _crash(trial: Trial, culprit: Callable[[str], None]) -> None:
    worker = trial.start_worker(slots=30)
    before = trial.naps(10 if trial.is_greenq else 2, 0.5, 3.0)
    (guilty,) = trial.enqueue(culprit, [()], end='failed')
    after = trial.naps(20 if trial.is_greenq else 2, 0.1, 3.0)
    trial.promises.may_repeat |= {*before, guilty, *after}
    since = time.monotonic()
    trial.settle()
    trial.findings.note_figure('until all have ended (s)', time.monotonic() - since)
    runs = trial.ledger.runs()
    if trial.is_greenq:
        times = len(runs.get(guilty, []))
        trial.require(times == 3, f'the job that crashes ran {times} times, not 3')
    trial.require(worker.is_alive, f'the worker ended with status {worker.status}')


@row('13.segfault', 'a job that segfaults', 'it fails after 3 runs; its neighbours end well', long=34)
def segfaulting_job(trial: Trial) -> None:
    _crash(trial, jobs.segfault)


@row('13.exit', 'a job that calls os._exit', 'the same', long=33)
def exiting_job(trial: Trial) -> None:
    _crash(trial, jobs.exit_at_once)


@row('13.memory', 'a job for which the kernel kills its process', 'the same', long=33)
def job_that_takes_too_much_memory(trial: Trial) -> None:
    _crash(trial, jobs.die_of_memory)


# ---- 20 ----


@row('20', 'a second worker of the same name', 'it is refused or renamed; the first keeps its jobs')
def duplicate_name(trial: Trial) -> None:
    first = trial.start_worker(slots=10, name='same')
    trial.naps(10 if trial.is_greenq else 2, 1.0, 3.0)
    trial.wait_for_starts(1)
    trial.pause(0.0, 0.5)
    second = trial.start_worker(slots=10, name='same', wait=False)
    trial.must_come(lambda: not second.is_alive or 'same' in second.output, 'the second says something', 20.0)
    trial.settle()
    trial.naps(20 if trial.is_greenq else 2, 0.0, 0.2)
    trial.settle()
    trial.require(first.is_alive, f'the first was ended, with status {first.status}')
    if not second.is_alive:
        trial.require('same' in second.output, 'the second does not say which name is taken')
