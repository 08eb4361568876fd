"""From settings to a Redis client, and back from a client to words for an error message. Reads RQ's setting names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from greenq.cli.errors import CommandError, one_line

if TYPE_CHECKING:
    from redis import Redis

_SSL_DEFAULTS = {
    'REDIS_SSL_CA_CERTS': None,
    'REDIS_SSL_CERT_REQS': 'required',
    'REDIS_SSL_CA_DATA': None,
    'REDIS_SSL_KEYFILE': None,
    'REDIS_SSL_CERTFILE': None,
}
_CONNECTION_SETTINGS = ('REDIS_URL', 'SENTINEL', 'REDIS_HOST', 'REDIS_PORT', 'REDIS_DB', 'REDIS_PASSWORD', 'REDIS_SSL')


def open_connection(url: str | None, settings: Mapping[str, Any], connection_class: type[Redis]) -> Redis:
    """The client that a URL, else the settings, else the environment describe. Connects when it is first used."""
    if url:
        return _from_url(url, connection_class)
    if not any(settings.get(name) is not None for name in _CONNECTION_SETTINGS):
        settings = os.environ
    return connection_from_settings(settings, connection_class)


def connection_from_settings(settings: Mapping[str, Any], connection_class: type[Redis]) -> Redis:
    """The client that RQ's setting names describe: REDIS_URL before SENTINEL before REDIS_HOST and its kind."""
    if settings.get('REDIS_URL') is not None:
        return _from_url(settings['REDIS_URL'], connection_class)
    # In the environment a sentinel cannot be described: the setting is a dictionary.
    if isinstance(settings.get('SENTINEL'), Mapping):
        return _from_sentinel(settings['SENTINEL'], connection_class)
    return _from_host(settings, connection_class)


def _from_url(url: str, connection_class: type[Redis]) -> Redis:
    from redis import Redis

    from greenq.connections import EMBEDDED, InvalidConnectionError, connect, masked

    if connection_class is Redis:
        return connect(url)
    if url.partition(':')[0] == EMBEDDED:
        return connection_class(connection_pool=connect(url).connection_pool)
    try:
        return _made(lambda: connection_class.from_url(url), masked(url))
    except InvalidConnectionError:
        raise
    except ValueError as error:
        raise CommandError(f'{masked(url)!r} is not a Redis URL: {one_line(error)}; correct it.') from error


def _made(make: Callable[[], Redis], place: str) -> Redis:
    """The client that greenq works with. One of a cluster's connects when it is made."""
    from redis.exceptions import RedisClusterException

    from greenq.connections import checked

    try:
        return checked(make())
    except RedisClusterException as error:
        # None of Redis' errors in general.
        raise CommandError(f'Cannot use the cluster at {place}: {one_line(error)}.') from error


def _from_sentinel(sentinel: Mapping[str, Any], connection_class: type[Redis]) -> Redis:
    from redis.sentinel import Sentinel

    from greenq.connections import checked

    options = {
        'db': sentinel.get('DB', 0),
        'username': sentinel.get('USERNAME'),
        'password': sentinel.get('PASSWORD'),
        'socket_timeout': sentinel.get('SOCKET_TIMEOUT'),
        'ssl': sentinel.get('SSL', False),
        **sentinel.get('CONNECTION_KWARGS', {}),
    }
    watchers = Sentinel(  # type: ignore[no-untyped-call]
        sentinel.get('INSTANCES', [('localhost', 26379)]),
        sentinel_kwargs=sentinel.get('SENTINEL_KWARGS', {}),
        **options,
    )
    master_name = sentinel.get('MASTER_NAME', 'mymaster')
    master: Redis = watchers.master_for(master_name, redis_class=connection_class)  # type: ignore[no-untyped-call]
    return checked(master)


def _from_host(settings: Mapping[str, Any], connection_class: type[Redis]) -> Redis:
    from redis import Redis

    ssl_options = {
        name.removeprefix('REDIS_').lower(): settings.get(name, value) for name, value in _SSL_DEFAULTS.items()
    }
    host = settings.get('REDIS_HOST', 'localhost')
    port = _whole_number('REDIS_PORT', settings.get('REDIS_PORT', 6379))
    options = {
        'password': settings.get('REDIS_PASSWORD'),
        'ssl': _yes_or_no('REDIS_SSL', settings.get('REDIS_SSL', False)),
        **ssl_options,
    }
    database = _whole_number('REDIS_DB', settings.get('REDIS_DB', 0))
    if database or issubclass(connection_class, Redis):
        # A cluster has one database only, and its client does not even take its number.
        options['db'] = database
    return _made(lambda: connection_class(host=host, port=port, **options), f'{host}:{port}')


def _whole_number(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise CommandError(f'Invalid {name} {value!r}: give a whole number.') from None


_WORDS = {
    **dict.fromkeys(('y', 'yes', 't', 'true', '1', 'on'), True),
    **dict.fromkeys(('n', 'no', 'f', 'false', '0', 'off', ''), False),
}


def _yes_or_no(name: str, value: Any) -> bool:
    word = str(value).lower()
    if word not in _WORDS:
        raise CommandError(f'Invalid {name} {value!r}: give True or False.')
    return _WORDS[word]
