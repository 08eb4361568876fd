"""Redis Cluster: connections to the node that owns greenq's keys, wherever a failover or a resharding puts them.

A hash tag in RQ_KEY_PREFIX gives all keys one slot, so one node has them all, and scripts, transactions and blocking
moves work there as on a server of its own. How clients and pools are made of these connections is not told here.
"""

from __future__ import annotations

import os
from typing import Any

from redis import RedisCluster
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

from greenq.defaults import RQ_KEY_PREFIX

#: How often a command is tried again when the node is gone, or has given the keys away.
RETRIES = 3
#: Seconds that a node may take to say who owns the slot, unless the user's client says otherwise.
ANSWER_SECONDS = 5

# What RedisCluster puts among its nodes' arguments for itself, and takes from nobody.
_CLUSTER_INTERNALS = frozenset(
    {
        'connection_class',
        'connection_pool',
        'oss_cluster_maint_notifications_handler',
        'parser_class',
        'redis_connect_func',
        'retry',
    }
)


def has_hash_tag(prefix: str = RQ_KEY_PREFIX) -> bool:
    """Whether all keys with this prefix share a slot: its first `{` is followed by something and a `}`."""
    tag, brace, _ = prefix.partition('{')[2].partition('}')
    return bool(tag and brace)


class SentAwayError(ConnectionError):
    """A node refused a command because the keys are elsewhere. Nothing was executed: to try again is harmless."""


class SlotOwner:
    """Knows the address of the node that has greenq's keys now. Can be pickled, for connections of other processes.

    It asks through a cluster client of its own, which reads from no replica and is made anew after a fork.
    """

    def __init__(self, nodes: list[tuple[str, int]], options: dict[str, Any]):
        self._nodes = nodes
        self._options = options
        self._cluster: RedisCluster | None = None
        self._pid = 0

    @classmethod
    def of(cls, cluster: RedisCluster) -> SlotOwner:
        """For the cluster that a client is connected to."""
        made_of: dict[str, Any] = cluster.get_connection_kwargs()  # type: ignore[no-untyped-call]
        options = {key: value for key, value in made_of.items() if key not in _CLUSTER_INTERNALS}
        if issubclass(made_of.get('connection_class', Connection), SSLConnection):
            options['ssl'] = True
        remap = getattr(cluster.nodes_manager, 'address_remap', None)
        if remap is not None:
            options['address_remap'] = remap
        nodes: Any = cluster.get_nodes()  # type: ignore[no-untyped-call]
        return cls([(node.host, node.port) for node in nodes], options)

    def __reduce__(self) -> tuple[Any, ...]:
        return SlotOwner, (self._nodes, self._options)

    def address(self) -> tuple[str, int]:
        """Host and port, learned just now. Raises `redis.ConnectionError` when the cluster cannot tell."""
        try:
            cluster = self._connected()
            # A command for a key, whatever it answers, makes the client follow the slot to its present owner.
            cluster.exists(RQ_KEY_PREFIX)
            node: Any = cluster.get_node_from_key(RQ_KEY_PREFIX)  # type: ignore[no-untyped-call]
        except (RedisError, RedisClusterException, OSError) as error:
            raise ConnectionError(f'the cluster does not tell which node has {RQ_KEY_PREFIX}: {error}') from error
        return node.host, node.port

    def _connected(self) -> RedisCluster:
        if self._cluster is None or self._pid != os.getpid():
            nodes = [ClusterNode(host, port) for host, port in self._nodes]  # type: ignore[no-untyped-call]
            timeouts = {'socket_timeout': ANSWER_SECONDS, 'socket_connect_timeout': ANSWER_SECONDS}
            self._cluster = RedisCluster(startup_nodes=nodes, **timeouts | self._options)
            self._pid = os.getpid()
        return self._cluster


class SlotConnection(Connection):
    """A connection to the slot's owner: it asks for the address whenever it connects, and leaves a node that says that
    it is not the owner any more."""

    def __init__(self, *, slot_owner: SlotOwner, **kwargs: Any):
        self._slot_owner = slot_owner
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = self._slot_owner.address()
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The reply. Raises `SentAwayError` for one that sends the client elsewhere."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not _sends_away(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            answer = f'{type(error).__name__}: {error}'
            raise SentAwayError(
                f'the node {self.host}:{self.port} does not serve {RQ_KEY_PREFIX} now ({answer})'
            ) from error


class SlotSSLConnection(SlotConnection, SSLConnection):
    """The same with TLS."""


_AWAY = ('MOVED', 'ASK', 'CLUSTERDOWN', 'MASTERDOWN', 'READONLY')
_AWAY_CLASSES = ('MovedError', 'AskError', 'ClusterDownError', 'MasterDownError', 'ReadOnlyError')


def patience(*, cautious: bool) -> Retry:
    """How often, and when, a command is tried again; `cautious`: only if it is certain that it was not executed."""
    errors = {'supported_errors': (SentAwayError,)} if cautious else {}
    return Retry(ExponentialBackoff(cap=1, base=0.05), RETRIES, **errors)


def _sends_away(error: ResponseError) -> bool:
    # Which replies have a class of their own, and whether the message keeps its first word, depends on redis-py.
    return type(error).__name__ in _AWAY_CLASSES or str(error).startswith(_AWAY)
