"""`greenq worker-pool`: from options and settings to a running pool. How a pool works, greenq.worker_pool knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import click

from greenq import compat
from greenq.cli.config import Config, full_name, pass_config
from greenq.cli.errors import CommandError, one_line
from greenq.cli.worker import chosen_queues, configure_logging, import_handler
from greenq.cli.worker_options import given_arguments, worker_options
from greenq.defaults import (
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
)


@click.command('worker-pool')
@click.option('--num-workers', '-n', type=click.IntRange(min=1), default=1, help='Workers to run.  [default: 1]')
@click.option('--burst', '-b', is_flag=True, help='Stop when the queues are empty.')
@worker_options
@click.option('--logging-level', '--logging_level', '-l', default='INFO', help='DEBUG, INFO, WARNING or ERROR.')
@click.option('--log-format', default=DEFAULT_LOGGING_FORMAT, help='Format of log lines.')
@click.option('--date-format', default=DEFAULT_LOGGING_DATE_FORMAT, help='Format of times in log lines.')
@click.option('--verbose', '-v', is_flag=True, help='Log more.')
@click.option('--quiet', '-q', is_flag=True, help='Log only warnings and errors.')
@click.option('--exception-handler', multiple=True, help='Dotted path of a handler of exceptions; may be repeated.')
@click.option('--sentry-dsn', envvar=['GREENQ_SENTRY_DSN', 'RQ_SENTRY_DSN'], help='Where to report exceptions of jobs.')
@click.argument('queue_names', metavar='[QUEUES]...', nargs=-1)
@pass_config
def worker_pool(
    config: Config,
    queue_names: Sequence[str],
    num_workers: int,
    burst: bool,
    logging_level: str,
    log_format: str,
    date_format: str,
    verbose: bool,
    quiet: bool,
    exception_handler: Sequence[str],
    sentry_dsn: str | None,
    **options: Any,
) -> None:
    """Run several workers for the given queues, each a process of its own, and replace those that die."""
    from greenq.worker_pool import WorkerPool

    compat.install_if_free()
    level = _level(logging_level, verbose, quiet)
    _check_formats(log_format, date_format)
    dict_config = config.settings.get('DICT_CONFIG')
    configure_logging(dict_config)
    handlers: list[Any] = [import_handler(name) for name in exception_handler]
    dsn = sentry_dsn or config.settings.get('SENTRY_DSN')
    if dsn:
        handlers.insert(0, _Sentry(dsn))
    # Here one line says that Redis is out of reach; in the workers each would say so, again and again.
    config.connection.ping()
    pool = WorkerPool(
        chosen_queues(queue_names, config),
        connection=config.connection,
        num_workers=num_workers,
        worker_class=full_name(config.worker_class_name),
        serializer=config.serializer,
        job_class=config.job_class,
        queue_class=config.queue_class,
        exception_handlers=handlers or None,
        **given_arguments(options),
    )
    pool.start(burst, level, date_format=date_format, log_format=log_format, logging_config=dict_config)


def _level(logging_level: str, verbose: bool, quiet: bool) -> str:
    if verbose and quiet:
        raise CommandError('Flags --verbose and --quiet are mutually exclusive. Leave one of them out.')
    if logging_level.upper() not in logging.getLevelNamesMapping():
        raise CommandError(f'Unknown logging level {logging_level!r}: choose DEBUG, INFO, WARNING or ERROR.')
    if verbose:
        return 'DEBUG'
    return 'WARNING' if quiet else logging_level


def _check_formats(log_format: str, date_format: str) -> None:
    try:
        logging.Formatter(log_format, date_format)
    except ValueError as error:
        raise CommandError(f'Invalid --log-format {log_format!r}: {one_line(error)}.') from None


class _Sentry:
    """An exception handler that a worker can be given: it becomes Sentry's own when it arrives there."""

    def __init__(self, dsn: str):
        from greenq.cli.sentry import start_sentry

        self._start = start_sentry
        self._dsn = dsn

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self._start, (self._dsn,)
