"""Loads the Lua scripts, resolves their includes, and runs them by digest.

A script names what it shares by `--- @include name`; the functions that build keys come from `keys.lua_prelude()`,
only those that a script uses.
"""

import hashlib
import os
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from redis.client import Pipeline
from redis.exceptions import NoScriptError, RedisError

from greenq.store import keys
from greenq.store.held import is_plain
from greenq.store.spinning import Spin

_INCLUDE = re.compile(r'^--- @include (\w+)$', re.MULTILINE)
_KEY_FUNCTION = re.compile(r'^local function (\w+)\(')


class Script:
    """One Lua script: `script(client, keys, args)` runs it, or queues it if the client is a pipeline."""

    def __init__(self, name: str):
        self.name = name
        body = _resolve(_read(f'{name}.lua'), seen=set())
        self.source = _used_keys(body) + body
        self.digest = hashlib.sha1(self.source.encode()).hexdigest()

    def __call__(self, client: Any, key_names: list[str], args: list[Any]) -> Any:
        """The script's reply; for a pipeline the pipeline, whose `execute()` has the reply."""
        if isinstance(client, Pipeline):
            return self._queue(client, key_names, args)
        try:
            return client.execute_command(*self.command(key_names, args))
        except NoScriptError:
            return self._load_and_run(client, key_names, args)

    def command(self, key_names: list[str], args: list[Any]) -> tuple[Any, ...]:
        """The command that runs it, for who sends it himself; where it is not loaded, the reply says so."""
        return ('EVALSHA', self.digest, len(key_names), *key_names, *args)

    def _load_and_run(self, client: Any, key_names: list[str], args: list[Any]) -> Any:
        return client.execute_command('EVAL', self.source, len(key_names), *key_names, *args)

    def at_once(self, client: Any, key_names: list[str], args: list[Any]) -> Any:
        """The script's reply, with less ado than redis-py makes. The script must be one that may be repeated: after
        trouble the call is made again, by the client's own rules."""
        if not is_plain(client):
            return self(client, key_names, args)
        pool = client.connection_pool
        connection = pool.get_connection()
        again: Callable[..., Any] = self
        try:
            connection.send_command(*self.command(key_names, args))
            _spin_of(pool).wait(connection)
            return connection.read_response()
        except NoScriptError:
            again = self._load_and_run
        except RedisError as error:
            if not _is_tried_again(connection, error):
                raise
        except BaseException:
            # Cut off, by a deadline perhaps: the reply is still to come, and must not be the next command's.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
        return again(client, key_names, args)

    def ahead(self, client: Any, key_names: list[str], args: list[Any]) -> Callable[[], Any]:
        """Has the script run while the caller goes on; what is returned waits for its reply and must be called.
        Otherwise as `at_once`."""

        def again() -> Any:
            return self(client, key_names, args)

        # Meanwhile the caller may need a connection of the same pool.
        if not is_plain(client) or client.connection_pool.max_connections < 2:
            return partial(_same, again())
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_command(*self.command(key_names, args))
        except BaseException as error:
            connection.disconnect()
            pool.release(connection)
            if not _is_tried_again(connection, error):
                raise
            return again

        def reply() -> Any:
            try:
                return connection.read_response()
            except NoScriptError:
                return self._load_and_run(client, key_names, args)
            except RedisError as error:
                if not _is_tried_again(connection, error):
                    raise
                return again()
            except BaseException:
                connection.disconnect()
                raise
            finally:
                pool.release(connection)

        return reply

    def _queue(self, pipeline: Any, key_names: list[str], args: list[Any]) -> Any:
        """The first use in a pipeline sends the source, which loads it for the others: no extra round trip, and no
        NOSCRIPT in the middle of a transaction."""
        stack = pipeline.command_stack
        first_uses = pipeline.__dict__.setdefault('_greenq_first_uses', {})
        position, entry = first_uses.get(self.digest, (-1, None))
        if 0 <= position < len(stack) and stack[position] is entry:
            return pipeline.execute_command(*self.command(key_names, args))
        result = pipeline.execute_command('EVAL', self.source, len(key_names), *key_names, *args)
        if pipeline.command_stack:
            first_uses[self.digest] = (len(pipeline.command_stack) - 1, pipeline.command_stack[-1])
        return result


def _spin_of(pool: Any) -> Spin:
    """What looks out for the replies of a server, each for itself: one may be near and another far."""
    spin: Spin | None = pool.__dict__.get('_greenq_spin')
    if spin is None:
        spin = pool._greenq_spin = Spin()
    return spin


def _is_tried_again(connection: Any, error: BaseException) -> bool:
    """Whether redis-py, as the client was set up, would make a command again after this error."""
    retry = connection.retry
    return bool(retry._retries) and isinstance(error, retry._supported_errors)


def _same(value: Any) -> Any:
    return value


def _read(path: str) -> str:
    # By the loader, which is there already and finds them in an archive, too; `importlib.resources` is large.
    loader: Any = __spec__.loader if __spec__ else None
    data: bytes = loader.get_data(os.path.join(os.path.dirname(__file__), 'scripts', *path.split('/')))
    return data.decode()


def _resolve(text: str, seen: set[str]) -> str:
    """The text with every include in place of the line that asks for it, each at most once."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return ''
        seen.add(name)
        return _resolve(_read(f'include/{name}.lua'), seen)

    return _INCLUDE.sub(replace, text)


def _used_keys(body: str) -> str:
    lines = []
    for line in keys.lua_prelude().splitlines():
        match = _KEY_FUNCTION.match(line)
        if match and re.search(rf'\b{match.group(1)}\b', body):
            lines.append(line + '\n')
    return ''.join(lines)


@cache
def script(name: str) -> Script:
    """The script of a name, loaded once per process."""
    return Script(name)


def preload(*names: str) -> None:
    """Loads scripts that a child of this process is going to need, so that not every child has to."""
    for name in names:
        script(name)
