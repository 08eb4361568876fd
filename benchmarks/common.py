"""What the benchmarks share: a server, worker processes to measure, and figures turned into text."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
from redis import Redis

from greenq import Queue, embedded
from greenq.store import keys

Call = tuple[Callable[..., Any], tuple[Any, ...]]


@contextmanager
def running_server(persistent: bool) -> Iterator[Redis]:
    """A client of an embedded server in a directory of its own; without `persistent` it writes nothing to disk."""
    with tempfile.TemporaryDirectory(prefix='greenq-bench-') as folder, embedded.start(folder) as server:
        client = server.connection()
        if not persistent:
            client.config_set('appendonly', 'no')
        yield client
        client.close()
        server.stop(wait=10)


class Drain(NamedTuple):
    """What a worker took to run so many jobs: seconds, and CPU time per job in microseconds."""

    seconds: float
    worker_us: float
    server_us: float


class WorkerProcess:
    """A worker, in a process of its own, that waits for jobs of `queue`."""

    def __init__(self, command: Sequence[str], queue: Queue) -> None:
        self.queue = queue
        self._process = subprocess.Popen([sys.executable, '-m', *command], start_new_session=True)

    def end(self) -> None:
        """End it, by force if it does not obey."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def drain(self, call: Call, count: int) -> Drain:
        """From letting the worker loose on a full queue until the last result is in Redis, by Redis' clock.

        The worker is stopped while the queue fills, so that neither its start nor the producer is measured.
        """
        client = self.queue.connection
        self._process.send_signal(signal.SIGSTOP)
        jobs = self.queue.enqueue_many(Queue.prepare_data(*call) for _ in range(count))
        finished, worker_cpu, server_cpu = self._finished_count(), self._cpu_seconds(), _server_cpu_seconds(client)
        began = _server_time(client)
        self._process.send_signal(signal.SIGCONT)
        while self._finished_count() < finished + count:
            if self._process.poll() is not None:
                raise RuntimeError(f'the worker of {self.queue} ended with status {self._process.returncode}')
            time.sleep(0.02)
        worker_cpu, server_cpu = self._cpu_seconds() - worker_cpu, _server_cpu_seconds(client) - server_cpu
        ended = self._last_result_time([job.id for job in jobs])
        self._forget([job.id for job in jobs])
        return Drain(ended - began, worker_cpu / count * 1e6, server_cpu / count * 1e6)

    def _cpu_seconds(self) -> float:
        # Of the process, and of those of its children that have ended.
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:4]))

    def warm_up(self, call: Call) -> None:
        """Run some jobs, so that it has imported what it needs."""
        self.drain(call, 20)

    def _finished_count(self) -> int:
        return self.queue.finished_job_registry.get_job_count(cleanup=False)

    def _last_result_time(self, job_ids: Sequence[str]) -> float:
        """When the last of the results was written. Fails if one is missing: results are part of what is measured."""
        with self.queue.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.xrevrange(keys.results(job_id), count=1)
            streams = pipeline.execute()
        return max(int(stream[0][0].split(b'-')[0]) for stream in streams) / 1000

    def _forget(self, job_ids: Sequence[str]) -> None:
        with self.queue.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.unlink(keys.job(job_id), keys.results(job_id))
            pipeline.unlink(self.queue.finished_job_registry.key)
            pipeline.execute()


@contextmanager
def running_worker(command: Sequence[str], queue: Queue) -> Iterator[WorkerProcess]:
    """A worker process during the block."""
    worker = WorkerProcess(command, queue)
    try:
        yield worker
    finally:
        worker.end()


def _server_time(client: Redis) -> float:
    seconds, microseconds = client.time()
    return int(seconds) + int(microseconds) / 1e6


def _server_cpu_seconds(client: Redis) -> float:
    info = client.info('cpu')
    return float(info['used_cpu_user']) + float(info['used_cpu_sys'])


def machine() -> str:
    """One line on where and how undisturbed this ran."""
    load = os.getloadavg()[0]
    return (
        f'Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load at the end {load:.1f}'
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
