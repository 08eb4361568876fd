"""What is measured: for each its name, how its worker is started, and how many jobs it is given."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: The name of greenq's contender that the others are compared to.
GREENQ = 'gevent'
FLOOR_RQ = 'floor-rq'


@dataclass(frozen=True)
class Contender:
    """A kind of worker."""

    name: str
    #: The module with its producer.
    runner: str
    #: Its worker's command; {bin}, {python}, {url}, {slots}, {queue} are filled in.
    command: Sequence[str]
    #: About how many no-op jobs it does per second: long measurements of slow ones would tell no more.
    pace: int
    #: How sure it is that a job runs, and whether results are kept.
    keeps: str
    #: The slots it has whatever it is asked for; None if it has as many as it is asked for.
    fixed_slots: int | None = None
    #: The most slots it can run with on one server.
    most_slots: int = 5000
    #: What pip installs for it; without, it runs in this process's environment.
    requirements: Sequence[str] = ()
    #: The distributions whose versions tell what was measured.
    distributions: Sequence[str] = ()
    #: Whether the parent does nothing but watch its children, so that several processes need one command only.
    is_supervised: bool = False
    #: Whether it forks for each job, and therefore imports what jobs need before.
    forks: bool = False
    #: Whether its jobs are coroutines.
    is_asyncio: bool = False
    #: Whether its jobs have RQ's layout.
    has_rq_layout: bool = False
    #: How long (s) it takes without a job until it is at rest.
    calms_within: float = 1.0

    @property
    def is_peer(self) -> bool:
        """Whether it is somebody else's."""
        return bool(self.requirements)

    def slots(self, wanted: int) -> int:
        """How many slots it has when asked for so many."""
        return self.fixed_slots or wanted

    def worker_command(self, bin_folder: Path | None, url: str, slots: int, queue: str) -> list[str]:
        """What starts its worker."""
        python = sys.executable if bin_folder is None else str(bin_folder / 'python')
        values = {'bin': bin_folder, 'python': python, 'url': url, 'slots': slots, 'queue': queue}
        return [part.format_map(values) for part in self.command]

    def producer_command(self, bin_folder: Path | None) -> list[str]:
        """What starts its producer."""
        python = sys.executable if bin_folder is None else str(bin_folder / 'python')
        return [python, '-m', 'benchmarks.produce', self.runner]


_GREENQ_WORKER = ('{python}', '-m', 'greenq', 'worker', '--url', '{url}', '--quiet')
_REDIS = ('redis==8.1.0', 'hiredis==3.5.0')
_GEVENT = (*_REDIS, 'gevent==26.9.0', 'requests==2.34.2')

#: Both ways to call an HTTP server from a coroutine: as coroutines do, and synchronous code in a thread.
_ASYNC_HTTP = ('aiohttp==3.14.5', 'requests==2.34.2')

OWN = (
    Contender(
        GREENQ,
        'benchmarks.on_greenq',
        (*_GREENQ_WORKER, '-w', 'greenq.GeventWorker', '--concurrency', '{slots}', '{queue}'),
        pace=20_000,
        keeps='at least once, results',
        distributions=('greenq', 'redis', 'gevent'),
        is_supervised=True,
        has_rq_layout=True,
        calms_within=33.0,
    ),
    Contender(
        'fork',
        'benchmarks.on_greenq',
        (*_GREENQ_WORKER, '-w', 'fork', '-c', 'benchmarks.preload', '{queue}'),
        pace=80,
        keeps='as RQ, results',
        fixed_slots=1,
        distributions=('greenq', 'redis'),
        forks=True,
        has_rq_layout=True,
        calms_within=33.0,
    ),
    Contender(
        'floor',
        'benchmarks.on_floor',
        ('{python}', '-m', 'benchmarks.floor', 'bare'),
        pace=60_000,
        keeps='nothing',
        distributions=('redis', 'gevent'),
    ),
    Contender(
        FLOOR_RQ,
        'benchmarks.on_floor',
        ('{python}', '-m', 'benchmarks.floor', 'rq'),
        pace=40_000,
        keeps='RQ data, results',
        distributions=('redis', 'gevent'),
        has_rq_layout=True,
    ),
)

PEERS = (
    Contender(
        'rq-fork',
        'benchmarks.peers.on_rq',
        ('{bin}/rq', 'worker', '--url', '{url}', '--quiet', '-c', 'benchmarks.preload', '{queue}'),
        pace=80,
        keeps='as RQ, results',
        fixed_slots=1,
        requirements=('rq==3.0.0', *_REDIS, 'requests==2.34.2'),
        distributions=('rq', 'redis'),
        forks=True,
    ),
    Contender(
        'rq-simple',
        'benchmarks.peers.on_rq',
        ('{bin}/rq', 'worker', '--url', '{url}', '--quiet', '-w', 'rq.worker.SimpleWorker', '{queue}'),
        pace=300,
        keeps='as RQ, results',
        fixed_slots=1,
        requirements=('rq==3.0.0', *_REDIS, 'requests==2.34.2'),
        distributions=('rq', 'redis'),
    ),
    Contender(
        'celery-gevent',
        'benchmarks.peers.on_celery',
        (
            *('{bin}/celery', '-A', 'benchmarks.peers.on_celery', 'worker', '-P', 'gevent', '-c', '{slots}'),
            *('-Q', '{queue}', '-l', 'CRITICAL', '--without-gossip', '--without-mingle', '--without-heartbeat'),
        ),
        pace=700,
        keeps='at most once, results',
        requirements=('celery==5.7.0', 'packaging==26.3', *_GEVENT),
        distributions=('celery', 'redis', 'gevent'),
    ),
    Contender(
        'celery-prefork',
        'benchmarks.peers.on_celery',
        (
            *('{bin}/celery', '-A', 'benchmarks.peers.on_celery', 'worker', '-P', 'prefork', '-c', '8'),
            *('-Q', '{queue}', '-l', 'CRITICAL', '--without-gossip', '--without-mingle', '--without-heartbeat'),
        ),
        pace=900,
        keeps='at most once, results',
        fixed_slots=8,
        requirements=('celery==5.7.0', 'packaging==26.3', *_GEVENT),
        distributions=('celery', 'redis'),
    ),
    Contender(
        'dramatiq-gevent',
        'benchmarks.peers.on_dramatiq',
        (
            *('{bin}/dramatiq-gevent', 'benchmarks.peers.on_dramatiq', '--processes', '1', '--threads', '{slots}'),
            *('--queues', '{queue}', '--skip-logging'),
        ),
        pace=5000,
        keeps='at least once, no results',
        requirements=('dramatiq==2.2.1', *_GEVENT),
        distributions=('dramatiq', 'redis', 'gevent'),
    ),
    Contender(
        'huey-greenlet',
        'benchmarks.peers.on_huey',
        (
            *('{python}', '-m', 'benchmarks.peers.on_huey', 'benchmarks.peers.on_huey.huey', '-k', 'greenlet'),
            *('-w', '{slots}', '-q', '-n'),
        ),
        pace=2500,
        keeps='at most once, results',
        # A blocked connection for each slot, all of which the server looks at with each job that is enqueued.
        most_slots=1000,
        requirements=('huey==3.5.4', *_GEVENT),
        distributions=('huey', 'redis', 'gevent'),
    ),
    Contender(
        'taskiq',
        'benchmarks.peers.on_taskiq',
        (
            *('{bin}/taskiq', 'worker', 'benchmarks.peers.on_taskiq:broker', '--workers', '1'),
            *('--max-async-tasks', '{slots}', '--no-configure-logging'),
        ),
        pace=2000,
        keeps='at least once, results',
        requirements=('taskiq==0.13.0', 'taskiq-redis==1.2.4', *_REDIS, *_ASYNC_HTTP),
        distributions=('taskiq', 'taskiq-redis', 'redis'),
        is_asyncio=True,
    ),
    Contender(
        'saq',
        'benchmarks.peers.on_saq',
        ('{bin}/saq', 'benchmarks.peers.on_saq.settings', '--quiet'),
        pace=1800,
        keeps='at least once, results',
        # A blocked connection for each slot, all of which the server looks at with each job that is enqueued.
        most_slots=1000,
        requirements=('saq[redis]==0.26.4', 'redis==7.4.1', 'hiredis==3.5.0', *_ASYNC_HTTP),
        distributions=('saq', 'redis'),
        is_asyncio=True,
    ),
    Contender(
        'arq',
        'benchmarks.peers.on_arq',
        ('{bin}/arq', 'benchmarks.peers.on_arq.WorkerSettings'),
        pace=2000,
        keeps='at least once, results',
        requirements=('arq==0.28.0', 'redis==5.3.1', 'hiredis==3.5.0', *_ASYNC_HTTP),
        distributions=('arq', 'redis'),
        is_asyncio=True,
    ),
    Contender(
        'streaq',
        'benchmarks.peers.on_streaq',
        ('{bin}/streaq', 'run', 'benchmarks.peers.on_streaq:worker'),
        pace=1200,
        keeps='at least once, results',
        requirements=('streaq==7.2.0', 'coredis==6.9.0', *_ASYNC_HTTP),
        distributions=('streaq', 'coredis'),
        is_asyncio=True,
    ),
)

ALL = (*OWN, *PEERS)


@dataclass(frozen=True)
class Installed:
    """A contender with the environment that it runs in."""

    contender: Contender
    bin_folder: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name
