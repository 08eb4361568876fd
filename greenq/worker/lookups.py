"""Has the hub of a worker look up host names for many jobs at once, from the first lookup on: a worker that looks
nothing up does not load what that takes."""

from typing import Any

from gevent import get_hub

#: Threads for what cannot be waited for otherwise: a tenth of the slots, but no fewer and no more than these. They are
#: made when all others are busy.
LEAST_THREADS = 10
MOST_THREADS = 100


class Later:
    """Stands for a hub's resolver until something is asked of it."""

    def __init__(self, hub: Any):
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        self._hub.resolver = _sharing(self._hub.resolver_class(hub=self._hub))
        return getattr(self._hub.resolver, name)


def _sharing(resolver: Any) -> Any:
    """One like gevent's own; another, which somebody has chosen, stays."""
    from gevent.resolver.thread import Resolver

    from greenq.worker.names import Names

    return Names(resolver.pool.hub) if type(resolver) is Resolver else resolver


def share_lookups(concurrency: int) -> None:
    """Prepares the hub of this thread for so many jobs at once; what was chosen by whoever runs them stays."""
    hub = get_hub()
    # Asked for by their public names, both would be made.
    resolver, pool = getattr(hub, '_resolver', None), getattr(hub, '_threadpool', None)
    hub.resolver = Later(hub) if resolver is None else _sharing(resolver)
    threads = max(LEAST_THREADS, min(concurrency // 10, MOST_THREADS))
    if hub.threadpool_size == LEAST_THREADS:
        hub.threadpool_size = threads
    if pool is not None and pool.maxsize == LEAST_THREADS:
        pool.maxsize = threads
