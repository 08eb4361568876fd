"""The jobs of the fault suite. Each enters its start and its end in the ledger.

They say `rq` where they need a queue's library: in a worker of greenq's that is greenq. So both run the same code.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any

LEDGER_VARIABLE = 'GREENQ_FAULTS_LEDGER'

#: One of these makes a MB.
_CHUNK = b'0123456789abcdef' * 65_536


def enter(event: str, id: str, token: str = '-', note: str = '-') -> None:
    """One write of one short line to a file that is only appended to: no two processes mix theirs."""
    line = f'{event} {id} {token} {os.getpid()} {time.monotonic():.6f} {note}\n'
    ledger = os.open(os.environ[LEDGER_VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


@contextlib.contextmanager
def entered(id: str) -> Iterator[None]:
    """Enters the start of a run and, unless it raises or dies, its end."""
    token = os.urandom(6).hex()
    enter('start', id, token)
    yield
    enter('end', id, token)


# ---- good jobs ----


def nap(id: str, seconds: float = 0.0) -> str:
    with entered(id):
        if seconds:
            time.sleep(seconds)
    return id


def wait_for(id: str, path: str) -> str:
    """Runs until a file exists."""
    with entered(id):
        while not os.path.exists(path):
            time.sleep(0.05)
    return id


def use_redis(id: str, seconds: float) -> str:
    """Sleeps, and writes its `meta` before and after by the connection that the worker gives to jobs."""
    from rq import get_current_job

    job: Any = get_current_job()
    with entered(id):
        job.meta['begun'] = True
        job.save_meta()
        time.sleep(seconds)
        job.meta['ended'] = True
        job.save_meta()
    return id


def tick() -> None:
    """The job of a cron; its id is made by the scheduler."""
    from rq import get_current_job

    job = get_current_job()
    assert job is not None
    with entered(job.id):
        pass


def measure_gaps(id: str, seconds: float) -> float:
    """Sleeps for 10 ms again and again; notes the longest time (s) for which it was kept from running."""
    longest = 0.0
    with entered(id):
        until = last = time.monotonic()
        until += seconds
        while last < until:
            time.sleep(0.01)
            present = time.monotonic()
            longest, last = max(longest, present - last - 0.01), present
        enter('gap', id, note=f'{longest:.4f}')
    return longest


def take(id: str, blob: bytes) -> int:
    """Takes large arguments."""
    with entered(id):
        return len(blob)


# ---- jobs that end their process ----


def segfault(id: str) -> None:
    with entered(id):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)


def exit_at_once(id: str) -> None:
    with entered(id):
        os._exit(3)


def die_of_memory(id: str) -> None:
    """Ends as the kernel ends a process that takes too much memory."""
    with entered(id):
        os.kill(os.getpid(), signal.SIGKILL)


# ---- jobs that raise what is no Exception, or no good one ----


class Unpicklable(Exception):
    """Neither it nor what it holds can be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text, lambda: None)


class Unprintable(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError('this exception cannot be shown')


def raise_named(id: str, name: str) -> None:
    with entered(id):
        if name == 'sys.exit':
            raise SystemExit(1)
        if name == 'GreenletExit':
            from greenlet import GreenletExit

            raise GreenletExit
        if name == 'RecursionError':
            _deeper(name)
        raise {
            'KeyboardInterrupt': KeyboardInterrupt,
            'SystemError': SystemError,
            'MemoryError': MemoryError,
            'Unprintable': Unprintable,
        }[name]('raised on purpose')


def _deeper(name: str) -> str:
    return _deeper(name) + name


def fail(id: str) -> None:
    with entered(id):
        raise ValueError('fails on purpose')


def raise_unpicklable(id: str) -> None:
    with entered(id):
        raise Unpicklable('fails on purpose')


def raise_huge(id: str, megabytes: int) -> None:
    with entered(id):
        raise ValueError((_CHUNK * megabytes).decode())


# ---- results ----


def return_unpicklable(id: str) -> Any:
    with entered(id):
        return lambda: None


def return_huge(id: str, megabytes: int) -> bytes:
    with entered(id):
        return _CHUNK * megabytes


# ---- jobs that do not end ----


def loop_for_ever(id: str) -> None:
    with entered(id):
        number = 0
        while True:
            number += 1


def match_for_ever(id: str) -> None:
    """A regular expression that backtracks."""
    with entered(id):
        re.match(r'(a+)+$', 'a' * 60 + 'b')


def hold_interpreter(id: str) -> int:
    """C code that lets no Python code run meanwhile, not even a handler of signals."""
    with entered(id):
        return sum(range(10**12))


def block_in_c(id: str) -> None:
    """C code that lets other threads run, but not this one, nor a handler of signals."""
    with entered(id):
        hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 10**9)


def swallow_for_ever(id: str) -> None:
    with entered(id):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue
