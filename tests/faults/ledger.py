"""What the jobs wrote down themselves, and what Redis holds, read without greenq. It judges nothing: see `oracle`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

#: Where RQ's layout keeps the jobs that have ended.
ENDED = ('finished', 'failed')

#: All places of all queues at one moment: {{place, member, ...}, ...}.
_PLACES = """
local found = {}
local function note(place, members)
  table.insert(members, 1, place)
  found[#found + 1] = members
end
for _, key in ipairs(redis.call('SMEMBERS', 'rq:queues')) do
  local queue = string.sub(key, 10)
  note('queued', redis.call('LRANGE', key, 0, -1))
  note('intermediate', redis.call('LRANGE', key .. ':intermediate', 0, -1))
  note('started', redis.call('ZRANGE', 'rq:wip:' .. queue, 0, -1))
  for _, place in ipairs({ 'finished', 'failed', 'deferred', 'ready', 'scheduled', 'canceled' }) do
    note(place, redis.call('ZRANGE', 'rq:' .. place .. ':' .. queue, 0, -1))
  end
end
for _, key in ipairs(redis.call('KEYS', 'rq:greenq:parked:*')) do note('parked', redis.call('LRANGE', key, 0, -1)) end
return found
"""


@dataclass
class Run:
    """One run of a job, as the job itself entered it; times are monotonic."""

    id: str
    pid: int
    began: float
    ended: float | None = None


class Ledger:
    """The file that the jobs append to, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self._read = 0
        self._lock = threading.Lock()
        self._by_token: dict[str, Run] = {}
        self._runs: dict[str, list[Run]] = defaultdict(list)
        self._gaps: dict[str, float] = {}

    def runs(self) -> dict[str, list[Run]]:
        """Job id -> its runs, in order."""
        with self._lock:
            with self.path.open('rb') as file:
                file.seek(self._read)
                data = file.read()
            whole = data[: data.rfind(b'\n') + 1]
            self._read += len(whole)
            for line in whole.decode().splitlines():
                self._note(*line.split())
            return {id: list(runs) for id, runs in self._runs.items()}

    def _note(self, event: str, id: str, token: str, pid: str, at: str, note: str) -> None:
        if event == 'start':
            self._by_token[token] = run = Run(id, int(pid), float(at))
            self._runs[id].append(run)
        elif event == 'end':
            self._by_token[token].ended = float(at)
        elif event == 'gap':
            self._gaps[id] = float(note)

    def gaps(self) -> dict[str, float]:
        """The longest time (s) for which each measuring job was kept from running."""
        self.runs()
        return dict(self._gaps)

    def started(self) -> set[str]:
        return set(self.runs())

    def running(self) -> set[str]:
        """Jobs that began and have not come to their end, as far as they know."""
        return {id for id, runs in self.runs().items() if runs[-1].ended is None}

    def ended(self) -> set[str]:
        """Jobs that came to their end at least once."""
        return {id for id, runs in self.runs().items() if any(run.ended is not None for run in runs)}

    def starts(self) -> int:
        """How many runs began."""
        return sum(map(len, self.runs().values()))


def read_places(client: Any) -> dict[str, list[str]]:
    """Job id -> every place that it is in at one moment, as often as it is there."""
    found: dict[str, list[str]] = {}
    for place, *members in client.eval(_PLACES, 0):
        name = place.decode()
        for member in members:
            id = member.decode()
            found.setdefault(id.rpartition(':')[0] if name == 'started' else id, []).append(name)
    return found


def read_executions(client: Any, queues: Iterable[str] = ('default',)) -> set[str]:
    """What the started registries name now: `<job id>:<execution id>`."""
    return {entry.decode() for queue in queues for entry in client.zrange(f'rq:wip:{queue}', 0, -1)}


def jobs_of(executions: Iterable[str]) -> set[str]:
    return {entry.rpartition(':')[0] for entry in executions}


def count_ended(client: Any) -> int:
    """How many entries the registries of finished and failed jobs have."""
    queues = [key.decode().removeprefix('rq:queue:') for key in client.smembers('rq:queues')]
    return sum(int(client.zcard(f'rq:{place}:{queue}')) for queue in queues for place in ENDED)


def read_fields(client: Any, ids: Sequence[str], name: str) -> dict[str, str]:
    """Some field of the hash of each job; '' where there is none."""
    return dict(zip(ids, (_text(value) for value in _in_chunks(client, 'hget', ids, 'rq:job:{}', name)), strict=True))


def read_result_counts(client: Any, ids: Sequence[str]) -> dict[str, int]:
    """How many results each job has."""
    return dict(zip(ids, _in_chunks(client, 'xlen', ids, 'rq:results:{}'), strict=True))


def held_by(client: redis.Redis, executions: Iterable[str], worker: str) -> set[str]:
    """Those executions whose jobs name the worker."""
    entries = sorted(executions)
    names = read_fields(client, [entry.rpartition(':')[0] for entry in entries], 'worker_name')
    return {entry for entry in entries if names[entry.rpartition(':')[0]] == worker}


def _in_chunks(client: Any, command: str, ids: Sequence[str], key: str, *arguments: str) -> list[Any]:
    replies: list[Any] = []
    for at in range(0, len(ids), 5000):
        pipeline = client.pipeline(transaction=False)
        for id in ids[at : at + 5000]:
            getattr(pipeline, command)(key.format(id), *arguments)
        replies += pipeline.execute()
    return replies


def _text(value: bytes | None) -> str:
    return value.decode() if value else ''
