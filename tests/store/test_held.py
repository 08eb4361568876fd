"""The client that keeps its connection: what it gives is what the client gives, and trouble does not stay with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from greenq.connections import worker_connection
from greenq.store import held as module
from greenq.store.held import HeldClient, held
from greenq.store.script import script


@pytest.fixture
def client(connection: redis.Redis) -> Any:
    """A held client of the test's database."""
    return held(worker_connection(connection, max_connections=1, socket_timeout=5, blocking=True))


def test_commands_and_scripts_go_through_one_connection(client: Any, connection: redis.Redis) -> None:
    assert isinstance(client, HeldClient)
    first = client.execute_command('CLIENT', 'ID')
    assert client.execute_command('SET', 'rq:text', b'\x00\xff') in (b'OK', True)
    assert client.execute_command('GET', 'rq:text') == b'\x00\xff'
    connection.script_flush()
    assert script('count_jobs')(client, [], []) == []
    assert client.execute_command('CLIENT', 'ID') == first


def test_an_error_reply_is_raised_and_the_connection_goes_on(client: Any) -> None:
    first = client.execute_command('CLIENT', 'ID')
    with pytest.raises(ResponseError, match='unknown command'):
        client.execute_command('NONSENSE')
    assert client.execute_command('CLIENT', 'ID') == first


def test_after_a_lost_connection_one_command_fails_and_the_next_works(client: Any, connection: redis.Redis) -> None:
    first = client.execute_command('CLIENT', 'ID')
    connection.client_kill_filter(_id=str(first))
    with pytest.raises(RedisConnectionError):
        client.execute_command('INCR', 'rq:count')
    assert client.execute_command('INCR', 'rq:count') == 1, 'it was not sent twice'
    assert client.execute_command('CLIENT', 'ID') != first


def test_a_reply_that_came_too_late_is_not_taken_for_the_next_one(connection: redis.Redis) -> None:
    client = held(worker_connection(connection, max_connections=1, socket_timeout=0.1, blocking=True))
    with pytest.raises(RedisTimeoutError):
        client.execute_command('BLPOP', 'rq:nothing', 0.3)
    time.sleep(0.4)
    assert client.execute_command('ECHO', 'mine') == b'mine'


KILLED = """
from gevent import monkey; monkey.patch_all()
import random, sys, gevent, redis
from greenq.connections import worker_connection
from greenq.store.held import held

model = redis.Redis.from_url(sys.argv[1])
client = held(worker_connection(model, max_connections=1, blocking=True))
chance = random.Random(int(sys.argv[2]))

def work():
    while True:
        client.execute_command('ECHO', 'killed' * 1000)

for number in range(200):
    victim = gevent.spawn(work)
    gevent.sleep(chance.random() * 0.003)
    victim.kill()
    assert client.execute_command('ECHO', number) == b'%d' % number
print('ok')
"""


@pytest.mark.parametrize('seed', range(3))
def test_a_greenlet_killed_at_any_point_of_a_command_leaves_nothing_to_the_next(server_url: str, seed: int) -> None:
    command = [sys.executable, '-c', KILLED, server_url, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == 'ok\n', done.stderr


def test_a_connection_that_was_closed_while_nobody_used_it_is_replaced_unnoticed(
    client: Any, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'REST_SECONDS', 0.0)
    first = client.execute_command('CLIENT', 'ID')
    connection.client_kill_filter(_id=str(first))
    assert client.execute_command('CLIENT', 'ID') != first


def test_a_server_that_cannot_be_reached_is_tried_again_by_each_command() -> None:
    nowhere = redis.Redis(unix_socket_path='/nonexistent/redis.sock')
    client = held(worker_connection(nowhere, max_connections=1, blocking=True, pool_timeout=1))
    for _ in range(3):
        with pytest.raises(RedisConnectionError, match='No such file'):
            client.execute_command('PING')


def test_those_who_share_it_get_their_own_replies(client: Any) -> None:
    wrong: list[int] = []

    def echo(number: int) -> None:
        wrong.extend(n for n in range(number, number + 200) if client.execute_command('ECHO', n) != b'%d' % n)

    threads = [threading.Thread(target=echo, args=(number * 1000,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_client_that_does_more_with_a_command_is_left_as_it_is(server_url: str) -> None:
    class Tracing(redis.Redis):
        """A user's own."""

    tracing = Tracing.from_url(server_url)
    assert held(tracing) is tracing
