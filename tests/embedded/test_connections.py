"""From URLs and clients to clients: what is accepted and refused, and what a worker's connection does not do."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import pytest
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from greenq.connections import (
    InvalidConnectionError,
    connect,
    default_url,
    masked,
    parse_connection,
    resolve_connection,
    worker_connection,
)
from greenq.exceptions import ConfigurationError
from tests.helpers import ROOT, wait_until


class Dropper:
    """A server that hangs up at the first command that a client sends after its introduction, and counts those."""

    def __init__(self) -> None:
        self.commands = 0
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = int(self._listener.getsockname()[1])
        self._ending = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending:
            client, _ = self._listener.accept()
            with client, client.makefile('rb') as stream:
                while command := self._read(stream):
                    if command != b'CLIENT':
                        self.commands += 1
                        break
                    client.sendall(b'+OK\r\n')

    @staticmethod
    def _read(stream: BinaryIO) -> bytes:
        """The name of the next command; empty at the end."""
        head = stream.readline()
        words = [stream.read(int(stream.readline()[1:]) + 2) for _ in range(int(head[1:] or 0))]
        return words[0].strip() if words else b''

    def close(self) -> None:
        self._ending = True
        socket.create_connection(('127.0.0.1', self.port)).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def dropper() -> Iterator[Dropper]:
    server = Dropper()
    yield server
    server.close()


def with_retries(**kwargs: Any) -> redis.Redis:
    """A client that repeats a failed command three times. RESP2, whose introduction is `CLIENT SETINFO` alone."""
    return redis.Redis(retry=Retry(ExponentialBackoff(cap=0.01, base=0.001), 3), protocol=2, **kwargs)


# ---- URLs ----


def test_a_url_becomes_a_client(connection: redis.Redis, server_url: str) -> None:
    connection.set('rq:key', 'value')
    with connect(server_url) as client:
        assert client.get('rq:key') == b'value'


def test_without_a_url_the_environment_decides(connection: redis.Redis) -> None:
    connection.set('rq:key', 'value')
    with connect() as client:
        assert client.get('rq:key') == b'value'


def test_the_first_variable_that_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('GREENQ_REDIS_URL')
    assert default_url() == 'redis://localhost:6379'
    for name in ('REDIS_URL', 'RQ_REDIS_URL', 'GREENQ_REDIS_URL'):
        monkeypatch.setenv(name, f'redis://{name}')
        assert default_url() == f'redis://{name}'
    monkeypatch.setenv('GREENQ_REDIS_URL', '')
    assert default_url() == 'redis://RQ_REDIS_URL'


@pytest.mark.parametrize('form', ['embedded', 'embedded://', 'embedded://{path}', 'embedded://{path}?db=3'])
def test_embedded_urls_start_the_server(tmp_path: Path, form: str) -> None:
    home = tmp_path / 'a b%c'
    code = (
        'import sys; from greenq.connections import connect; client = connect(sys.argv[1]);'
        'print(client.config_get("dir")["dir"], client.client_info()["db"], sep="|"); client.close()'
    )
    run = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, form.format(path=quote(str(home)))],
        cwd=ROOT,
        env={**os.environ, 'GREENQ_EMBEDDED_DIR': str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == f'{home}|{3 if "db=3" in form else 0}'


@pytest.mark.parametrize(
    ('url', 'named'),
    [
        ('http://localhost:6379', 'http://localhost:6379'),
        ('localhost:6379', 'localhost:6379'),
        ('', "''"),
        ('http://me:secret@host/0', 'http://me:***@host/0'),
        ('redis://:secret@host:port', 'redis://:***@host:port'),
        ('redis://host:port', 'host:port'),
        ('redis://host/0?colour=green', 'colour'),
        ('redis://[::1/0', 'redis://'),
        ('embedded://data/greenq', 'three slashes'),
        ('embedded:data', 'three slashes'),
    ],
)
def test_a_wrong_url_is_one_line_that_names_it(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(url)
    message = str(caught.value)
    assert named in message
    assert 'embedded:///path' in message
    assert 'secret' not in message
    assert '\n' not in message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('redis://host:6379/0', 'redis://host:6379/0'),
        ('redis://user:p@ss@host/0', 'redis://user:***@host/0'),
        ('redis://user@host', 'redis://***@host'),
        ('unix:///path?db=1&password=secret', 'unix:///path?db=1&password=***'),
        ('user:secret@host:6379', 'user:***@host:6379'),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


# ---- clients ----


def test_a_given_client_is_used_as_it_is(connection: redis.Redis) -> None:
    assert resolve_connection(connection) is connection


def test_without_a_client_there_is_one_for_all_threads() -> None:
    clients: list[redis.Redis] = []
    threads = [threading.Thread(target=lambda: clients.append(resolve_connection())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client) for client in clients}) == 1


def test_the_kept_client_works_on_both_sides_of_a_fork(connection: redis.Redis) -> None:
    resolve_connection().set('rq:number', 1)
    pid = os.fork()
    if pid == 0:
        resolve_connection().incr('rq:number')
        os._exit(0)
    os.waitpid(pid, 0)
    assert resolve_connection().get('rq:number') == b'2'


def test_a_changed_environment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resolve_connection()
    monkeypatch.setenv('GREENQ_REDIS_URL', 'redis://elsewhere')
    assert resolve_connection() is not before


@pytest.mark.parametrize('url', ['redis://host', 'redis://host?decode_responses=True'])
def test_a_client_that_decodes_is_refused(url: str) -> None:
    client = redis.Redis.from_url(url, decode_responses=True)
    with pytest.raises(InvalidConnectionError, match='decode_responses=True'):
        resolve_connection(client)
    with pytest.raises(ValueError, match='decode_responses=True'):
        connect(url, decode_responses=True)


def test_a_url_in_the_place_of_a_client_is_refused() -> None:
    url: Any = 'redis://:secret@host'
    with pytest.raises(InvalidConnectionError, match=r"redis://:\*\*\*@host' is a URL where a client is needed"):
        resolve_connection(url)


def test_parsed_connections_survive_pickling(connection: redis.Redis) -> None:
    connection.set('rq:key', 'value')
    client_class, connection_class, arguments = pickle.loads(pickle.dumps(parse_connection(connection)))
    pool = redis.ConnectionPool(connection_class=connection_class, **arguments)
    with client_class(connection_pool=pool) as client:
        assert client.get('rq:key') == b'value'
    pool.disconnect()


# ---- a worker's connection ----


def test_a_worker_sends_every_command_once(dropper: Dropper) -> None:
    given = with_retries(port=dropper.port)
    with pytest.raises(redis.ConnectionError):
        given.rpush('queue', 'id')
    assert dropper.commands == 4, 'the given client was to retry: else this test proves nothing'
    with worker_connection(given, max_connections=2) as client:
        for number in range(5, 8):
            with pytest.raises(redis.ConnectionError):
                client.rpush('queue', 'id')
            assert dropper.commands == number
    given.close()


def test_a_worker_does_not_retry_a_pipeline_either(dropper: Dropper) -> None:
    with worker_connection(with_retries(port=dropper.port), max_connections=1) as client:
        with pytest.raises(redis.ConnectionError), client.pipeline(transaction=False) as pipeline:
            pipeline.rpush('queue', 'id').execute()
        assert dropper.commands == 1


def test_retry_on_timeout_of_the_given_client_is_dropped() -> None:
    with socket.create_server(('127.0.0.1', 0)) as silent:
        port = silent.getsockname()[1]
        given = redis.Redis.from_url(
            f'redis://127.0.0.1:{port}', retry_on_error=[redis.TimeoutError], socket_timeout=99
        )
        with worker_connection(given, max_connections=1, socket_timeout=0.05) as client:
            with pytest.raises(redis.TimeoutError):
                client.ping()
            silent.settimeout(0)
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):
                silent.accept()


def test_address_and_user_are_kept_and_habits_are_not() -> None:
    kept = {'host': 'host', 'port': 1, 'username': 'me', 'password': 'secret', 'db': 3, 'client_name': 'it'}
    given = redis.Redis(**kept, socket_timeout=99, health_check_interval=30)  # type: ignore[arg-type]
    with worker_connection(given, max_connections=1, socket_timeout=5) as client:
        arguments = client.connection_pool.connection_kwargs
        assert {name: arguments[name] for name in kept} == kept
        assert (arguments['socket_timeout'], arguments['health_check_interval']) == (5, 0)


@pytest.mark.parametrize('blocking', [False, True])
def test_it_works_over_every_transport(connection: redis.Redis, server_url: str, blocking: bool) -> None:
    with worker_connection(connection, max_connections=1, blocking=blocking) as client:
        assert client.ping()
        assert client.connection_pool.connection_class is redis.UnixDomainSocketConnection
    secure = redis.Redis.from_url('rediss://host', ssl_cert_reqs='none')
    with worker_connection(secure, max_connections=1, blocking=blocking) as client:
        assert client.connection_pool.connection_class is redis.SSLConnection
        assert client.connection_pool.connection_kwargs['ssl_cert_reqs'] == 'none'


def test_a_full_pool_is_an_error(connection: redis.Redis) -> None:
    with worker_connection(connection, max_connections=1) as client, client.pubsub() as subscriber:
        subscriber.subscribe('rq:channel')
        with pytest.raises(redis.ConnectionError):
            client.ping()


def test_a_full_blocking_pool_waits(connection: redis.Redis) -> None:
    with worker_connection(connection, max_connections=1, blocking=True) as client:
        connection.ping()
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(client.blpop(['rq:list']))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: connection.info('clients')['blocked_clients'] == 1)
        connection.rpush('rq:list', 1, 2, 3)
        for thread in threads:
            thread.join(timeout=10)
        assert sorted(value for _, value in answers) == [b'1', b'2', b'3']


def test_a_blocking_pool_waits_no_longer_than_told(connection: redis.Redis) -> None:
    with (
        worker_connection(connection, max_connections=1, blocking=True, pool_timeout=0.05) as client,
        client.pubsub() as subscriber,
    ):
        subscriber.subscribe('rq:channel')
        with pytest.raises(redis.ConnectionError, match='No connection available'):
            client.ping()


def test_a_worker_gets_the_class_of_the_given_client(server_url: str) -> None:
    class Mine(redis.Redis):
        pass

    with Mine.from_url(server_url) as given, worker_connection(given, max_connections=1) as client:
        assert isinstance(client, Mine)


class Directory(Sentinel):
    """Sentinels that know where the master is without being asked over a network."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        self.address = address

    def discover_master(self, service_name: str) -> tuple[str, int]:
        assert service_name == 'jobs'
        return self.address


@pytest.mark.parametrize('blocking', [False, True])
def test_the_master_that_sentinel_names_is_used_without_retries(dropper: Dropper, blocking: bool) -> None:
    directory: Any = Directory(('127.0.0.1', dropper.port))
    master: redis.Redis = directory.master_for('jobs', retry=Retry(ExponentialBackoff(), 3), protocol=2)
    with worker_connection(master, max_connections=1, blocking=blocking) as client:
        for number in (1, 2):
            with pytest.raises(redis.ConnectionError):
                client.rpush('queue', 'id')
            assert dropper.commands == number
    master.close()
