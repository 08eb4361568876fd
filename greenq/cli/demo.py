"""`greenq demo`: the same plain jobs on the gevent worker and on the fork worker, and how fast each was.

Everything it starts is its own (a data directory, a Redis-compatible server, a web server, workers) and ends with it.
It uses greenq as any program would: what the workers do is not arranged here.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO
from urllib.parse import quote

import click

from greenq import embedded
from greenq.cli.demo_jobs import count_words_at_url
from greenq.cli.errors import CommandError
from greenq.job import Job, JobStatus
from greenq.queue import Queue

GEVENT_WORKER = 'greenq.GeventWorker'
FORK_WORKER = 'greenq.Worker'
DEFAULT_JOBS = 1000
DEFAULT_FORK_JOBS = 30
DEFAULT_CONCURRENCY = 500

LOOK_SECONDS = 0.1
END_SECONDS = 2.0
SPARE_FILES = 200
"""What a process has open besides the sockets of its jobs, generously."""

FOOTER = 'seconds: from the start of the first job to the end of the last, so without the start of the worker process'


@click.command()
@click.option(
    '--jobs',
    type=click.IntRange(min=1),
    help=f'Jobs for the gevent worker.  [default: {DEFAULT_JOBS}, or one for each of --urls]',
)
@click.option(
    '--fork-jobs',
    type=click.IntRange(min=0),
    help=f'Jobs for the fork worker, which takes its time.  [default: {DEFAULT_FORK_JOBS}, or fewer if --jobs are]',
)
@click.option(
    '--concurrency',
    type=click.IntRange(min=1),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    help='Jobs that the gevent worker runs at once.',
)
@click.option(
    '--urls',
    'urls_file',
    type=click.File(encoding='utf-8', errors='replace'),
    help='File with one URL a line: fetch these, over and over if --jobs are more, and not pages from this machine.',
)
def demo(jobs: int | None, fork_jobs: int | None, concurrency: int, urls_file: TextIO | None) -> None:
    """Fetch a thousand web pages and count their words, with plain blocking code, on two kinds of worker.

    The pages come from this machine and take 50 ms each. Exit status 1 if a job was neither finished nor failed.
    """
    urls = None if urls_file is None else _read_urls(urls_file)
    jobs = jobs or (DEFAULT_JOBS if urls is None else len(urls))
    fork_jobs = min(DEFAULT_FORK_JOBS, jobs) if fork_jobs is None else fork_jobs
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    _allow_open_files(concurrency + SPARE_FILES)
    with ExitStack() as stack:
        stage = _Stage(stack, urls)
        runs = [stage.run(GEVENT_WORKER, jobs, '--concurrency', str(concurrency), '--grace', '0')]
        if fork_jobs:
            runs.append(stage.run(FORK_WORKER, fork_jobs))
    click.echo('\n'.join(['', *_table(runs), '', FOOTER, *_remarks(runs)]))
    if any(run.lost for run in runs):
        sys.exit(1)


def _read_urls(file: TextIO) -> list[str]:
    urls = [line.strip() for line in file]
    urls = [url for url in urls if url and not url.startswith('#')]
    if not urls:
        raise CommandError(f'There is no URL in {file.name!r}: write one a line.')
    return urls


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def _allow_open_files(wanted: int) -> None:
    """Raise the limit, which the processes started here inherit: macOS begins with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


# ---- running ----


@dataclass(frozen=True)
class _Run:
    """What became of the jobs that one worker was given."""

    worker: str
    jobs: int
    seconds: float
    failures: Counter[str]
    lost: Counter[str]
    complaint: str

    @property
    def rate(self) -> float:
        """Jobs per second, of those that ended."""
        return (self.jobs - self.lost.total()) / self.seconds if self.seconds else 0.0


class _Stage:
    """The servers that both runs use. They end with `stack`."""

    def __init__(self, stack: ExitStack, urls: Sequence[str] | None) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='greenq-demo-')))
        server = embedded.start(self._folder / 'data')
        stack.callback(server.stop, wait=10)
        self._url = f'embedded://{quote(server.path)}'
        self._connection = server.connection()
        stack.callback(self._connection.close)
        self._environment = _clean_environment()
        self._urls = urls or [self._start_pages(stack)]
        click.echo(f'server: {server.url}')

    def _start_pages(self, stack: ExitStack) -> str:
        process = stack.enter_context(
            _process('greenq.cli.demo_server', stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment)
        )
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        if not url:
            raise CommandError('The web server of the demo does not start: see above, or name other pages with --urls.')
        # A proxy for the world outside, as the user may have one, knows nothing of this server.
        self._environment['no_proxy'] = '*'
        return url

    def run(self, worker: str, count: int, *options: str) -> _Run:
        """Enqueue jobs, start a worker, and return when it has ended."""
        queue = Queue(worker, connection=self._connection)
        urls = itertools.islice(itertools.cycle(self._urls), count)
        jobs = queue.enqueue_many(Queue.prepare_data(count_words_at_url, (url,)) for url in urls)
        log = self._folder / f'{worker}.log'
        arguments = ['worker', '--url', self._url, '-w', worker, '--burst', '--quiet', *options, queue.name]
        with log.open('wb') as output, _progress(worker, count) as show:
            kept: dict[str, Any] = {'env': self._environment, 'stdin': subprocess.DEVNULL}
            with _process('greenq', *arguments, stdout=output, stderr=output, **kept) as process:
                while not _has_ended(process, LOOK_SECONDS):
                    show(_ended_count(queue))
            show(_ended_count(queue))
        return _judge(worker, [job.id for job in jobs], queue, _complaint(process, log))


@contextmanager
def _process(module: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of greenq's during the block.

    In a session of its own: Ctrl+C reaches this process only, which then ends the others in good order.
    """
    process = subprocess.Popen([sys.executable, '-m', module, *arguments], start_new_session=True, **options)
    try:
        yield process
    finally:
        _end(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    # A worker asked once lets a forked job end, asked twice it ends that, too.
    for _ in range(2):
        process.terminate()
        if _has_ended(process, END_SECONDS):
            return
    process.kill()
    process.wait()


def _has_ended(process: subprocess.Popen[bytes], wait: float) -> bool:
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        return False
    return True


_KEPT_VARIABLES = ('GREENQ_KEY_PREFIX', 'RQ_KEY_PREFIX', 'GREENQ_SERVER_BINARY')


def _clean_environment() -> dict[str, str]:
    """This process's environment without the settings that the user has for workers of his own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or not name.startswith(('GREENQ_', 'RQ_'))
    }


def _ended_count(queue: Queue) -> int:
    registries = (queue.finished_job_registry, queue.failed_job_registry)
    return sum(registry.get_job_count(cleanup=False) for registry in registries)


def _judge(worker: str, job_ids: Sequence[str], queue: Queue, complaint: str) -> _Run:
    """Ask every job what became of it."""
    finished: list[Job] = []
    failed: list[Job] = []
    lost: Counter[str] = Counter()
    for job in Job.fetch_many(job_ids, connection=queue.connection):
        status = None if job is None else job.get_status(refresh=False)
        if job is not None and status in (JobStatus.FINISHED, JobStatus.FAILED):
            (finished if status is JobStatus.FINISHED else failed).append(job)
        else:
            lost['gone' if status is None else str(status.value)] += 1
    failures = Counter(_first_line(job.exc_info) for job in failed)
    return _Run(worker, len(job_ids), _span(finished + failed), failures, lost, complaint)


def _span(jobs: Sequence[Job]) -> float:
    starts = [job.started_at for job in jobs if job.started_at]
    ends = [job.ended_at for job in jobs if job.ended_at]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0


def _first_line(traceback: str | None) -> str:
    """The exception of a traceback, without the lines that its message may have after the first."""
    lines = (traceback or 'no reason given').rpartition('Traceback (most recent call last):\n')[2].splitlines()
    return next((line for line in lines if line and not line.startswith(' ')), lines[0])


def _complaint(process: subprocess.Popen[bytes], log: Path) -> str:
    if process.returncode == 0:
        return ''
    lines = log.read_text(errors='replace').split('\n')
    last = next((line for line in reversed(lines) if line.strip()), 'it said nothing')
    return f'ended with status {process.returncode}: {last}'


# ---- showing ----


@contextmanager
def _progress(worker: str, count: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of jobs that have ended: it moves a bar, or writes a line now and then."""
    if sys.stdout.isatty():
        with click.progressbar(length=count, label=f'{worker:<{len(GEVENT_WORKER)}}', show_pos=True) as bar:
            yield lambda ended: bar.update(ended - bar.pos)
        return
    shown = -1

    def write(ended: int) -> None:
        nonlocal shown
        quarter = ended * 4 // count
        if quarter != shown:
            shown = quarter
            click.echo(f'{worker}: {ended} of {count} jobs')

    yield write


def _table(runs: Sequence[_Run]) -> list[str]:
    fork_rate = next((run.rate for run in runs if run.worker == FORK_WORKER), 0.0)
    rows = [('worker', 'jobs', 'seconds', 'jobs/s', 'vs fork', 'failed', 'lost')]
    for run in runs:
        ratio = f'{run.rate / fork_rate:.1f}x' if fork_rate else '-'
        counts = (str(run.failures.total()), str(run.lost.total()))
        rows.append((run.worker, f'{run.jobs:,}', f'{run.seconds:.2f}', f'{run.rate:,.1f}', ratio, *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _remarks(runs: Sequence[_Run]) -> list[str]:
    lines = []
    for run in runs:
        lines += [f'{run.worker}: {count} failed: {reason}' for reason, count in run.failures.most_common()]
        lines += [f'{run.worker}: {count} lost: {status}' for status, count in run.lost.most_common()]
        if run.complaint:
            lines.append(f'{run.worker}: {run.complaint}')
    return ['', *lines] if lines else []
