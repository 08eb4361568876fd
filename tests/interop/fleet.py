"""Workers of RQ and greenq as real processes that can be frozen and killed; the ledger of their jobs; places in Redis.

The reading uses plain redis-py and spells RQ's keys, so that no code of greenq vouches for itself.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.helpers import ROOT, command_environment, wait_until

#: Where RQ keeps a job of the queue `default`: registries first, then what is none.
REGISTRIES = ('finished', 'failed', 'deferred', 'ready', 'scheduled', 'canceled')


class FleetWorker:
    """A worker process with its children."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def _family(self) -> list[psutil.Process]:
        eldest = psutil.Process(self.process.pid)
        return [eldest, *eldest.children(recursive=True)]

    def freeze(self) -> None:
        """Stops it in its tracks; itself first, so that it starts no child that is not stopped as well."""
        self.process.send_signal(signal.SIGSTOP)
        _signal(self._family(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        _signal(self._family(), signal.SIGCONT)

    def kill(self) -> None:
        """Ends it and its children as the loss of a host does; frozen before, none of them does a last thing."""
        self.freeze()
        _signal(self._family(), signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Ends it gently, or by force if it does not obey."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def _signal(family: list[psutil.Process], number: signal.Signals) -> None:
    """To those that were found before: the children of a dead process are nobody's."""
    for process in family:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            pass


def start_worker(package: str, name: str, url: str, log: Path, *options: str) -> FleetWorker:
    """Starts `rq worker` or `greenq worker` on the queue `default`."""
    program = ['rq.cli', 'worker', '--path', str(ROOT)] if package == 'rq' else ['greenq', 'worker']
    with log.open('wb') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', *program, '--url', url, '--name', name, *options],
            cwd=ROOT,
            env=command_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return FleetWorker(name, process)


@contextmanager
def fleet(
    client: redis.Redis, url: str, folder: Path, workers: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, FleetWorker]]:
    """Workers by name, whose first option is their package; all are at work when the block begins."""
    started: dict[str, FleetWorker] = {}
    try:
        for name, (package, *options) in workers.items():
            started[name] = start_worker(package, name, url, folder / f'{name}.log', *options)
        for name in started:
            wait_until(partial(listens, client, name), 30, description=f'{name} listens')
        yield started
    finally:
        for worker in started.values():
            worker.end()


def listens(client: Any, name: str) -> bool:
    """Whether a worker takes commands, which all do once they are at work."""
    return bool(client.pubsub_numsub(f'rq:pubsub:{name}')[0][1])


def started_jobs(client: Any, worker: str) -> set[str]:
    """The ids of the jobs that are started and under way at a worker."""
    ids = sorted({entry.decode().rpartition(':')[0] for entry in client.zrange('rq:wip:default', 0, -1)})
    found = fields(client, ids, 'status', 'worker_name')
    return {id for id in ids if found[id] == ['started', worker]}


def held_jobs(client: Any, worker: str) -> set[str]:
    """The ids of the jobs that a greenq worker has under lease."""
    return {entry.decode().rpartition(':')[0] for entry in client.smembers(f'rq:greenq:worker:{worker}:executions')}


def fields(client: Any, ids: Sequence[str], *names: str) -> dict[str, list[str]]:
    """Some fields of the hash of each job; '' for what it has not."""
    pipeline = client.pipeline(transaction=False)
    for id in ids:
        pipeline.hmget(f'rq:job:{id}', *names)
    return {
        id: [value.decode() if value else '' for value in values]
        for id, values in zip(ids, pipeline.execute(), strict=True)
    }


def places(client: Any) -> dict[str, list[str]]:
    """Job id -> every place that it is in, as often as it is there."""
    found: dict[str, list[str]] = {}

    def note(place: str, ids: Sequence[bytes]) -> None:
        for id in ids:
            found.setdefault(id.decode(), []).append(place)

    for registry in REGISTRIES:
        note(registry, client.zrange(f'rq:{registry}:default', 0, -1))
    note('wip', [entry.rpartition(b':')[0] for entry in client.zrange('rq:wip:default', 0, -1)])
    note('queue', client.lrange('rq:queue:default', 0, -1))
    note('intermediate', client.lrange('rq:queue:default:intermediate', 0, -1))
    for key in client.scan_iter('rq:greenq:parked:*'):
        note('parked', client.lrange(key, 0, -1))
    return found


def result_types(client: Any, ids: Sequence[str]) -> dict[str, list[int]]:
    """The types in the result stream of each job, the oldest first."""
    pipeline = client.pipeline(transaction=False)
    for id in ids:
        pipeline.xrange(f'rq:results:{id}')
    return {
        id: [int(entry[b'type']) for _, entry in entries] for id, entries in zip(ids, pipeline.execute(), strict=True)
    }


class Ledger:
    """What the jobs have entered: how often each began and came to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    @property
    def size(self) -> int:
        """How many entries there are, roughly while jobs run."""
        return self.path.read_bytes().count(b'\n')

    def count(self, event: str) -> Counter[int]:
        """Number of a job -> how many such entries it has."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return Counter(int(number) for found, number, _ in lines if found == event)

    def shares(self) -> Counter[int]:
        """How many jobs each process began."""
        return Counter(int(line.split()[2]) for line in self.path.read_text().splitlines() if line.startswith('start'))
