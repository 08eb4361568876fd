"""From a URL, the environment or a client to the client that is used; the one place that knows redis-py's pools."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from greenq.defaults import RQ_KEY_PREFIX
from greenq.exceptions import ConfigurationError

URL_VARIABLES = ('GREENQ_REDIS_URL', 'RQ_REDIS_URL', 'REDIS_URL')
DEFAULT_URL = 'redis://localhost:6379'
SCHEMES = ('redis', 'rediss', 'unix')
EMBEDDED = 'embedded'
URL_FORMS = (
    'redis://user:password@host:port/db, rediss://..., unix:///path/to/socket?db=0, embedded or embedded:///path'
)

# What a pool of redis-py 8 puts among its connections' arguments for itself: meaningless, or harmful, in another pool.
_POOL_INTERNALS = frozenset(
    {
        'connection_pool',
        'event_dispatcher',
        'himport_registry',
        'maint_notifications_config',
        'maint_notifications_pool_handler',
        'orig_host_address',
        'orig_socket_connect_timeout',
        'orig_socket_timeout',
        'oss_cluster_maint_notifications_handler',
    }
)


class NoRedisConnectionException(Exception):
    """Kept for `except` clauses written for RQ; greenq never raises it, since it has a default URL."""


class InvalidConnectionError(ConfigurationError, ValueError):
    """A URL, or a client, that greenq cannot work with."""


def connect(url: str | None = None, *, client_class: type[redis.Redis] = redis.Redis, **kwargs: Any) -> redis.Redis:
    """A new client for a URL, `redis://`, `rediss://`, `unix://`, `embedded` or `embedded:///path`, or `default_url()`.

    `kwargs` are those of `redis.Redis.from_url`. An embedded server is started if need be, and used until this process
    ends. Connecting happens at the first command. Raises `InvalidConnectionError`, `EmbeddedServerError`.
    """
    url = default_url() if url is None else url
    scheme = url.partition(':')[0]
    if scheme not in (EMBEDDED, *SCHEMES):
        raise InvalidConnectionError(f'{masked(url)!r} is not a Redis URL; use {URL_FORMS}')
    target = _embedded_url(url) if scheme == EMBEDDED else url
    try:
        client: redis.Redis = client_class.from_url(target, **kwargs)
        # Redis-py looks at a URL's options when it makes a connection; making one does not connect it.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        # A password that is not percent-encoded ends up in the reason.
        reason = '' if '@' in url else f': {error}'
        raise InvalidConnectionError(f'cannot use the Redis URL {masked(url)!r}{reason}; use {URL_FORMS}') from error
    return checked(client)


def default_url() -> str:
    """The first of `URL_VARIABLES` that is set in the environment, else Redis on this machine."""
    return next((url for url in map(os.environ.get, URL_VARIABLES) if url), DEFAULT_URL)


def resolve_connection(connection: redis.Redis | None = None) -> redis.Redis:
    """The given client, or the one that this process keeps for the default URL. Raises `InvalidConnectionError`."""
    if connection is not None:
        return checked(connection)
    url = default_url()
    client = _clients.get(url)
    if client is None:
        # No lock, which a fork could leave locked. Redis-py's pools are thread-safe and notice forks themselves.
        client = _clients.setdefault(url, connect(url))
    return client


_clients: dict[str, redis.Redis] = {}


def get_current_connection() -> redis.Redis:
    """The client that `Queue()` and `Job.fetch(id)` use when they are given none."""
    return resolve_connection()


def checked(connection: redis.Redis) -> redis.Redis:
    """The client, if greenq can work with it: it must give bytes, because a job's data are no text.

    For a `redis.RedisCluster` it is a client of the node that has greenq's keys, the same one each time.
    """
    if _is_cluster(type(connection)):
        connection = _client_in_cluster(connection)  # type: ignore[arg-type]
    if isinstance(connection, str):
        raise InvalidConnectionError(
            f'{masked(connection)!r} is a URL where a client is needed; write greenq.connections.connect(...) around it'
        )
    pool = getattr(connection, 'connection_pool', None)
    if getattr(pool, 'connection_kwargs', {}).get('decode_responses'):
        raise InvalidConnectionError(
            'the Redis client has decode_responses=True, but job data are bytes; give greenq a client without it'
        )
    return connection


@cache
def _is_cluster(client_class: type[Any]) -> bool:
    """Kept, since the class is one of a protocol, which takes its time to tell, and every job asks."""
    return issubclass(client_class, redis.RedisCluster)


def _client_in_cluster(cluster: redis.RedisCluster) -> redis.Redis:
    """The client that belongs to a cluster client: plain, because one node has all keys of a prefix with a hash tag."""
    # Not before it is needed: who has no cluster does without.
    from greenq.cluster import SlotConnection, SlotOwner, SlotSSLConnection, has_hash_tag, patience

    if not has_hash_tag():
        raise InvalidConnectionError(
            f'on Redis Cluster RQ_KEY_PREFIX needs a hash tag, which {RQ_KEY_PREFIX!r} lacks; set one before greenq is '
            "imported, the same for all producers and workers, for example RQ_KEY_PREFIX='{rq}'"
        )
    known = vars(cluster).get('_greenq_client')
    if known is not None:
        return cast(redis.Redis, known)
    node: Any = cluster.get_default_node()  # type: ignore[no-untyped-call]
    model = cluster.get_redis_connection(node).connection_pool
    settings = _settings(model)
    settings |= {
        'connection_class': SlotSSLConnection
        if issubclass(model.connection_class, redis.SSLConnection)
        else SlotConnection,
        'slot_owner': SlotOwner.of(cluster),
        'redis_connect_func': getattr(cluster, 'user_on_connect_func', None),
        'max_connections': model.max_connections,
        'retry': patience(cautious=False),
    }
    settings.pop('parser_class', None)
    client = redis.Redis.from_pool(redis.ConnectionPool(**settings))
    return cast(redis.Redis, vars(cluster).setdefault('_greenq_client', client))


def worker_connection(
    connection: redis.Redis,
    *,
    max_connections: int,
    socket_timeout: float | None = None,
    blocking: bool = False,
    pool_timeout: float | None = None,
    connection_class: type[Any] | None = None,
) -> redis.Redis:
    """A client of the same server and user that sends every command once: a lost reply is an error, never a repeat.
    (In a cluster what a node refused, because the keys are elsewhere, is sent again.)

    Of at most `max_connections` connections; when they are all in use, a command fails with `redis.ConnectionError`, or
    with `blocking` waits for one. `socket_timeout` and `pool_timeout`, for that wait, are in seconds; None: for ever.
    `connection_class` is one derived from that of the client's connections, if theirs will not do.
    """
    pool = connection.connection_pool
    settings = _settings(pool)
    settings |= {
        'connection_class': connection_class or pool.connection_class,
        'max_connections': max_connections,
        'socket_timeout': socket_timeout,
        'health_check_interval': 0,
        'retry': _no_blind_retry(settings),
        'retry_on_timeout': False,
        'retry_on_error': [],
    }
    if blocking:
        settings['timeout'] = pool_timeout
    client = type(connection)(connection_pool=_new_pool(pool, settings, blocking))
    client.auto_close_connection_pool = True
    return client


def _no_blind_retry(settings: dict[str, Any]) -> Retry:
    if 'slot_owner' not in settings:
        return Retry(NoBackoff(), 0)
    from greenq.cluster import patience

    return patience(cautious=True)


def _settings(pool: Any) -> dict[str, Any]:
    """What a pool gives its connections, for another pool."""
    settings = {key: value for key, value in pool.connection_kwargs.items() if key not in _POOL_INTERNALS}
    maintenance = pool.connection_kwargs.get('maint_notifications_config')
    if maintenance is not None:
        settings['maint_notifications_config'] = maintenance
    return settings


class _BlockingSentinelPool(SentinelConnectionPool, redis.BlockingConnectionPool):
    """A Sentinel pool that waits for a free connection; its bases cooperate through `super()`."""


def _new_pool(model: Any, settings: dict[str, Any], blocking: bool) -> redis.ConnectionPool:
    if not isinstance(model, SentinelConnectionPool):
        return (redis.BlockingConnectionPool if blocking else redis.ConnectionPool)(**settings)
    kind: Any = _BlockingSentinelPool if blocking else SentinelConnectionPool
    pool: redis.ConnectionPool = kind(
        model.service_name,
        model.sentinel_manager,
        is_master=model.is_master,
        check_connection=model.check_connection,
        **settings,
    )
    return pool


def get_connection_kwargs(connection: redis.Redis) -> dict[str, Any]:
    """The arguments with which another process can make the client's connections; they can be pickled."""
    arguments = connection.connection_pool.connection_kwargs.items()
    # Redis-py marks "not given" by a bare object(), known by its identity, which no copy in another process has.
    return {key: value for key, value in arguments if key not in _POOL_INTERNALS and type(value) is not object}


def parse_connection(connection: redis.Redis) -> tuple[type[redis.Redis], type[Any], dict[str, Any]]:
    """The classes of a client and of its connections, and the latter's arguments."""
    return type(connection), connection.connection_pool.connection_class, get_connection_kwargs(connection)


def taken_apart(connection: redis.Redis) -> tuple[type[redis.Redis], type[Any], dict[str, Any]]:
    """As `parse_connection`, and for a client of Sentinel's with what its pool needs under `sentinel`. `put_together`
    makes a client of it, in any process."""
    client_class, connection_class, kwargs = parse_connection(connection)
    pool = connection.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        manager = pool.sentinel_manager
        watchers = [get_connection_kwargs(watcher) for watcher in manager.sentinels]
        kwargs['sentinel'] = {
            'service_name': pool.service_name,
            'sentinels': [(watcher['host'], watcher['port']) for watcher in watchers],
            'sentinel_kwargs': manager.sentinel_kwargs,
            'min_other_sentinels': manager.min_other_sentinels,
            'is_master': pool.is_master,
            'check_connection': pool.check_connection,
        }
    return client_class, connection_class, kwargs


def put_together(
    client_class: type[redis.Redis], connection_class: type[Any], connection_kwargs: dict[str, Any]
) -> redis.Redis:
    """The client that was `taken_apart`, with connections of its own."""
    arguments = dict(connection_kwargs)
    sentinel = arguments.pop('sentinel', None)
    if sentinel is None:
        return client_class.from_pool(redis.ConnectionPool(connection_class=connection_class, **arguments))
    manager = Sentinel(  # type: ignore[no-untyped-call]
        sentinel['sentinels'], sentinel['min_other_sentinels'], sentinel['sentinel_kwargs']
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        sentinel['service_name'],
        manager,
        is_master=sentinel['is_master'],
        check_connection=sentinel['check_connection'],
        connection_class=connection_class,
        **arguments,
    )
    return client_class.from_pool(pool)


def masked(url: str) -> str:
    """The URL, with `***` where its passwords are."""
    scheme, separator, rest = url.rpartition('://')
    userinfo, at, location = rest.rpartition('@')
    if at:
        user = userinfo.partition(':')[0]
        rest = f'{user}:***@{location}' if ':' in userinfo else f'***@{location}'
    place, mark, query = rest.partition('?')
    if mark and 'password=' in query:
        pairs = [(key, '***' if 'password' in key else value) for key, value in parse_qsl(query)]
        rest = f'{place}?{urlencode(pairs, safe="*/:")}'
    return f'{scheme}{separator}{rest}'


def _embedded_url(url: str) -> str:
    """The `unix://` URL of an embedded server, which then runs."""
    # Imported here: a process with a real Redis never needs it.
    from greenq import embedded

    parts = urlsplit(url if url != EMBEDDED else f'{EMBEDDED}://')
    if parts.netloc or (parts.path and not parts.path.startswith('/')):
        raise InvalidConnectionError(
            f'{masked(url)!r} has no absolute path; write embedded:///path, with three slashes'
        )
    target = embedded.url(unquote(parts.path) or None)
    return f'{target}?{parts.query}' if parts.query else target


def __getattr__(name: str) -> Any:
    from greenq.compat import missing_name

    raise missing_name(__name__, name)
