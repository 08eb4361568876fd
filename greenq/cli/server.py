"""`greenq server`: the embedded server in the foreground; how it runs is in `greenq.embedded`."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import NoReturn

import click
import redis

from greenq import embedded
from greenq.exceptions import EmbeddedServerError

STOP_SECONDS = 15.0
CHECK_SECONDS = 1.0


@click.command()
@click.option(
    '--path', type=click.Path(file_okay=False), help='Data directory. Default: $GREENQ_EMBEDDED_DIR, or yours.'
)
@click.option('--port', type=click.IntRange(1, 65535), help='Listen on this TCP port of 127.0.0.1 as well.')
def server(path: str | None, port: int | None) -> None:
    """Run the embedded server until SIGINT or SIGTERM, and print its URL first.

    The server outlives this command while other processes use it.
    """
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    try:
        with embedded.start(path) as running:
            try:
                _run(running, port)
            finally:
                running.stop(wait=STOP_SECONDS)
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from error


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _run(running: embedded.EmbeddedServer, port: int | None) -> NoReturn:
    with running.connection() as connection:
        if port is not None:
            _set_port(connection, port)
        try:
            click.echo(running.url)
            if port is not None:
                click.echo(f'redis://127.0.0.1:{port}')
            while True:
                time.sleep(CHECK_SECONDS)
                running.ensure_running()
                if port is not None:
                    _set_port(connection, port)
        finally:
            if port is not None:
                _set_port(connection, 0)


def _set_port(connection: redis.Redis, port: int) -> None:
    try:
        connection.config_set('port', port)
    except redis.ConnectionError:
        pass  # between two lives of the server; the next check opens it
    except redis.ResponseError as error:
        raise EmbeddedServerError(
            f'cannot listen on port {port}: {error}; choose another one (a server older than Redis 7 cannot at all)'
        ) from error
