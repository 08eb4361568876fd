"""The least a worker of this kind could do: `python -m benchmarks.floor rq|bare`. A bound, not a design.

Raw redis-py and gevent; a small script claims a batch, another finishes one. The kind `rq` leaves RQ's main data: the
job's status and times, the registries, the result with its expiry. The kind `bare` leaves nothing. Neither has
callbacks, dependencies, timeouts, retries, leases or heartbeats, and what it held when it crashed nobody takes up.
"""

from gevent import monkey

monkey.patch_all()

import base64  # noqa: E402
import functools  # noqa: E402
import importlib  # noqa: E402
import pickle  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import zlib  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any, Protocol  # noqa: E402

import gevent  # noqa: E402
import redis  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.queue import SimpleQueue  # noqa: E402

from benchmarks import setting  # noqa: E402
from benchmarks.floor_keys import BARE_JOBS, BARE_TAKEN, utc_now  # noqa: E402
from greenq.store import keys  # noqa: E402

BATCH = 200
RESULT_SECONDS = 500

RQ_CLAIM = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
local claimed, started = {}, {}
for i, id in ipairs(ids) do
  redis.call('HSET', ARGV[4] .. id, 'status', 'started', 'started_at', ARGV[2])
  claimed[i] = {id, redis.call('HGET', ARGV[4] .. id, 'data')}
  started[#started + 1] = ARGV[3]
  started[#started + 1] = id
end
if #ids > 0 then redis.call('ZADD', KEYS[2], unpack(started)) end
return claimed
"""

RQ_FINISH = """
local finished, ids = {}, {}
for i = 5, #ARGV, 2 do
  local id, job, stream = ARGV[i], ARGV[3] .. ARGV[i], ARGV[4] .. ARGV[i]
  redis.call('HSET', job, 'status', 'finished', 'ended_at', ARGV[1])
  redis.call('EXPIRE', job, RESULT_SECONDS)
  redis.call('XADD', stream, 'MAXLEN', '~', 10, '*', 'type', 1, 'return_value', ARGV[i + 1])
  redis.call('EXPIRE', stream, RESULT_SECONDS)
  finished[#finished + 1] = ARGV[2]
  finished[#finished + 1] = id
  ids[#ids + 1] = id
end
redis.call('ZREM', KEYS[1], unpack(ids))
redis.call('ZADD', KEYS[2], unpack(finished))
""".replace('RESULT_SECONDS', str(RESULT_SECONDS))

BARE_CLAIM = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local taken, claimed = {}, {}
for i, data in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  claimed[i] = {ids[i], data}
  taken[#taken + 1] = ARGV[2]
  taken[#taken + 1] = ids[i]
end
redis.call('ZADD', KEYS[3], unpack(taken))
return claimed
"""

BARE_FINISH = """
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
"""

Ended = list[tuple[bytes, Any]]


class Store(Protocol):
    """What a kind of floor does with Redis."""

    def claim(self, count: int) -> list[tuple[bytes, bytes]]: ...
    def finish(self, ended: Ended) -> None: ...


class RQStore:
    """RQ's main data."""

    def __init__(self, client: redis.Redis) -> None:
        self._claim = client.register_script(RQ_CLAIM)
        self._finish = client.register_script(RQ_FINISH)
        self._started_key = keys.registry('started', setting.QUEUE)
        self._finished_key = keys.registry('finished', setting.QUEUE)

    def claim(self, count: int) -> list[tuple[bytes, bytes]]:
        claimed: list[tuple[bytes, bytes]] = self._claim(
            keys=[keys.queue(setting.QUEUE), self._started_key],
            args=[count, utc_now(), int(time.time()) + 180, keys.job('')],
        )
        return claimed

    def finish(self, ended: Ended) -> None:
        results: list[bytes] = []
        for job_id, result in ended:
            results += (job_id, base64.b64encode(pickle.dumps(result)))
        self._finish(
            keys=[self._started_key, self._finished_key],
            args=[utc_now(), int(time.time()) + RESULT_SECONDS, keys.job(''), keys.results(''), *results],
        )


class BareStore:
    """Jobs that are known until they are done, and no results."""

    def __init__(self, client: redis.Redis) -> None:
        self._claim = client.register_script(BARE_CLAIM)
        self._finish = client.register_script(BARE_FINISH)

    def claim(self, count: int) -> list[tuple[bytes, bytes]]:
        claimed: list[tuple[bytes, bytes]] = self._claim(
            keys=[keys.queue(setting.QUEUE), BARE_JOBS, BARE_TAKEN], args=[count, int(time.time())]
        )
        return claimed

    def finish(self, ended: Ended) -> None:
        self._finish(keys=[BARE_JOBS, BARE_TAKEN], args=[job_id for job_id, _ in ended])


class Floor:
    """The loop: one greenlet claims, `slots` run, one writes."""

    def __init__(self, store: Store, client: redis.Redis, slots: int) -> None:
        self._store = store
        self._client = client
        self._slots = slots
        self._in_hand = 0
        self._ready: Any = SimpleQueue()
        self._ended: Ended = []
        self._has_ended = Event()
        self._has_room = Event()

    def run(self) -> None:
        """For ever."""
        for _ in range(self._slots):
            gevent.spawn(self._serve)
        gevent.spawn(self._write)
        queue_key = keys.queue(setting.QUEUE)
        while True:
            # As many jobs ready as running: a slot that becomes free finds one.
            room = 2 * self._slots - self._in_hand
            if room < min(BATCH, self._slots):
                self._has_room.clear()
                self._has_room.wait()
                continue
            claimed = self._store.claim(min(room, BATCH))
            self._in_hand += len(claimed)
            for item in claimed:
                self._ready.put(item)
            if not claimed:
                self._client.blmove(queue_key, queue_key, 1)

    def _serve(self) -> None:
        while True:
            job_id, data = self._ready.get()
            name, _, args, kwargs = pickle.loads(zlib.decompress(data) if data[:1] == b'x' else data)
            # In this order: while the job runs, `_write` puts another list in place.
            result = _function(name)(*args, **kwargs)
            self._ended.append((job_id, result))
            self._has_ended.set()

    def _write(self) -> None:
        while True:
            self._has_ended.wait()
            self._has_ended.clear()
            ended, self._ended = self._ended, []
            self._in_hand -= len(ended)
            self._has_room.set()
            # What a script can unpack is limited.
            for start in range(0, len(ended), 1000):
                self._store.finish(ended[start : start + 1000])


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition('.')
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def main() -> None:
    """Run the kind that the first argument names."""
    # redis-py's timeout would end reads that were begun before the process was stopped.
    client = redis.Redis.from_url(setting.URL, socket_timeout=None)
    kinds: dict[str, Callable[[redis.Redis], Store]] = {'rq': RQStore, 'bare': BareStore}
    Floor(kinds[sys.argv[1]](client), client, setting.SLOTS).run()


if __name__ == '__main__':
    main()
