"""`greenq enqueue`, `greenq requeue` and `greenq empty`: what one does with jobs by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from greenq.cli.arguments import check_function_name, parse_function_args, parse_schedule
from greenq.cli.config import Config, pass_config
from greenq.cli.errors import CommandError, one_line

if TYPE_CHECKING:
    from greenq.job import Job
    from greenq.queue import Queue
    from greenq.registry import FailedJobRegistry


@click.command()
@click.option('--queue', '-q', 'queue_name', default='default', help='Name of the queue.  [default: default]')
@click.option('--timeout', help='Longest time that the job may run: 90, 5m, 1h, -1 for no end.')
@click.option('--result-ttl', help='How long its result is kept: 500, 5m, 1h, -1 for ever.')
@click.option('--ttl', help='How long it may wait in the queue before it is dropped.')
@click.option('--failure-ttl', help='How long it is kept if it fails.')
@click.option('--description', help='What to show for it.  [default: the call]')
@click.option('--depends-on', multiple=True, help='Id of a job that has to finish first; may be repeated.')
@click.option('--job-id', help='Its id.  [default: a random one]')
@click.option('--at-front', is_flag=True, help='Put it at the front of the queue, not at the end.')
@click.option(
    '--retry-max', type=click.IntRange(min=0), default=0, help='How often it is tried again if it fails.  [default: 0]'
)
@click.option(
    '--retry-interval',
    type=int,
    multiple=True,
    default=[0],
    help='Seconds before the next attempt; repeat it for the following ones.',
)
@click.option('--schedule-in', help='Enqueue it after this time: 10s, 5m, 2d.')
@click.option('--schedule-at', help='Enqueue it at this local time: 2030-05-27T21:45:00.')
@click.option('--quiet', is_flag=True, help='Print nothing unless something is wrong.')
@click.argument('function')
@click.argument('arguments', nargs=-1)
@pass_config
def enqueue(
    config: Config, queue_name: str, quiet: bool, function: str, arguments: Sequence[str], **options: Any
) -> None:
    """Put a call of FUNCTION, a dotted path, into a queue.

    ARGUMENTS are texts, or key=text for keywords. JSON is written :VALUE or key:=VALUE, a Python literal %VALUE or
    key%=VALUE, and @FILE instead of a value stands for the content of a file.
    """
    from greenq.utils import get_call_string

    args, kwargs = parse_function_args(arguments)
    call = get_call_string(check_function_name(function), args, kwargs) or function
    order = _Order(function, args, kwargs, call, **options)
    try:
        job = order.place(config.queue(queue_name))
    except (TypeError, ValueError) as error:
        raise CommandError(f'Cannot enqueue {call}: {one_line(error)}.') from error
    if not quiet:
        click.echo(f"Enqueued {click.style(call, fg='blue')} with job-id '{job.id}'.")


@dataclass
class _Order:
    """A call and all that was said about it."""

    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    call: str
    timeout: str | None
    result_ttl: str | None
    ttl: str | None
    failure_ttl: str | None
    description: str | None
    depends_on: Sequence[str]
    job_id: str | None
    at_front: bool
    retry_max: int
    retry_interval: Sequence[int]
    schedule_in: str | None
    schedule_at: str | None

    def place(self, queue: Queue) -> Job:
        due = parse_schedule(self.schedule_in, self.schedule_at)
        if due is None:
            return queue.enqueue_call(**self._job_arguments(), at_front=self.at_front)
        return self._schedule(queue, due)

    def _schedule(self, queue: Queue, due: datetime) -> Job:
        from greenq.job import JobStatus

        job = queue.create_job(**self._job_arguments(), status=JobStatus.SCHEDULED)
        if self.at_front:
            job.enqueue_at_front = True
        return queue.schedule_job(job, due)

    def _job_arguments(self) -> dict[str, Any]:
        from greenq.retry import Retry

        return {
            'func': self.function,
            'args': self.args,
            'kwargs': self.kwargs,
            'timeout': self.timeout,
            'result_ttl': self.result_ttl,
            'ttl': self.ttl,
            'failure_ttl': self.failure_ttl,
            'description': self.description or self.call,
            'depends_on': list(self.depends_on) or None,
            'job_id': self.job_id,
            'retry': Retry(self.retry_max, list(self.retry_interval)) if self.retry_max > 0 else None,
        }


@click.command()
@click.option('--all', '-a', 'everything', is_flag=True, help='Requeue every failed job of the queue.')
@click.option('--queue', 'queue_name', required=True, help='Name of the queue.')
@click.argument('job_ids', nargs=-1)
@pass_config
def requeue(config: Config, queue_name: str, everything: bool, job_ids: Sequence[str]) -> None:
    """Put failed jobs, named by their ids, back into their queue.

    Ids that are no longer failed jobs are reported. Exit status 1 if one of them was named by hand.
    """
    registry = config.queue(queue_name).failed_job_registry
    wanted = registry.get_job_ids() if everything else list(job_ids)
    if not wanted:
        click.echo('Nothing to do')
        return
    click.echo(f'Requeueing {len(wanted)} jobs from failed queue')
    refused = _requeue_each(registry, wanted)
    if refused:
        shown = ', '.join(refused[:5]) + (', ...' if len(refused) > 5 else '')
        message = f'Unable to requeue {len(refused)} jobs from failed job registry, because they are not in it: {shown}'
        click.secho(message, fg='red', err=True)
        if not everything:
            raise SystemExit(1)


def _requeue_each(registry: FailedJobRegistry, job_ids: Sequence[str]) -> list[str]:
    """The ids that could not be requeued."""
    from greenq.exceptions import InvalidJobOperationError, NoSuchJobError

    refused = []
    with click.progressbar(job_ids) as progress:
        for job_id in progress:
            try:
                registry.requeue(job_id)
            except (InvalidJobOperationError, NoSuchJobError):
                refused.append(job_id)
    return refused


@click.command()
@click.option('--all', '-a', 'everything', is_flag=True, help='Empty every queue.')
@click.argument('queue_names', metavar='[QUEUES]...', nargs=-1)
@pass_config
def empty(config: Config, everything: bool, queue_names: Sequence[str]) -> None:
    """Delete all jobs that wait in the given queues."""
    queues = config.all_queues() if everything else [config.queue(name) for name in queue_names]
    if not queues:
        click.echo('Nothing to do')
    for queue in queues:
        click.echo(f'{queue.empty()} jobs removed from {queue.name} queue')
