"""`greenq info`: queues and workers as they are now, with bars for people or in raw lines for programs.

It only reads: unlike RQ's, it neither fails lost jobs nor runs their callbacks in the process of whoever is watching.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from greenq.cli.config import Config, pass_config

if TYPE_CHECKING:
    from greenq.queue import Queue
    from greenq.worker import BaseWorker

_SCALES = (20, 50, 100, 200, 400, 600, 800, 1000)
_STATE_COLOURS = {'busy': 'red', 'idle': 'green', 'suspended': 'yellow'}


@click.command()
@click.option('--interval', '-i', type=float, help='Show it again every so many seconds.  [default: once]')
@click.option('--raw', '-r', is_flag=True, help='Plain numbers, no bars and no totals.')
@click.option('--only-queues', '-Q', is_flag=True, help='Leave the workers out.')
@click.option('--only-workers', '-W', is_flag=True, help='Leave the queues out.')
@click.option('--by-queue', '-R', is_flag=True, help='List the workers of each queue.')
@click.argument('queue_names', metavar='[QUEUES]...', nargs=-1)
@pass_config
def info(
    config: Config,
    interval: float | None,
    raw: bool,
    only_queues: bool,
    only_workers: bool,
    by_queue: bool,
    queue_names: Sequence[str],
) -> None:
    """Show queues and workers: all of them, or those of the given queues."""
    view = _View(config, queue_names, raw=raw, by_queue=by_queue)
    sections = 'queues' if only_queues else 'workers' if only_workers else 'both'
    try:
        _show(view, sections, interval)
    except KeyboardInterrupt:
        click.echo()


def _show(view: _View, sections: str, interval: float | None) -> None:
    while True:
        lines = view.lines(sections)
        if interval:
            click.clear()
        click.echo('\n'.join(lines), nl=bool(lines))
        if not interval:
            return
        time.sleep(interval)


@dataclass(frozen=True)
class _View:
    """What to look at, and how to print it."""

    config: Config
    queue_names: Sequence[str]
    raw: bool
    by_queue: bool

    def lines(self, sections: str) -> list[str]:
        queues = self._queues()
        if sections == 'queues':
            return self._queue_lines(queues)
        if sections == 'workers':
            return self._worker_lines(queues)
        gap = [] if self.raw else ['']
        updated = [] if self.raw else ['', f'Updated: {datetime.now()}']
        return [*self._queue_lines(queues), *gap, *self._worker_lines(queues), *updated]

    def _queues(self) -> list[Queue]:
        if self.queue_names:
            return [self.config.queue(name) for name in self.queue_names]
        return sorted(self.config.all_queues(), key=lambda queue: queue.name)

    # ---- queues ----

    def _queue_lines(self, queues: Sequence[Queue]) -> list[str]:
        # Here, because a supervisor, which is this program too, never needs redis-py before a worker dies.
        from greenq.store.queries import queue_counts

        # A look must not clean the started registry: that would fail or requeue the jobs whose worker seems lost.
        counts = queue_counts(self.config.connection, [queue.name for queue in queues])
        waiting = [each.waiting for each in counts]
        heads = [f'queue {queue.name}' for queue in queues] if self.raw else _bars(queues, waiting)
        lines = [
            f'{head} {each.waiting}, {each.executing} executing, {each.finished} finished, {each.failed} failed'
            for head, each in zip(heads, counts, strict=True)
        ]
        return lines if self.raw else [*lines, f'{len(queues)} queues, {sum(waiting)} jobs total']

    # ---- workers ----

    def _worker_lines(self, queues: Sequence[Queue]) -> list[str]:
        everybody = self.config.worker_class.all(connection=self.config.connection)
        workers_of: dict[str, list[BaseWorker]] = {queue.name: [] for queue in queues}
        for worker in everybody:
            for name in {*worker.queue_names()} & workers_of.keys():
                workers_of[name].append(worker)
        workers = _distinct(workers_of.values()) if queues else everybody
        lines = _by_queue_lines(workers_of) if self.by_queue else [self._worker_line(worker) for worker in workers]
        return lines if self.raw else [*lines, f'{len(workers)} workers, {len(queues)} queues']

    def _worker_line(self, worker: BaseWorker) -> str:
        head = f'{worker.name} ({worker.hostname} {worker.ip_address} {worker.pid})'
        state = _state(worker)
        head = f'worker {head} {state}' if self.raw else f'{head}: {_coloured(state)}'
        return (
            f'{head} {", ".join(worker.queue_names())}. '
            f'jobs: {worker.successful_job_count} finished, {worker.failed_job_count} failed{_troubles(worker)}'
        )


def _troubles(worker: BaseWorker) -> str:
    """What a healthy worker has none of."""
    counts = {'outcomes dropped': worker.lost_outcome_count, 'blockages': worker.block_count}
    return ''.join(f', {count} {what}' for what, count in counts.items() if count)


def _bars(queues: Sequence[Queue], counts: Sequence[int]) -> list[str]:
    most = max(counts, default=0)
    scale = next((scale for scale in _SCALES if most <= scale), most)
    width = max(0, min(20, get_terminal_size().columns - 20))
    return [
        f'{queue.name:<12} {click.style("|" + "█" * int(width * count / scale), fg="green")}'
        for queue, count in zip(queues, counts, strict=True)
    ]


def _by_queue_lines(workers_of: Mapping[str, Sequence[BaseWorker]]) -> list[str]:
    width = max((len(name) for name in workers_of), default=0) + 1
    return [
        f'{name + ":":<{width}} ' + (', '.join(sorted(f'{w.name} ({_coloured(_state(w))})' for w in workers)) or '–')
        for name, workers in workers_of.items()
    ]


def _distinct(groups: Iterable[Sequence[BaseWorker]]) -> list[BaseWorker]:
    return list({worker.name: worker for group in groups for worker in group}.values())


def _state(worker: BaseWorker) -> str:
    state = worker.get_state()
    return str(getattr(state, 'value', state))


def _coloured(state: str) -> str:
    colour = _STATE_COLOURS.get(state)
    return click.style(state, fg=colour) if colour else state
