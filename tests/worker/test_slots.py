"""The greenlets that execute jobs: each job once, as many at once as there are slots, and nobody is kept waiting."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event
from greenlet import getcurrent

from greenq.executions import Execution
from greenq.store.transitions import Claimed
from greenq.utils import now
from greenq.worker.slots import TURN_SECONDS, Ready, Slots


def _ready(count: int) -> list[Ready]:
    moment, connection = now(), Any
    return [
        Ready(
            Claimed(f'job{number}', f'execution{number}', 'q', {}),
            Execution.claimed(f'execution{number}', f'job{number}', connection, 'w', 'q', moment),  # type: ignore[arg-type]
            time.monotonic(),
        )
        for number in range(count)
    ]


def _wait_for(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.001)


def test_jobs_that_never_wait_run_in_order_in_one_slot() -> None:
    executed, greenlets = [], set()

    def execute(item: Ready) -> None:
        executed.append(item.claimed.job_id)
        greenlets.add(getcurrent())

    slots = Slots(50, execute)
    slots.fill(_ready(200))
    _wait_for(lambda: slots.ended_count == 200)
    assert executed == [f'job{number}' for number in range(200)]
    assert len(greenlets) <= 2 and not slots.running and not slots.ready


def test_jobs_that_wait_run_at_once_but_no_more_than_there_are_slots() -> None:
    gate, most = Event(), [0]

    def execute(item: Ready) -> None:
        most[0] = max(most[0], len(slots.running))
        gate.wait()

    slots = Slots(20, execute)
    slots.fill(_ready(50))
    _wait_for(lambda: len(slots.running) == 20)
    assert len(slots.ready) == 30 and len(slots) == 50
    gate.set()
    _wait_for(lambda: slots.ended_count == 50)
    assert most == [20]


def test_the_hub_has_its_turns_while_jobs_never_wait() -> None:
    """Or Redis' replies, and whatever else a worker waits for, would lie there until all jobs have run."""
    seconds = TURN_SECONDS / 4
    mine, its = gevent_socket.socketpair()
    seen_after: list[int] = []

    def read() -> None:
        for _ in range(3):
            its.recv(1)
            seen_after.append(slots.started_count)

    def execute(item: Ready) -> None:
        if slots.started_count in (100, 400, 700):
            mine.send(b'x')
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    slots = Slots(50, execute)
    reader = gevent.spawn(read)
    gevent.sleep(0)
    slots.fill(_ready(1000))
    _wait_for(lambda: slots.ended_count == 1000)
    reader.join(1)
    mine.close(), its.close()
    assert [after - sent for after, sent in zip(seen_after, (100, 400, 700), strict=True)] == [
        pytest.approx(20, abs=20)
    ] * 3


def test_a_slot_that_is_given_up_is_replaced() -> None:
    gate = Event()

    def execute(item: Ready) -> None:
        if item.claimed.job_id == 'job0':
            gate.wait()

    slots = Slots(1, execute)
    slots.fill(_ready(3))
    _wait_for(lambda: len(slots.running) == 1)
    slots.give_up('execution0')
    _wait_for(lambda: slots.ended_count == 3)
    gate.set()
    gevent.sleep(0.01)
    assert slots.ended_count == 3 and not slots.running


def test_each_job_has_a_context_of_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar('variable', default='unset')
    found = []

    def execute(item: Ready) -> None:
        found.append(variable.get())
        variable.set(item.claimed.job_id)

    slots = Slots(1, execute)
    slots.fill(_ready(3))
    _wait_for(lambda: slots.ended_count == 3)
    assert found == ['unset'] * 3
