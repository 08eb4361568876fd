"""`greenq cron`: the cron scheduler in the foreground; what it does is in `greenq.cron`."""

from __future__ import annotations

import logging.config
from typing import Any

import click

from greenq.cli.config import Config, pass_config
from greenq.cli.errors import CommandError, one_line
from greenq.exceptions import GreenqError

LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL']


@click.command()
@click.option(
    '--logging-level',
    '-l',
    type=click.Choice(LEVELS, case_sensitive=False),
    default='INFO',
    show_default=True,
    help='What to log.',
)
@click.argument('config_path')
@pass_config
def cron(config: Config, logging_level: str, config_path: str) -> None:
    """Enqueue the cron jobs that CONFIG_PATH registers, a Python file or module, until SIGINT or SIGTERM."""
    from greenq.cron import CronScheduler

    _configure_logging(config.settings.get('DICT_CONFIG'))
    scheduler = CronScheduler(connection=config.connection, logging_level=logging_level)
    try:
        scheduler.load_config_from_file(config_path)
    except GreenqError:
        raise
    except Exception as error:
        raise CommandError(
            f'Cannot load cron jobs from {config_path!r}: {one_line(error)}. '
            f'Give a Python file, or a module that can be imported from here; --path adds directories.'
        ) from error
    scheduler.start()


def _configure_logging(dict_config: dict[str, Any] | None) -> None:
    if not dict_config:
        return
    try:
        logging.config.dictConfig(dict_config)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise CommandError(f'Cannot use DICT_CONFIG of the settings: {one_line(error)}.') from error
