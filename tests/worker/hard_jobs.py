"""Jobs that are hard on a worker whose jobs share one process: they keep the others from running, or do not end."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gevent

from tests.worker.jobs import current_id, note, raise_named, wait_at_gate


def spin() -> None:
    """Never waits, never ends."""
    while True:
        pass


def keep_memory(mib: int) -> int:
    """Takes it for so long that a worker notices."""
    taken = b'x' * (mib * 2**20)
    gevent.sleep(2)
    return len(taken)


def note_and_spin() -> None:
    note(current_id(), 'started')
    spin()


def spin_for(seconds: float) -> float:
    """Never waits."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


def match_for_ever() -> None:
    """One call of C code, which looks for signals now and then."""
    re.match(r'(a|a)*$', 'a' * 50 + 'b')


def spin_in_greenlet() -> None:
    """Waits for a greenlet of its own, which never waits."""
    gevent.spawn(spin).get()


def spin_and_swallow() -> None:
    """Neither waits nor ends nor listens."""
    note(current_id(), 'started')
    while True:
        try:
            spin()
        except BaseException:
            pass


def sleep_and_swallow() -> None:
    """Waits, but neither ends nor listens."""
    note(current_id(), 'started')
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass


def swallow_until_told() -> str:
    """Does not listen, but ends when the gate is opened."""
    while True:
        try:
            wait_at_gate()
            return 'through'
        except BaseException:
            pass


def sleep_in_c(seconds: float) -> None:
    """Waits where gevent does not see it."""
    from gevent.monkey import get_original

    get_original('time', 'sleep')(seconds)


def spin_when_done(job: Any, connection: Any, *rest: Any) -> None:
    """A callback."""
    spin()


def swallow_when_done(job: Any, connection: Any, *rest: Any) -> None:
    """A callback."""
    sleep_and_swallow()


def use_alarm() -> list[float]:
    """Uses SIGALRM for itself, as `timeout` decorators do; returns how long it took (s) and how often it came."""
    came: list[float] = []
    earlier = signal.signal(signal.SIGALRM, lambda signum, frame: came.append(time.monotonic()))
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    spin_for(0.8)
    time.sleep(0.3)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, earlier)
    return [moment - began for moment in came]


def return_bytes(count: int) -> bytes:
    return b'x' * count


def return_numbers(count: int) -> list[int]:
    return list(range(count))


def import_module_that(does: str, folder: str) -> None:
    """Imports a module that hangs in its first line: `sleeps` or `spins`."""
    code = {'sleeps': 'import time; time.sleep(60)', 'spins': 'while True: pass'}[does]
    Path(folder, f'hangs_and_{does}.py').write_text(code)
    sys.path.insert(0, folder)
    try:
        __import__(f'hangs_and_{does}')
    finally:
        sys.path.remove(folder)


def give_up_soon() -> None:
    """Makes the worker impatient, so that tests need not be patient."""
    from greenq.worker import coroutines, hub_watch

    hub_watch.GIVE_UP_SECONDS = coroutines.GIVE_UP_SECONDS = 1


async def async_spin() -> None:
    """Keeps all coroutines from running."""
    while True:
        pass


async def async_spin_and_swallow() -> None:
    """Keeps all coroutines from running, and does not listen."""
    spin_and_swallow()


def return_random(count: int) -> bytes:
    return os.urandom(count)


def raise_in_greenlet(name: str) -> str:
    """Has a greenlet of its own raise."""
    gevent.spawn(raise_named, name).join()
    return 'unharmed'


def raise_in_thread(name: str) -> str:
    thread = threading.Thread(target=raise_named, args=(name,))
    thread.start()
    thread.join()
    return 'unharmed'


def raise_much(count: int) -> None:
    raise ValueError('x' * count)


def nest(depth: int) -> str:
    """Recurses in C code."""
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return repr(nested)
