"""The waiter: what comes is parked for it, and nothing is after it withdrew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from greenq.connections import worker_connection
from greenq.store import keys
from greenq.worker.signals import WakePipe
from greenq.worker.waiter import Waiter
from tests.helpers import wait_until


class Waiting:
    """A waiter that waits in a thread."""

    def __init__(self, waiter: Waiter, seconds: float = 20) -> None:
        self.result: Any = None
        self.started = time.monotonic()
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._wait, args=(waiter, seconds))
        self._thread.start()

    def _wait(self, waiter: Waiter, seconds: float) -> None:
        try:
            self.result = waiter.wait(seconds)
        except redis.RedisError as error:
            self.result = error
        self.seconds = time.monotonic() - self.started

    def end(self) -> Any:
        self._thread.join(10)
        assert not self._thread.is_alive(), 'still waiting'
        return self.result


@pytest.fixture
def wake() -> Iterator[WakePipe]:
    wake = WakePipe()
    yield wake
    wake.close()


@pytest.fixture
def waiter(connection: redis.Redis, wake: WakePipe) -> Iterator[Waiter]:
    pool = worker_connection(connection, max_connections=4, blocking=True).connection_pool
    client = worker_connection(connection, max_connections=1, blocking=True)
    waiter = Waiter(pool, client, 'w', ['a', 'b', 'c'], wake)
    yield waiter
    waiter.close()
    client.close()
    pool.disconnect()


def _blocked(connection: Any) -> int:
    return int(connection.info('clients')['blocked_clients'])


def _parked(connection: Any) -> list[bytes]:
    found: list[bytes] = connection.lrange(keys.parked('w'), 0, -1)
    return found


@pytest.mark.parametrize('queue', ['a', 'b', 'c'])
def test_what_comes_is_parked(waiter: Waiter, connection: redis.Redis, queue: str) -> None:
    waiting = Waiting(waiter)
    wait_until(lambda: _blocked(connection) == 3)

    connection.rpush(keys.queue(queue), 'job', 'next')

    assert waiting.end() is True
    assert _parked(connection) == [b'job']
    assert connection.lrange(keys.queue(queue), 0, -1) == [b'next']


def test_what_is_there_already_is_parked(waiter: Waiter, connection: redis.Redis) -> None:
    connection.rpush(keys.queue('b'), 'job')
    assert waiter.wait(20) is True
    assert _parked(connection) == [b'job']


def test_the_time_is_over(waiter: Waiter, connection: redis.Redis) -> None:
    started = time.monotonic()
    assert waiter.wait(0.1) is False
    assert 0.1 <= time.monotonic() - started < 2
    assert waiter.is_waiting, 'the calls go on, so that nothing is asked twice'
    assert _blocked(connection) == 3


def test_a_wake_up_ends_the_wait(waiter: Waiter, wake: WakePipe, connection: redis.Redis) -> None:
    waiting = Waiting(waiter)
    wait_until(lambda: _blocked(connection) == 3)
    wake.wake()
    assert waiting.end() is False
    assert waiting.seconds < 10
    assert waiter.wait(0) is False, 'the wake-up was used up'


def test_a_second_wait_sees_what_came_in_between(waiter: Waiter, connection: redis.Redis) -> None:
    waiter.wait(0)
    wait_until(lambda: _blocked(connection) == 3)
    connection.rpush(keys.queue('c'), 'job')
    assert waiter.wait(20) is True


def test_nothing_is_parked_after_withdrawing(waiter: Waiter, connection: redis.Redis) -> None:
    waiter.wait(0)
    wait_until(lambda: _blocked(connection) == 3)

    waiter.withdraw()

    assert not waiter.is_waiting
    assert _blocked(connection) == 0
    connection.rpush(keys.queue('a'), 'job')
    assert _parked(connection) == []
    assert waiter.wait(20) is True, 'it can wait again'


def test_withdrawing_tells_of_what_was_parked_meanwhile(waiter: Waiter, connection: redis.Redis) -> None:
    waiter.wait(0)
    wait_until(lambda: _blocked(connection) == 3)
    connection.rpush(keys.queue('a'), 'one')
    connection.rpush(keys.queue('b'), 'two')

    waiter.withdraw()

    assert sorted(_parked(connection)) == [b'one', b'two']
    assert waiter.parked_count == 2


def test_withdrawing_without_having_waited(waiter: Waiter) -> None:
    waiter.withdraw()
    assert not waiter.is_waiting


def test_a_dropped_connection_is_told_and_replaced(waiter: Waiter, connection: Any) -> None:
    waiting = Waiting(waiter)
    wait_until(lambda: _blocked(connection) == 3)

    for client in connection.client_list():
        if client['cmd'] == 'blmove':
            connection.client_kill_filter(_id=client['id'])

    assert isinstance(waiting.end(), redis.ConnectionError)
    assert not waiter.is_waiting
    connection.rpush(keys.queue('a'), 'job')
    assert waiter.wait(20) is True


def test_a_queue_that_is_none(waiter: Waiter, connection: redis.Redis) -> None:
    """Somebody has put a string where a queue's list is: an error, not an endless wait."""
    connection.set(keys.queue('b'), 'no list')
    with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
        waiter.wait(20)
