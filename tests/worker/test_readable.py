"""Waiting for sockets in a greenlet: what can be read is told, whenever it came, and closed sockets leave nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from greenq.worker.readable import Readable

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def readable() -> Readable:
    return Readable()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    pairs = [socket.socketpair() for _ in range(3)]
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_was_there_before_is_told_at_once(readable: Readable, pairs: list[Pair]) -> None:
    ends = [end for end, _ in pairs]
    pairs[0][1].send(b'.')
    pairs[2][1].send(b'.')
    assert set(readable.wait(ends, 10)) == {ends[0], ends[2]}
    assert set(readable.wait(ends, 10)) == {ends[0], ends[2]}, 'nobody has read it yet'
    ends[0].recv(1)
    assert readable.wait(ends, 10) == [ends[2]]


def test_what_comes_while_it_waits_ends_the_wait(readable: Readable, pairs: list[Pair]) -> None:
    ends = [end for end, _ in pairs]
    began = time.monotonic()
    gevent.spawn_later(0.05, pairs[1][1].send, b'.')
    assert readable.wait(ends, 10) == [ends[1]]
    assert 0.03 < time.monotonic() - began < 5


def test_a_closed_end_can_be_read(readable: Readable, pairs: list[Pair]) -> None:
    ends = [end for end, _ in pairs]
    pairs[1][1].close()
    assert readable.wait(ends, 10) == [ends[1]]


def test_nothing_comes_until_the_time_is_over_and_others_run_meanwhile(readable: Readable, pairs: list[Pair]) -> None:
    ran: list[int] = []
    gevent.spawn(ran.append, 1)
    began = time.monotonic()
    assert readable.wait([end for end, _ in pairs], 0.1) == []
    assert time.monotonic() - began >= 0.09 and ran == [1]


def test_a_new_socket_under_the_number_of_a_closed_one_is_another(readable: Readable) -> None:
    for _ in range(20):
        reader, writer = socket.socketpair()
        assert readable.wait([reader], 0.001) == []
        writer.send(b'.')
        assert readable.wait([reader], 10) == [reader]
        reader.close()
        writer.close()
