"""`greenq suspend` and `greenq resume`: the switch that pauses every worker on a server."""

from __future__ import annotations

import click

from greenq.cli.config import Config, pass_config
from greenq.cli.errors import CommandError


@click.command()
@click.option('--duration', type=int, help='Seconds until workers go on by themselves.  [default: never]')
@pass_config
def suspend(config: Config, duration: int | None) -> None:
    """Keep all workers from starting jobs; running ones are finished. Undone by `greenq resume`."""
    from greenq import suspension

    if duration is not None and duration < 1:
        raise CommandError(f'Duration must be an integer greater than 1 or equal to it, not {duration}.')
    suspension.suspend(config.connection, duration)
    if duration is None:
        click.echo('Suspending workers. Running jobs are finished, no new ones start until "greenq resume".')
    else:
        click.echo(
            f'Suspending workers for {duration} seconds. Running jobs are finished, no new ones start meanwhile.'
        )


@click.command()
@pass_config
def resume(config: Config) -> None:
    """Let workers go on that `greenq suspend` has paused."""
    from greenq import suspension

    suspension.resume(config.connection)
    click.echo('Resuming workers.')
