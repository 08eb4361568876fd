"""What the jobs of the tests do. They tell their story in Redis lists under `rq:test:`, since they run elsewhere."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
import time
from typing import Any

import redis

from greenq import Retry, get_current_job
from greenq.connections import default_url
from greenq.defaults import RQ_KEY_PREFIX
from greenq.job import Job
from tests.helpers import wait_until

_clients: dict[int, redis.Redis] = {}


def client() -> Any:
    """A client of the tests' server, one for each process."""
    if os.getpid() not in _clients:
        _clients[os.getpid()] = redis.Redis.from_url(default_url())
    return _clients[os.getpid()]


def key(name: str) -> str:
    return f'{RQ_KEY_PREFIX}:test:{name}'


# For tests


def noted(connection: Any, name: str = 'notes') -> list[str]:
    """What the jobs have noted so far."""
    return [item.decode() for item in connection.lrange(key(name), 0, -1)]


def wait_for_notes(connection: Any, count: int, name: str = 'started', timeout: float = 10) -> list[str]:
    """Waits for so many notes and returns all of them."""
    wait_until(lambda: connection.llen(key(name)) >= count, timeout, description=f'{count} notes in {name}')
    return noted(connection, name)


def open_gate(connection: Any, count: int = 1, gate: str = 'gate') -> None:
    """Lets so many jobs through."""
    connection.rpush(key(gate), *['open'] * count)


# Jobs


def nothing() -> None:
    pass


def add(a: int, b: int = 1) -> int:
    return a + b


def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


def note(text: Any, name: str = 'notes') -> Any:
    client().rpush(key(name), str(text))
    return text


def note_job_id() -> str:
    return str(note(current_id()))


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def noted_nap(seconds: float) -> None:
    """Notes its start and its end."""
    note(current_id(), 'started')
    time.sleep(seconds)
    note(current_id(), 'ended')


def wait_at_gate(gate: str = 'gate') -> str:
    """Notes its start, waits for the gate to open, notes its end."""
    note(current_id(), 'started')
    deadline = time.monotonic() + 30
    while not client().lpop(key(gate)):
        if time.monotonic() > deadline:
            raise AssertionError('the gate stayed shut')
        time.sleep(0.01)
    note(current_id(), 'ended')
    return 'through'


def current_id() -> str:
    job = get_current_job()
    assert job is not None
    return job.id


def fail(message: str = 'as told') -> None:
    raise ValueError(message)


def fail_times(count: int, name: str = 'tries') -> int:
    """Fails so many times before it succeeds; returns the number of the try."""
    tries = int(client().incr(key(name)))
    if tries <= count:
        raise ValueError(f'try {tries}')
    return tries


def ask_for_retry(maximum: int, interval: int = 0) -> Any:
    note('asked')
    return Retry(max=maximum, interval=interval)


def save_meta(rounds: int = 1) -> None:
    job = get_current_job()
    assert job is not None
    for number in range(rounds):
        job.meta['round'] = number
        job.save_meta()


def meta_of_me() -> Any:
    job = get_current_job()
    assert job is not None
    return job.meta


class Adder:
    """Has a method to run as a job."""

    def __init__(self, first: int) -> None:
        self.first = first

    def plus(self, second: int) -> int:
        return self.first + second

    def __call__(self, second: int) -> int:
        return self.first * second

    @staticmethod
    def static(value: int) -> int:
        return -value


# Jobs that end badly


class SpeechlessError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError('no words')

    __repr__ = __str__


def raise_named(name: str) -> None:
    """Raises what its name says."""
    if name == 'SystemExit':
        sys.exit(3)
    if name == 'GreenletExit':
        from greenlet import GreenletExit

        raise GreenletExit
    if name == 'SpeechlessError':
        raise SpeechlessError
    if name == 'RecursionError':
        raise_named(name)
    if name == 'CancelledError':
        raise asyncio.CancelledError
    raise getattr(__import__('builtins'), name)('as told')


async def raise_named_in_coroutine(name: str) -> None:
    await asyncio.sleep(0)
    raise_named(name)


def return_unpicklable() -> Any:
    return lambda: None


def swallow_exceptions(seconds: float) -> str:
    """Naps through whatever `except Exception` catches."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            time.sleep(seconds)
        except Exception:
            note('swallowed')
    return 'slept'


def swallow_everything(seconds: float) -> None:
    """Ends when it likes."""
    note(current_id(), 'started')
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            time.sleep(seconds)
        except BaseException:
            pass


def kill_me() -> None:
    os.kill(os.getpid(), 9)


# async def jobs


async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0.001)
    return a + b


async def async_nap(seconds: float) -> int:
    """Returns what identifies the loop that it ran on."""
    await asyncio.sleep(seconds)
    return id(asyncio.get_running_loop())


async def async_who() -> list[str]:
    """The current job's id as seen by the coroutine, later on, and by a task that it starts."""

    async def child() -> str:
        await asyncio.sleep(0.001)
        return current_id()

    first = current_id()
    await asyncio.sleep(0.001)
    return [first, current_id(), await asyncio.create_task(child())]


async def async_cleanup(seconds: float) -> None:
    """Notes whether it was cancelled."""
    _note_on_own_connection(current_id(), 'started')
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        _note_on_own_connection('cancelled', 'notes')
        raise


def _note_on_own_connection(text: str, name: str) -> None:
    with redis.Redis.from_url(default_url()) as own_client:
        own_client.rpush(key(name), text)


async def async_save_meta() -> None:
    """Uses the connection that all jobs share, which blocks the loop for a moment."""
    await asyncio.sleep(0.001)
    save_meta()


def run_loop(seconds: float) -> float:
    """Runs an event loop of its own."""
    return asyncio.run(asyncio.sleep(seconds, result=seconds))


def who() -> list[str]:
    """The current job's id as seen by the job, and later on."""
    first = current_id()
    time.sleep(0.001)
    return [first, current_id()]


def who_in_greenlet() -> str | None:
    """The current job's id as seen by a greenlet that the job starts."""
    import gevent

    def look() -> str | None:
        job = get_current_job()
        return job.id if job else None

    found: str | None = gevent.spawn(look).get()
    return found


# Callbacks and handlers


def on_success(job: Job, connection: redis.Redis, result: Any) -> None:
    note(f'success {job.id} {result}')


def on_failure(job: Job, connection: redis.Redis, kind: Any, value: Any, traceback: Any) -> None:
    note(f'failure {job.id} {kind.__name__} {value}')


def on_stopped(job: Job, connection: redis.Redis) -> None:
    note(f'stopped {job.id}')


def failing_callback(job: Job, connection: redis.Redis, *rest: Any) -> None:
    raise KeyError('in the callback')


def slow_callback(job: Job, connection: redis.Redis, *rest: Any) -> None:
    time.sleep(30)


def first_handler(job: Job, kind: Any, value: Any, traceback: Any) -> bool:
    note(f'first {kind.__name__}')
    return str(value) != 'stop here'


def second_handler(job: Job, kind: Any, value: Any, traceback: Any) -> None:
    note(f'second {kind.__name__}')


def horse_killed(job: Job, pid: int, status: int, rusage: Any) -> None:
    note(f'killed {job.id} {status}')


class LiteralSerializer:
    """Knows Python's literals."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        return repr(value).encode()

    @staticmethod
    def loads(data: bytes) -> Any:
        return ast.literal_eval(data.decode())
