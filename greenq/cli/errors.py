"""Turns what goes wrong at the user's end into one line on stderr and exit status 1. Bugs keep their traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from greenq.exceptions import GreenqError

if TYPE_CHECKING:
    from redis import Redis
    from redis.exceptions import RedisError


class CommandError(click.ClickException):
    """What the user has to mend, in one line that names the value and the way out."""

    exit_code = 1


@contextmanager
def render_errors(ctx: click.Context) -> Iterator[None]:
    """Show greenq's errors and Redis' as `CommandError`s. `ctx.obj` is the command's `Config`, once it has one."""
    try:
        yield
    except GreenqError as error:
        raise CommandError(one_line(error)) from error
    except Exception as error:
        # Not imported for this: an error of Redis' comes from a process that has it, and `--help` does without.
        redis_exceptions = sys.modules.get('redis.exceptions')
        if redis_exceptions is None or not isinstance(error, redis_exceptions.RedisError):
            raise
        raise CommandError(describe_redis_error(error, getattr(ctx.obj, 'connection', None))) from error


# Their messages are a bare name or value, which says little without the class.
_TERSE = (LookupError, AttributeError, NameError, AssertionError, ArithmeticError, SyntaxError)


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks and full stop; with its class where the message alone is mute."""
    message = ' '.join(str(error).split()).rstrip('.')
    kind = type(error).__name__
    if not message:
        return kind
    return f'{kind}: {message}' if isinstance(error, _TERSE) else message


def describe_redis_error(error: RedisError, connection: Redis | None) -> str:
    """One line on what Redis, or the way to it, refused."""
    from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError

    server = f'Redis at {describe_server(connection)}' if connection is not None else 'Redis'
    if isinstance(error, AuthenticationError):
        return f'{server} refuses the login: {one_line(error)}. Check user and password in the URL.'
    if isinstance(error, (ConnectionError, TimeoutError)):
        return (
            f'Cannot reach {server}: {_reason(error)}. '
            f'Start a server there, or name another one with --url or GREENQ_REDIS_URL.'
        )
    return f'{server} answered: {one_line(error)}.'


def _reason(error: BaseException) -> str:
    """The operating system's words, which redis-py wraps in its own together with the address."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return one_line(error)


def describe_server(connection: Redis) -> str:
    """The address of a client's server as a URL that shows no password."""
    pool = connection.connection_pool
    service = getattr(pool, 'service_name', None)
    if service is not None:
        return f'sentinel service {service!r}'
    options: dict[str, Any] = pool.connection_kwargs
    database = options.get('db') or 0
    if 'path' in options:
        return f'unix://{options["path"]}?db={database}'
    scheme = 'rediss' if 'SSL' in pool.connection_class.__name__ else 'redis'
    return f'{scheme}://{options.get("host", "localhost")}:{options.get("port", 6379)}/{database}'
