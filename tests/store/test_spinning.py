"""Looking out for a reply instead of sleeping: when it is done, when it is given up, and what it may cost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from greenq import Queue
from greenq.store import spinning
from greenq.store.spinning import LONGEST_PAUSE, Spin
from tests.helpers import ROOT


class Looks:
    """A connection of redis-py that counts how often somebody looks whether there is something to read."""

    def __init__(self, connection: Any) -> None:
        self.count = 0
        self._connection = connection

    def can_read(self, timeout: float) -> bool:
        self.count += 1
        can_read: bool = self._connection.can_read(timeout=timeout)
        return can_read


@pytest.fixture
def looks(connection: redis.Redis) -> Any:
    own: Any = connection.connection_pool.get_connection()
    yield Looks(own)
    own.disconnect()
    connection.connection_pool.release(own)


@pytest.fixture
def spin(monkeypatch: pytest.MonkeyPatch) -> Spin:
    """As on a machine with two processors."""
    monkeypatch.setattr(spinning, '_processors', lambda: 2)
    return Spin()


def test_it_returns_with_the_reply_unread(spin: Spin, looks: Looks) -> None:
    own = looks._connection
    for number in range(200):
        own.send_command('ECHO', number)
        spin.wait(looks)
        assert own.read_response() == str(number).encode()
    assert looks.count > 0


def test_after_looks_in_vain_it_looks_ever_more_rarely(spin: Spin, looks: Looks) -> None:
    rounds_with_a_look = 0
    for _ in range(2 * LONGEST_PAUSE):
        before = looks.count
        spin.wait(looks)
        rounds_with_a_look += looks.count > before
    assert rounds_with_a_look == 11, 'after pauses of 1, 3, 7, ... 1023 replies'


def test_a_reply_in_time_makes_it_look_again(spin: Spin, looks: Looks) -> None:
    for _ in range(20):
        spin.wait(looks)
    looks._connection.send_command('PING')
    time.sleep(0.05)
    for _ in range(100):
        spin.wait(looks)
    count = looks.count
    spin.wait(looks)
    assert looks.count == count + 1


def test_with_one_processor_nobody_looks(monkeypatch: pytest.MonkeyPatch, looks: Looks) -> None:
    monkeypatch.setattr(spinning, '_processors', lambda: 1)
    Spin().wait(looks)
    assert looks.count == 0


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='needs processor affinity')
def test_the_processors_are_those_that_the_process_may_use() -> None:
    earlier = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(earlier)})
    try:
        assert spinning._processors() == 1
    finally:
        os.sched_setaffinity(0, earlier)


PATCHED = """
from gevent import monkey; monkey.patch_all()
from greenq.store import spinning
spinning._processors = lambda: 2

class Looks:
    def can_read(self, timeout):
        raise AssertionError('other greenlets could run meanwhile')

spinning.Spin().wait(Looks())
"""


def test_in_a_patched_process_nobody_looks() -> None:
    subprocess.run([sys.executable, '-c', PATCHED], cwd=ROOT, check=True, timeout=30)


def test_a_lost_connection_is_the_commands_error(spin: Spin, looks: Looks, connection: redis.Redis) -> None:
    own = looks._connection
    own.send_command('CLIENT', 'ID')
    number = own.read_response()
    connection.client_kill_filter(_id=str(number))
    with pytest.raises(RedisConnectionError):
        spin.wait(looks)
        own.read_response()


def test_each_server_has_a_spin_of_its_own(connection: redis.Redis, server_url: str) -> None:
    other = redis.Redis.from_url(server_url)
    for client in (connection, other, connection):
        Queue('spun', connection=client).enqueue(print)
    spins = [client.connection_pool.__dict__['_greenq_spin'] for client in (connection, other)]
    assert spins[0] is not spins[1]
    other.close()


class Cut(Exception):
    """As a deadline would raise it, at any point."""


def test_an_enqueue_cut_off_at_a_random_point_leaves_a_connection_in_order(server_url: str) -> None:
    def cut(signum: int, frame: Any) -> None:
        # Hiredis 3.5 crashes the process if it is cut off while it packs a number.
        if frame.f_code.co_name != 'pack':
            raise Cut

    client = redis.Redis.from_url(server_url)
    queue = Queue('cut', connection=client)
    queue.enqueue(print)
    earlier = signal.signal(signal.SIGALRM, cut)
    cuts = 0
    try:
        for number in range(1500):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(50e-6, 400e-6))
                queue.enqueue(print, number)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Cut:
                cuts += 1
            assert client.echo(str(number)) == str(number).encode()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        client.close()
    assert cuts > 20


def test_threads_that_enqueue_through_one_client(connection: redis.Redis) -> None:
    queue = Queue('spun', connection=connection)
    ids: list[str] = []

    def enqueue() -> None:
        ids.extend(queue.enqueue(print, number).id for number in range(200))

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(queue.job_ids) == sorted(ids)
    assert len(set(ids)) == 800
