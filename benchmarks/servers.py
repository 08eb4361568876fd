"""The server that everything runs on, embedded or given, and what it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
from redis import Redis
from redis.exceptions import RedisError

from greenq import embedded


class Cost(NamedTuple):
    """What the server did: commands (those inside scripts too), round trips (read events), CPU seconds."""

    commands: float
    round_trips: float
    cpu_seconds: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(mine - its for mine, its in zip(self, other, strict=True)))

    def per(self, count: float) -> Cost:
        """Of each of so many jobs or seconds."""
        return Cost(*(value / count for value in self))


class Server:
    """A running server that nobody else uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Emptying a large database takes longer than redis-py's timeout.
        self.client: Redis = Redis.from_url(url, socket_timeout=None)
        self._own_reads = 0

    def cost(self) -> Cost:
        """All that it did so far, but for these questions."""
        info = self.client.info('all')
        self._own_reads += 1
        commands = sum(
            int(figures['calls'])
            for name, figures in info.items()
            if name.startswith('cmdstat_') and not name.startswith('cmdstat_info')
        )
        return Cost(
            commands,
            int(info['total_reads_processed']) - self._own_reads,
            float(info['used_cpu_user']) + float(info['used_cpu_sys']),
        )

    def version(self) -> str:
        """Its name and version."""
        info: dict[str, Any] = self.client.info('server')
        name = info.get('server_name', 'redis')
        return f'{str(name).capitalize()} {info.get(f"{name}_version") or info["redis_version"]}'

    def clear(self) -> None:
        """Empties the database. Not in the background, where the server would still be at it, at the cost of what is
        measured next."""
        client: Any = self.client
        client.execute_command('FLUSHDB', 'SYNC')


@contextmanager
def running_server(url: str | None, persistent: bool) -> Iterator[Server]:
    """The server at `url`, whose database must be empty; without one, an embedded server in a directory of its own,
    which writes nothing to disk unless it is to be `persistent`."""
    if url is not None:
        yield _given(url)
        return
    with tempfile.TemporaryDirectory(prefix='greenq-bench-') as folder, embedded.start(folder) as own:
        server = Server(own.url)
        if not persistent:
            server.client.config_set('appendonly', 'no')
        yield server
        server.client.close()
        own.stop(wait=10)


def _given(url: str) -> Server:
    server = Server(url)
    try:
        size = server.client.dbsize()
    except RedisError as error:
        raise click.ClickException(f'no server answers at {url}: {error}') from error
    if size:
        raise click.ClickException(
            f'the database at {url} holds {size} keys, and a run empties it over and over: give another one, as in /9'
        )
    return server
