"""Servers that the embedded one cannot stand in for: TCP, TLS, users, Sentinel and Cluster. No fixtures."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import redis

from greenq.embedded import _server_binary
from greenq.exceptions import EmbeddedServerError
from tests.helpers import wait_until

HOST = '127.0.0.1'


@cache
def server_program() -> str | None:
    """Path of a redis-server, or of the embedded Valkey's, which knows the same options; None without either."""
    given = os.environ.get('GREENQ_TEST_SERVER')
    if given:
        return given
    found = shutil.which('redis-server') or shutil.which('valkey-server')
    if found is None:
        with contextlib.suppress(EmbeddedServerError):
            found = _server_binary()
    return found


needs_server = pytest.mark.skipif(
    server_program() is None,
    reason='no redis-server on the PATH; install it, for example with apt install redis-server',
)


@cache
def has_tls() -> bool:
    """Whether the server was built with TLS."""
    program = server_program()
    if program is None:
        return False
    # No server starts TLS without a certificate; one that was built without TLS says that this is the reason.
    arguments = [program, '--port', '0', '--tls-port', str(free_port())]
    refused = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    said = (refused.stdout + refused.stderr).lower()
    return 'bad directive' not in said and 'failed finding tls support' not in said


def free_port() -> int:
    """A port that nobody listens on, with room for a cluster's bus 10,000 above it."""
    while True:
        with socket.create_server((HOST, 0)) as listener:
            port: int = listener.getsockname()[1]
        if port + 10_000 < 65_536 and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


class Server:
    """A redis-server that runs, with a folder of its own."""

    def __init__(self, folder: Path, port: int, *options: str, sentinel: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.port = port
        self._log = folder / 'log'
        program = server_program()
        assert program is not None
        # A file, because Sentinel writes into it what it learns.
        config = folder / 'server.conf'
        lines = [
            'bind 127.0.0.1',
            f'dir {folder}',
            f'logfile {self._log}',
            *([] if sentinel else ['save ""']),
            *options,
        ]
        config.write_text('\n'.join(lines) + '\n')
        arguments = [program, str(config), *(['--sentinel'] if sentinel else [])]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f'redis://{HOST}:{self.port}'

    def client(self, **kwargs: Any) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, **kwargs)

    def wait_until_ready(self, client: redis.Redis | None = None) -> None:
        with client or self.client() as asking:
            wait_until(lambda: self._answers(asking), 10, description='the server answers')

    def _answers(self, client: redis.Redis) -> bool:
        if self.process.poll() is not None:
            said = self._log.read_text() if self._log.exists() else ''
            raise AssertionError(f'the server ended with status {self.process.returncode}:\n{said[-2000:]}')
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(folder: Path, *options: str, port: int | None = None, wait: bool = True) -> Iterator[Server]:
    """A server on a free port during the block."""
    port = port or free_port()
    server = Server(folder, port, f'port {port}', *options)
    try:
        if wait:
            server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _is_in_step(replica: Any) -> bool:
    return bool(replica.info('replication').get('master_link_status') == 'up')


# ---- Sentinel ----


class Watched:
    """A master, its replica, and three sentinels that watch them under the name `mymaster`."""

    def __init__(self, nodes: list[Server], sentinels: list[Server]) -> None:
        self.nodes = nodes
        self.sentinels = sentinels

    @property
    def instances(self) -> list[tuple[str, int]]:
        return [(HOST, sentinel.port) for sentinel in self.sentinels]

    def master(self) -> Server:
        """The node that the sentinels call master."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'mymaster')
        return next(node for node in self.nodes if node.port == int(port))

    def wait_for_other_master(self, old: Server) -> None:
        """Once the sentinels agree on another master, and it takes writes."""
        wait_until(lambda: self.master() is not old, 20, description='the sentinels choose another master')
        with self.master().client() as client:
            wait_until(lambda: client.info('replication')['role'] == 'master', 10)

    def wait_until_ready(self) -> None:
        """Once every sentinel knows the replica and the other sentinels: only then a failover is possible."""
        with ExitStack() as stack:
            for sentinel in self.sentinels:
                client = stack.enter_context(sentinel.client())
                wait_until(partial(_knows_all, client), 20, description='the sentinels know each other')


def _knows_all(client: Any) -> bool:
    state = client.sentinel_master('mymaster')
    return state['num-slaves'] == 1 and state['num-other-sentinels'] == 2 and 'ok' in str(client.info('sentinel'))


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """A master with a replica and three sentinels during the block."""
    with ExitStack() as stack:
        master = stack.enter_context(running(folder / 'master', 'repl-diskless-sync-delay 0'))
        replica = stack.enter_context(
            running(folder / 'replica', f'replicaof {HOST} {master.port}', 'repl-diskless-sync-delay 0')
        )
        with replica.client() as client:
            wait_until(partial(_is_in_step, client), 20)
        sentinels = []
        for number in range(3):
            port = free_port()
            options = (
                f'port {port}',
                f'sentinel monitor mymaster {HOST} {master.port} 2',
                'sentinel down-after-milliseconds mymaster 500',
                'sentinel failover-timeout mymaster 3000',
            )
            sentinel = Server(folder / f'sentinel-{number}', port, *options, sentinel=True)
            stack.callback(sentinel.stop)
            sentinel.wait_until_ready()
            sentinels.append(sentinel)
        group = Watched([master, replica], sentinels)
        group.wait_until_ready()
        yield group


# ---- Cluster ----

SLOTS = 16_384


class Cluster:
    """Nodes that share the slots between them; a fourth one is a replica."""

    def __init__(self, nodes: list[Server]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return self.nodes[0].url


def move_slot(key: str, giving: Any, taking: Any, everybody: list[Any]) -> None:
    """Gives the slot of a key, with all that is in it, to another node, as a resharding does."""
    slot = int(giving.execute_command('CLUSTER', 'KEYSLOT', key))
    giver, taker = (client.execute_command('CLUSTER', 'MYID') for client in (giving, taking))
    port = taking.connection_pool.connection_kwargs['port']
    taking.execute_command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', giver)
    giving.execute_command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', taker)
    while found := giving.execute_command('CLUSTER', 'GETKEYSINSLOT', slot, 1000):
        giving.execute_command('MIGRATE', HOST, port, '', 0, 5000, 'KEYS', *found)
    for client in (taking, giving):
        client.execute_command('CLUSTER', 'SETSLOT', slot, 'NODE', taker)
    # Another move before all have heard of this one would leave two owners of the same epoch.
    epoch = int(taking.cluster('INFO')['cluster_my_epoch'])
    for client in everybody:
        wait_until(partial(_has_heard, client, epoch, slot, port), description='all nodes know the new owner')


def _has_heard(client: Any, epoch: int, slot: int, port: int) -> bool:
    return int(client.cluster('INFO')['cluster_current_epoch']) >= epoch and _port_of_slot(client, slot) == port


def _port_of_slot(client: Any, slot: int) -> int | None:
    for first, last, master, *_ in client.execute_command('CLUSTER', 'SLOTS'):
        if first <= slot <= last:
            return int(master[1])
    return None


@contextmanager
def cluster(folder: Path, replicated: str | None = None) -> Iterator[Cluster]:
    """Three masters that share the slots during the block, and a replica of the one that has a key."""
    with ExitStack() as stack:
        options = (
            'cluster-enabled yes',
            'cluster-node-timeout 1000',
            'cluster-replica-validity-factor 0',
            'repl-diskless-sync-delay 0',
        )
        nodes = [
            stack.enter_context(running(folder / f'node-{number}', *options))
            for number in range(4 if replicated else 3)
        ]
        clients: list[Any] = [stack.enter_context(node.client()) for node in nodes]
        share = SLOTS // 3
        for number, client in enumerate(clients[:3]):
            last = SLOTS - 1 if number == 2 else (number + 1) * share - 1
            client.execute_command('CLUSTER', 'ADDSLOTSRANGE', number * share, last)
            client.execute_command('CLUSTER', 'SET-CONFIG-EPOCH', number + 1)
        for client in clients[1:]:
            client.execute_command('CLUSTER', 'MEET', HOST, nodes[0].port)
        for client in clients:
            wait_until(partial(_knows, client, len(nodes)), 20, description='the nodes know each other')
        for client in clients[3:]:
            slot = int(client.execute_command('CLUSTER', 'KEYSLOT', replicated))
            wait_until(partial(_port_of_slot, client, slot), 20, description='the fourth node has heard of the slots')
            port = _port_of_slot(client, slot)
            master = next(other for node, other in zip(nodes, clients, strict=True) if node.port == port)
            client.execute_command('CLUSTER', 'REPLICATE', master.execute_command('CLUSTER', 'MYID'))
        for client in clients:
            wait_until(partial(_is_ok, client), 20, description='the cluster is up')
        for client in clients[3:]:
            wait_until(partial(_is_in_step, client), 20)
        yield Cluster(nodes)


def _knows(client: Any, count: int) -> bool:
    return int(client.cluster('INFO')['cluster_known_nodes']) == count


def _is_ok(client: Any) -> bool:
    return bool(client.cluster('INFO')['cluster_state'] == 'ok')
