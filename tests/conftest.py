"""Fixtures of every folder: one private server per session, a clean database per test, and no stray environment.

GREENQ_TEST_SERVER=/path/to/redis-server runs the tests on that program instead of the embedded Valkey.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import redis

from greenq import embedded
from greenq.connections import URL_VARIABLES
from greenq.defaults import RQ_KEY_PREFIX


def pytest_configure() -> None:
    """Ctrl+C is what it is in a terminal, also where a shell has started the tests in the background and ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.EmbeddedServer]:
    """The server of this session."""
    if os.environ.get('GREENQ_TEST_SERVER'):
        os.environ['GREENQ_SERVER_BINARY'] = os.environ['GREENQ_TEST_SERVER']
    with embedded.start(tmp_path_factory.mktemp('server')) as server:
        yield server
        server.stop(wait=10)


@pytest.fixture(scope='session')
def server_url(embedded_server: embedded.EmbeddedServer) -> str:
    """The URL of the session's server."""
    return embedded_server.url


@pytest.fixture(scope='session')
def redis_url(server_url: str) -> str:
    """The same as `server_url`."""
    return server_url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, server_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """greenq's defaults lead to the session's server and to no place of the user's."""
    for name in URL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('GREENQ_REDIS_URL', server_url)
    monkeypatch.setenv('GREENQ_EMBEDDED_DIR', str(tmp_path_factory.getbasetemp() / 'default-embedded'))


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """What a worker in this process (RQ's never does) must put back when it ends."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.fixture
def connection(server_url: str) -> Iterator[redis.Redis]:
    """A client of the session's server. Its database is empty at first, and at last may hold greenq's keys only."""
    client = redis.Redis.from_url(server_url)
    client.flushall()
    try:
        yield client
        leaked = sorted(key for key in client.scan_iter() if not key.startswith(f'{RQ_KEY_PREFIX}:'.encode()))
        assert not leaked, f'keys outside of {RQ_KEY_PREFIX}: were left: {leaked}'
    finally:
        client.flushall()
        client.close()
