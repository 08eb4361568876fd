"""Looking up names: the answers are the system's, with fewer questions, whoever asks and whatever becomes of him."""

from __future__ import annotations

import _socket
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import get_hub
from gevent.resolver.blocking import Resolver as BlockingResolver
from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool

from greenq.worker.lookups import share_lookups
from greenq.worker.names import Names

QUESTIONS = [
    ('127.0.0.1', 80, 0, socket.SOCK_STREAM, 0, 0),
    ('127.0.0.1', None, 0, 0, 0, 0),
    ('127.0.0.1', 'http', 0, socket.SOCK_STREAM, 0, 0),
    ('127.0.0.1', '80', 0, 0, 0, 0),
    ('127.1', 80, 0, socket.SOCK_STREAM, 0, 0),
    ('127.0.0.1', 80, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, 0),
    ('127.0.0.1', 80, 0, 0, 0, socket.AI_CANONNAME),
    ('127.0.0.1', 80, socket.AF_INET6, socket.SOCK_STREAM, 0, socket.AI_V4MAPPED),
    ('::1', 80, socket.AF_INET6, socket.SOCK_STREAM, 0, 0),
    ('localhost', 80, socket.AF_INET, socket.SOCK_STREAM, 0, 0),
    (b'localhost', 80, socket.AF_INET, socket.SOCK_STREAM, 0, 0),
    (None, 80, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_PASSIVE),
]
WRONG: list[tuple[Any, ...]] = [
    ('127.0.0.1', 80, socket.AF_INET6, socket.SOCK_STREAM, 0, 0),
    ('127.0.0.1', 'no-such-service', 0, 0, 0, 0),
    ('a..b', 80, 0, 0, 0, 0),
    ('localhost', [], 0, 0, 0, 0),
    (80, 80, 0, 0, 0, 0),
    ('no-such-name-1', 80, 0, 0, 0, socket.AI_NUMERICHOST),
]


class OneThread:
    """A pool of one thread, which can be kept busy."""

    def __init__(self) -> None:
        self.pool: Any = ThreadPool(1)
        self._gate_read, self._gate_write = os.pipe()
        self._task: Any = None

    def occupy(self) -> None:
        self._task = self.pool.spawn(os.read, self._gate_read, 1)

    def free(self) -> None:
        if self._task is not None:
            os.write(self._gate_write, b'.')
            self._task.get(timeout=10)
            self._task = None

    def close(self) -> None:
        self.free()
        self.pool.kill()
        os.close(self._gate_read)
        os.close(self._gate_write)


@pytest.fixture
def thread() -> Iterator[OneThread]:
    thread = OneThread()
    yield thread
    thread.close()


@pytest.fixture
def names(thread: OneThread) -> Names:
    names = Names()
    names.pool = thread.pool
    return names


@pytest.mark.parametrize('question', QUESTIONS, ids=str)
def test_the_answer_is_the_systems(names: Names, question: tuple[Any, ...]) -> None:
    assert names.getaddrinfo(*question) == _socket.getaddrinfo(*question)


@pytest.mark.parametrize('question', WRONG, ids=str)
def test_the_error_is_the_systems(names: Names, question: tuple[Any, ...]) -> None:
    with pytest.raises(Exception) as expected:
        _socket.getaddrinfo(*question)
    with pytest.raises(type(expected.value)) as raised:
        names.getaddrinfo(*question)
    assert raised.value.args == expected.value.args


@pytest.mark.parametrize('address', ['127.0.0.1', '10.20.30.40', '::1', 'fe80::1', '255.255.255.255'])
def test_an_address_asks_nobody(names: Names, thread: OneThread, address: str) -> None:
    thread.occupy()
    with gevent.Timeout(5):
        found = names.getaddrinfo(address, 80)
    assert found[0][4][0] == address


def test_whoever_asks_the_same_meanwhile_is_answered_together(names: Names, thread: OneThread) -> None:
    thread.occupy()
    asking = [gevent.spawn(names.getaddrinfo, 'localhost', 80, socket.AF_INET) for _ in range(200)]
    other = gevent.spawn(names.getaddrinfo, 'localhost', 81, socket.AF_INET)
    gevent.sleep(0.05)
    thread.free()
    gevent.joinall([*asking, other], timeout=10)
    answers = [one.value for one in asking]
    assert answers == [_socket.getaddrinfo('localhost', 80, socket.AF_INET)] * 200
    assert other.value == _socket.getaddrinfo('localhost', 81, socket.AF_INET)
    assert len({id(answer) for answer in answers}) == 200, 'a list of each its own, which he may change'


def test_two_hundred_askers_put_one_question(names: Names, thread: OneThread) -> None:
    thread.occupy()
    asking = [gevent.spawn(names.getaddrinfo, 'localhost', 80) for _ in range(200)]
    gevent.sleep(0.05)
    assert len(thread.pool) == 2, 'what occupies it, and one question'
    thread.free()
    gevent.joinall(asking, timeout=10)


def test_the_next_asker_puts_the_question_anew(names: Names, thread: OneThread) -> None:
    names.getaddrinfo('localhost', 80)
    thread.occupy()
    again = gevent.spawn(names.getaddrinfo, 'localhost', 80)
    gevent.sleep(0.05)
    assert len(thread.pool) == 2
    thread.free()
    assert again.get(timeout=10)


@pytest.mark.parametrize('killed', [0, 1, 199])
def test_an_asker_who_is_ended_takes_nobody_along(names: Names, thread: OneThread, killed: int) -> None:
    thread.occupy()
    asking = [gevent.spawn(names.getaddrinfo, 'localhost', 80) for _ in range(200)]
    gevent.sleep(0.05)
    asking.pop(killed).kill()
    thread.free()
    gevent.joinall(asking, timeout=10)
    assert all(one.value for one in asking)


def test_each_asker_gets_an_error_of_his_own(names: Names, thread: OneThread) -> None:
    def ask() -> UnicodeError | None:
        try:
            names.getaddrinfo('a..b', 80)
        except UnicodeError as error:
            return error
        return None

    thread.occupy()
    asking = [gevent.spawn(ask) for _ in range(10)]
    gevent.sleep(0.05)
    thread.free()
    gevent.joinall(asking, timeout=10)
    errors = [one.value for one in asking]
    assert all(errors)
    assert len({id(error) for error in errors}) == 10
    with pytest.raises(UnicodeError):
        names.getaddrinfo('a..b', 80)


FORKING = """
from gevent import monkey; monkey.patch_all()
import gevent, os, socket, sys
from greenq.worker.lookups import share_lookups

share_lookups(100)
pool = gevent.get_hub().threadpool
gate, opens = os.pipe()
for _ in range(pool.maxsize):
    pool.spawn(os.read, gate, 1)
gevent.spawn(socket.getaddrinfo, 'localhost', 80)
gevent.sleep(0.05)
child = os.fork()
if not child:
    with gevent.Timeout(10):
        found = socket.getaddrinfo('localhost', 80)
    os._exit(0 if found else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.write(opens, b'.' * pool.maxsize)
"""


def test_a_child_does_not_wait_for_a_question_that_its_parent_has_put() -> None:
    done = subprocess.run([sys.executable, '-c', FORKING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ['0'], done.stderr


@pytest.fixture
def hub() -> Iterator[Any]:
    """The hub as gevent gives it, whatever earlier tests have left there."""
    hub = get_hub()
    earlier = hub.resolver, hub.threadpool
    del hub.resolver, hub.threadpool
    hub.threadpool_size = 10
    yield hub
    hub.resolver, hub.threadpool = earlier
    hub.threadpool_size = 10


@pytest.mark.parametrize('is_in_use', [False, True])
def test_the_names_that_are_asked_for_are_shared_from_now_on(hub: Any, is_in_use: bool) -> None:
    if is_in_use:
        assert type(hub.resolver) is Resolver
    share_lookups(100)
    share_lookups(100)
    expected = _socket.getaddrinfo('localhost', 80)
    assert hub.resolver.getaddrinfo('localhost', 80) == expected
    assert type(hub.resolver) is Names
    assert hub.resolver.gethostbyname('localhost') == _socket.gethostbyname('localhost')


@pytest.mark.parametrize('is_in_use', [False, True])
@pytest.mark.parametrize(('slots', 'threads'), [(1, 10), (100, 10), (500, 50), (1000, 100), (5000, 100)])
def test_a_worker_has_threads_for_a_tenth_of_its_slots(hub: Any, is_in_use: bool, slots: int, threads: int) -> None:
    if is_in_use:
        assert hub.threadpool.maxsize == 10
    share_lookups(slots)
    assert hub.threadpool.maxsize == threads


@pytest.mark.parametrize('is_in_use', [False, True])
def test_a_resolver_that_was_chosen_stays(hub: Any, monkeypatch: pytest.MonkeyPatch, is_in_use: bool) -> None:
    monkeypatch.setattr(gevent.config, 'resolver', BlockingResolver)
    if is_in_use:
        assert type(hub.resolver) is BlockingResolver
    share_lookups(1000)
    assert hub.resolver.getaddrinfo('localhost', 80) == _socket.getaddrinfo('localhost', 80)
    assert type(hub.resolver) is BlockingResolver


@pytest.mark.parametrize('is_in_use', [False, True])
def test_a_number_of_threads_that_was_chosen_stays(hub: Any, is_in_use: bool) -> None:
    hub.threadpool_size = 3
    if is_in_use:
        assert hub.threadpool.maxsize == 3
    share_lookups(1000)
    assert hub.threadpool.maxsize == 3


def test_slow_names_do_not_wait_for_one_another(hub: Any) -> None:
    share_lookups(1000)
    began = time.monotonic()
    gevent.joinall([gevent.spawn(hub.threadpool.apply, time.sleep, (0.5,)) for _ in range(100)], timeout=20)
    assert time.monotonic() - began < 3.5, 'ten at a time would take 5 s'
    hub.threadpool.kill()


IDLE = """
from gevent import monkey; monkey.patch_all()
import sys
import greenq
from greenq.worker.patched import prepare_process

prepare_process(100)
print(*[name for name in sys.modules if name.startswith(('gevent.resolver', 'gevent.threadpool'))])
"""


def test_a_worker_that_looks_nothing_up_loads_nothing_for_it() -> None:
    done = subprocess.run([sys.executable, '-c', IDLE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
