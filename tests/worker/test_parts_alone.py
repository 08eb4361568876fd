"""The parts of a worker that need no Redis: signals, in_flight, reconnect, outcomes, and how turnover is measured."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import Any

import pytest
import redis

from greenq import Repeat, Retry
from greenq.executions import Execution
from greenq.job import Job
from greenq.results import Result, decode_exc_string
from greenq.utils import now
from greenq.worker import outcomes, signal_name
from greenq.worker.appetite import Appetite
from greenq.worker.in_flight import InFlight
from greenq.worker.reconnect import Backoff
from greenq.worker.signals import SignalHandlers, WakePipe
from greenq.worker.turnover import AHEAD_SECONDS, Turnover
from tests.helpers import wait_until
from tests.worker.jobs import SpeechlessError, add


def _is_awake(wake: WakePipe) -> bool:
    return bool(select.select([wake], [], [], 0)[0])


def test_a_wake_up_is_seen_once() -> None:
    wake = WakePipe()
    assert not _is_awake(wake)
    wake.wake()
    assert _is_awake(wake) and _is_awake(wake)
    wake.drain()
    assert not _is_awake(wake)
    wake.close()


def test_waking_never_blocks_nor_fails() -> None:
    wake = WakePipe()
    for _ in range(100_000):
        wake.wake()
    wake.drain()
    assert not _is_awake(wake)
    wake.close()
    wake.wake()
    wake.drain()
    wake.close()


def test_handlers_are_put_back() -> None:
    seen: list[int] = []
    before = signal.getsignal(signal.SIGUSR1)
    handlers = SignalHandlers()
    handlers.install({signal.SIGUSR1: lambda number, frame: seen.append(1)})
    handlers.install({signal.SIGUSR1: lambda number, frame: seen.append(2)})
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: seen)
    assert seen == [2]
    handlers.restore()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_thread_installs_no_handlers() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=lambda: SignalHandlers().install({signal.SIGUSR1: lambda number, frame: None}))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_signal_names() -> None:
    assert signal_name(signal.SIGTERM) == 'SIGTERM'
    assert signal_name(-5) == 'SIG_UNKNOWN'


def test_waits_double_up_to_a_limit() -> None:
    backoff = Backoff(first=1, maximum=8)
    waits = [backoff.next_wait() for _ in range(6)]
    for wait, longest in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= wait <= longest
    backoff.reset()
    assert backoff.next_wait() <= 1


def test_waits_of_a_fleet_differ() -> None:
    assert len({Backoff().next_wait() for _ in range(20)}) > 10


def test_in_flight() -> None:
    client = redis.Redis()
    in_flight = InFlight()
    for execution_id, job_id in (('1', 'a'), ('2', 'b'), ('3', 'a')):
        execution = Execution(execution_id, job_id, client)
        execution.queue_name = 'q'
        in_flight[execution_id] = execution
    assert [execution.id for execution in in_flight.of_job('a')] == ['1', '3']
    assert not list(in_flight.of_job('c'))
    assert in_flight.triples() == [('a', '1', 'q'), ('b', '2', 'q'), ('a', '3', 'q')]


class _Clock:
    present = 100.0

    def __call__(self) -> float:
        return self.present


def test_turnover_is_claimed_ahead_until_it_stalls() -> None:
    clock = _Clock()
    turnover = Turnover(clock)
    ended = 0
    for _ in range(50):
        clock.present += 0.01
        ended += 20
        ahead = turnover.ahead(ended)
    assert 0.9 <= ahead / (2000 * AHEAD_SECONDS) <= 1
    turnover.pause()
    assert turnover.ahead(ended) == 0
    for _ in range(100):
        clock.present += 0.01
        assert turnover.ahead(ended) == 0, 'slots are stuck'
    clock.present += 1
    assert turnover.ahead(ended) == 0


class _Slots:
    """Slots that are as the test says."""

    running_count = ready_count = started_count = ended_count = 0

    def pass_time(self, clock: _Clock, appetite: Appetite, jobs: int) -> None:
        """A second in which so many jobs begin and end."""
        for _ in range(100):
            clock.present += 0.01
            self.started_count += jobs // 100
            self.ended_count += jobs // 100
            appetite.room()


def test_idle_slots_are_claimed_for_at_once() -> None:
    assert Appetite(_Slots(), 300, _Clock()).room() == 300


def test_jobs_are_claimed_ahead_of_full_slots_by_their_turnover() -> None:
    slots, clock = _Slots(), _Clock()
    appetite = Appetite(slots, 100, clock)
    slots.running_count = 100
    assert appetite.room() == 0 and not appetite.can_wait(0)
    slots.pass_time(clock, appetite, 2000)
    assert 35 <= appetite.room() <= 40
    slots.ready_count = 38
    assert appetite.can_wait(2), 'others are ready'
    assert not appetite.can_wait(20), 'half of those that are claimed ahead'
    slots.ready_count = 0
    assert not appetite.can_wait(2), 'a slot would be idle'
    appetite.was_too_great()
    assert appetite.room() == 0


def test_no_more_jobs_are_claimed_than_begin_soon_though_slots_are_free() -> None:
    """As when each job keeps the processor busy for a while before it first waits."""
    slots, clock = _Slots(), _Clock()
    appetite = Appetite(slots, 200, clock)
    slots.running_count = 50
    slots.pass_time(clock, appetite, 1000)
    assert appetite.room() >= 150, 'nobody waits'
    slots.ready_count = 15
    assert 1 <= appetite.room() <= 5
    slots.ready_count = 30
    assert appetite.room() < 0 and appetite.can_wait(appetite.room())
    appetite.note_wait(0.03)
    slots.ready_count = 0
    assert 15 <= appetite.room() <= 20, 'they had to wait a moment ago'
    clock.present += 1.1
    assert appetite.room() >= 150


# Outcomes


@pytest.fixture
def job() -> Job:
    job = Job.create(add, (1,), connection=redis.Redis(), origin='default', id='job')
    job.started_at = job.ended_at = now()
    return job


@pytest.fixture
def execution() -> Execution:
    execution = Execution('execution', 'job', redis.Redis())
    execution.queue_name = 'other'
    execution.created_at = now()
    return execution


def _exc_info(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_a_success(job: Job, execution: Execution) -> None:
    outcome = outcomes.finished(job, execution, {'answer': 42}, 500)
    assert outcome[:4] == ('job', 'execution', 'other', 500)
    assert outcome.return_value
    assert not outcome.options
    assert outcomes.finished(job, execution, 'unwanted', 0).return_value == b''
    assert outcomes.finished(job, execution, None, 5).return_value == b''


def test_a_success_that_is_to_repeat(job: Job, execution: Execution) -> None:
    job.repeats_left, job.repeat_intervals = 3, [60, 120]
    outcome = outcomes.finished(job, execution, None, 500)
    assert outcome.options is not None
    repeat = outcome.options['repeat']
    assert (repeat['left'], repeat['intervals']) == (2, '[120]')
    assert 58 <= repeat['due'] - now().timestamp() <= 61
    outcomes.finished(job, execution, None, 500)
    assert (job.repeats_left, job.repeat_intervals) == (1, [120])
    assert Repeat(times=1).times == 1


def test_a_failure(job: Job, execution: Execution) -> None:
    outcome = outcomes.failed(job, execution, 'the reason', register=False)
    assert (outcome.status, outcome.result_type, outcome.register) == ('failed', Result.Type.FAILED.value, False)
    assert decode_exc_string(outcome.exc_string) == 'the reason'
    job.failure_ttl = 7
    assert outcomes.failed(job, execution, '').failure_ttl == 7
    assert outcomes.failed(job, execution, '', stopped=True).status == 'stopped'


def test_a_retry_takes_one(job: Job, execution: Execution) -> None:
    job.retries_left, job.retry_intervals = 2, [30, 60]
    first = outcomes.retried(job, execution)
    second = outcomes.retried(job, execution)
    assert job.retries_left == 0 and second.fields == {'retries_left': 0}
    assert first.due is not None and second.due is not None
    assert 28 <= first.due - now().timestamp() <= 31 and 58 <= second.due - now().timestamp() <= 61


def test_a_returned_retry_is_counted(job: Job, execution: Execution) -> None:
    outcome = outcomes.retry_returned(job, execution, Retry(max=3, enqueue_at_front=True))
    assert outcome.due is None and outcome.at_front
    assert outcome.fields == {'number_of_retries': 1, 'enqueue_at_front_on_retry': 1}


@pytest.mark.parametrize('error', [SpeechlessError(), ValueError('ünï \ud800 code'), KeyboardInterrupt()])
def test_every_exception_can_be_described(error: BaseException, job: Job, execution: Execution) -> None:
    text = outcomes.describe_exception(_exc_info(error))
    assert type(error).__name__ in text
    assert outcomes.failed(job, execution, text).exc_string


def test_a_damaged_job_needs_nothing_but_its_id(execution: Execution) -> None:
    outcome = outcomes.damaged(execution, 'why')
    assert outcome[:4] == ('job', 'execution', 'other', 'failed')
    assert decode_exc_string(outcome.exc_string) == 'why'
