"""Long queues, made inside the server from one job: a million of them take seconds, not a minute."""

from __future__ import annotations

from benchmarks.session import Session
from greenq.store import keys

CHUNK = 10_000

CLONE = """
local fields = redis.call('HGETALL', ARGV[1] .. ARGV[2])
local first, count = tonumber(ARGV[3]), tonumber(ARGV[4])
for number = first, first + count - 1 do
  local id = ARGV[2] .. '-' .. number
  redis.call('HSET', ARGV[1] .. id, unpack(fields))
  redis.call('RPUSH', KEYS[1], id)
end
"""


class Backlog:
    """The queue of a session whose jobs have RQ's layout."""

    def __init__(self, session: Session) -> None:
        self._client = session.server.client
        self._queue_key = keys.queue(f'bench-{session.contender.name}')
        self._clone = self._client.register_script(CLONE)
        session.producer.ask('one_by_one', 'noop', 1)
        template = self._client.lpop(self._queue_key)
        assert isinstance(template, bytes)
        self._template = template
        self._made = 0

    def fill(self, length: int) -> None:
        """Adds jobs until the queue has this length."""
        missing = length - int(self._client.llen(self._queue_key))
        while missing > 0:
            count = min(missing, CHUNK)
            self._clone(keys=[self._queue_key], args=[keys.job(''), self._template, self._made, count])
            self._made += count
            missing -= count
