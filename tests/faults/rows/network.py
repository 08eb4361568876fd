"""Rows 9 to 11: connections that are reset, freeze or lie dead; clocks that are wrong."""

from __future__ import annotations

import time

import redis

from tests.faults import jobs
from tests.faults.ledger import held_by
from tests.faults.row import row
from tests.faults.rows.process_death import HOST_SECONDS
from tests.faults.rows.redis_trouble import producing
from tests.faults.trial import Trial

HOUR = 3600.0


@row('9', 'a reset on every k-th request of producer and worker (k from 3 to 20)', 'nothing twice, no worker ends')
def resets(trial: Trial) -> None:
    with trial.start_network() as network:
        worker = trial.start_worker(url=network.url, slots=20)
        # The one retries by itself, which may send a command twice; the other never does.
        patient = redis.Redis(host='127.0.0.1', port=network.port)
        blunt = redis.Redis.from_url(network.url)
        network.reset_every(trial.rng.randint(3, 20))
        rate = 20.0 if trial.is_greenq else 3.0
        with patient, blunt, producing(trial, rate, patient), producing(trial, rate, blunt):
            trial.naps(30 if trial.is_greenq else 5, 0.0, 0.3)
            time.sleep(trial.rng.uniform(2.0, 4.0))
        trial.findings.note_figure('connections reset', network.resets)
        network.reset_every(0)
        trial.settle()
        trial.require(worker.is_alive, f'the worker ended with status {worker.status}')


# ---- 10 ----


def _freeze(trial: Trial, seconds: float, *, is_half_open: bool = False) -> None:
    """Cuts one of two workers off; the other one has a direct line."""
    with trial.start_network() as network:
        cut_off = trial.start_worker(url=network.url, slots=20)
        other = trial.start_worker(slots=20)
        trial.naps(50 if trial.is_greenq else 6, 0.5, 3.0)
        trial.wait_for_starts(20 if trial.is_greenq else 2)
        trial.pause(0.0, 1.0)
        if is_half_open:
            network.lose()
        network.freeze()
        since = time.monotonic()
        executions = held_by(trial.client, trial.note_interrupted(), cut_off.name)
        # Shorter than the lease without the beat before it, nobody else may take anything over.
        if seconds < 10.0:
            trial.promises.may_repeat.clear()
        if seconds > 20.0:
            trial.wait_until_recovered(executions, HOST_SECONDS, since)
        time.sleep(max(seconds - (time.monotonic() - since), 0.0))
        network.thaw()
        if seconds <= 20.0:
            trial.wait_until_recovered(executions, HOST_SECONDS, since)
        trial.naps(20 if trial.is_greenq else 4, 0.0, 0.5)
        trial.settle()
        trial.require(cut_off.is_alive, f'the worker that was cut off ended with status {cut_off.status}')
        trial.require(other.is_alive, f'the other worker ended with status {other.status}')


@row('10.short', 'the network freezes for 0.5 to 3 s', 'nothing runs twice')
def short_freeze(trial: Trial) -> None:
    _freeze(trial, trial.rng.uniform(0.5, 3.0))


@row('10.long', 'the network freezes for 10 to 40 s', 'peers take over in 30 s; the late outcomes are dropped')
def long_freeze(trial: Trial) -> None:
    _freeze(trial, trial.rng.uniform(22.0, 26.0) if not trial.is_long else trial.rng.uniform(10.0, 40.0))


@row('10.dead', 'all connections are dead without a word, and the network frozen for 1 to 3 s', 'nothing runs twice')
def dead_connections(trial: Trial) -> None:
    _freeze(trial, trial.rng.uniform(1.0, 3.0), is_half_open=True)


@row('10.minute', 'the network freezes for 60 s', 'as above', quick=0, long=4, rq=False)
def freeze_of_a_minute(trial: Trial) -> None:
    _freeze(trial, 60.0)


@row('10.minutes', 'the network freezes for 10 min', 'as above', quick=0, long=1, rq=False)
def freeze_of_minutes(trial: Trial) -> None:
    _freeze(trial, 600.0)


# ---- 11 ----


@row('11', 'the clocks of two of three workers are an hour off', 'no early recovery; what is scheduled comes in time')
def wrong_clocks(trial: Trial) -> None:
    shifts = [HOUR, -HOUR, 0.0]
    trial.rng.shuffle(shifts)
    # Their cleaning is what would take another's work for abandoned.
    for shift in shifts:
        trial.start_worker('--with-scheduler', '--maintenance-interval', '1', slots=20, clock_shift=shift)
    trial.naps(60 if trial.is_greenq else 9, 1.0, 4.0)
    delays = [trial.rng.uniform(1.0, 4.0) for _ in range(5)]
    ids = trial.schedule(jobs.nap, delays)
    due = {id: trial.accepted_at[id] + delay for id, delay in zip(ids, delays, strict=True)}
    trial.settle()
    starts = {id: runs[0].began for id, runs in trial.ledger.runs().items()}
    worst = max(abs(starts.get(id, at + HOUR) - at) for id, at in due.items())
    trial.findings.note_figure('scheduled jobs off by (s)', worst)
    # An hour would be the skew; a greenq scheduler goes by Redis' clock.
    trial.require(worst < 5.0, f'a scheduled job came {worst:.1f} s too early or late')
