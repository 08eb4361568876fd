"""The look at a connection before each command: it finds what redis-py's does, and no greenlet runs meanwhile."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis

from greenq.connections import worker_connection
from greenq.worker.quick_look import quick_looking

PATCHED = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, redis
from greenq.connections import worker_connection
from greenq.worker.quick_look import quick_looking

model = redis.Redis.from_url(sys.argv[1])
kind = quick_looking(model.connection_pool.connection_class)
connection = worker_connection(model, max_connections=1, connection_class=kind).connection_pool.get_connection()
others = []
gevent.spawn(others.append, 'ran')
assert not connection.can_read()
print(len(others))
"""


@pytest.fixture
def client(connection: redis.Redis) -> redis.Redis:
    """A client of one connection, of the class under test."""
    kind = quick_looking(connection.connection_pool.connection_class)
    return worker_connection(connection, max_connections=1, connection_class=kind)


def test_no_other_greenlet_runs_during_the_look(server_url: str) -> None:
    command = [sys.executable, '-c', PATCHED, server_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ['0']


def test_a_connection_that_the_server_closed_is_replaced_unnoticed(
    client: redis.Redis, connection: redis.Redis
) -> None:
    first = client.client_id()
    connection.client_kill_filter(_id=str(first))
    assert client.client_id() != first


def test_a_reply_that_nobody_read_is_not_taken_for_that_of_the_next_command(client: redis.Redis) -> None:
    client.set('rq:text', 'right')
    pool = client.connection_pool
    abandoned: Any = pool.get_connection()
    abandoned.send_command('PING')
    abandoned.send_command('PING')
    assert abandoned.read_response() == b'PONG'
    pool.release(abandoned)
    assert client.get('rq:text') == b'right'


def test_a_class_is_made_once() -> None:
    assert quick_looking(redis.Connection) is quick_looking(redis.Connection)
    assert issubclass(quick_looking(redis.SSLConnection), redis.SSLConnection)
