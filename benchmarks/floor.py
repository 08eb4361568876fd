"""The least a worker of this kind could do: `python -m benchmarks.floor URL QUEUE SLOTS`. A bound, not a design.

Raw redis-py and gevent; a small script claims a batch, another finishes one, and they leave RQ's main data behind: the
job's status and times, the registries, the result. No callbacks, dependencies, timeouts, retries, leases or heartbeats,
and a crash loses jobs.
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
from datetime import UTC, datetime  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import redis  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.queue import SimpleQueue  # noqa: E402

from greenq.store import keys  # noqa: E402

BATCH = 200
RESULT_SECONDS = 500

CLAIM = """
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

FINISH = """
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


class Floor:
    """The loop: one greenlet claims, `slots` run, one writes."""

    def __init__(self, url: str, queue: str, slots: int) -> None:
        client = redis.Redis.from_url(url)
        self._client = client
        self._queue_key = keys.queue(queue)
        self._started_key = keys.registry('started', queue)
        self._finished_key = keys.registry('finished', queue)
        self._claim = client.register_script(CLAIM)
        self._finish = client.register_script(FINISH)
        self._slots = slots
        self._in_hand = 0
        self._ready: Any = SimpleQueue()
        self._results: list[bytes] = []
        self._has_results = Event()
        self._has_room = Event()

    def run(self) -> None:
        """For ever."""
        for _ in range(self._slots):
            gevent.spawn(self._serve)
        gevent.spawn(self._write)
        while True:
            # As many jobs ready as running: a slot that becomes free finds one.
            room = 2 * self._slots - self._in_hand
            if room < min(BATCH, self._slots):
                self._has_room.clear()
                self._has_room.wait()
                continue
            claimed = self._claim(
                keys=[self._queue_key, self._started_key],
                args=[min(room, BATCH), _now(), int(time.time()) + 180, keys.job('')],
            )
            self._in_hand += len(claimed)
            for item in claimed:
                self._ready.put(item)
            if not claimed:
                self._client.blmove(self._queue_key, self._queue_key, 1)

    def _serve(self) -> None:
        while True:
            job_id, data = self._ready.get()
            name, _, args, kwargs = pickle.loads(zlib.decompress(data) if data[:1] == b'x' else data)
            result = _function(name)(*args, **kwargs)
            self._results += (job_id, base64.b64encode(pickle.dumps(result)))
            self._has_results.set()

    def _write(self) -> None:
        while True:
            self._has_results.wait()
            self._has_results.clear()
            results, self._results = self._results, []
            self._in_hand -= len(results) // 2
            self._has_room.set()
            self._finish(
                keys=[self._started_key, self._finished_key],
                args=[_now(), int(time.time()) + RESULT_SECONDS, keys.job(''), keys.results(''), *results],
            )


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition('.')
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def _now() -> str:
    return datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')


if __name__ == '__main__':
    Floor(sys.argv[1], sys.argv[2], int(sys.argv[3])).run()
