"""The `greenq` command: a table of subcommands, each imported when it is used. What they do lives in their modules."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

from greenq.cli.errors import render_errors
from greenq.version import VERSION


class _Entry(NamedTuple):
    target: str
    summary: str


_COMMANDS = {
    'cron': _Entry('greenq.cli.cron:cron', 'Enqueue jobs at the times that a configuration gives.'),
    'demo': _Entry('greenq.cli.demo:demo', 'Run a thousand HTTP jobs on a server of its own, and show the speed.'),
    'empty': _Entry('greenq.cli.jobs:empty', 'Delete all jobs that wait in the given queues.'),
    'enqueue': _Entry('greenq.cli.jobs:enqueue', 'Put a job into a queue.'),
    'info': _Entry('greenq.cli.info:info', 'Show queues and workers.'),
    'requeue': _Entry('greenq.cli.jobs:requeue', 'Put failed jobs back into their queue.'),
    'resume': _Entry('greenq.cli.suspend:resume', 'Let suspended workers go on.'),
    'server': _Entry('greenq.cli.server:server', 'Run the embedded Redis-compatible server, and print its URL.'),
    'suspend': _Entry('greenq.cli.suspend:suspend', 'Keep all workers from starting jobs.'),
    'worker': _Entry('greenq.cli.worker:worker', 'Run a worker.'),
    'worker-pool': _Entry('greenq.cli.worker_pool:worker_pool', 'Run several workers, and replace those that die.'),
}


class _LazyGroup(click.Group):
    """Lists its commands from the table; imports the module of only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module_name, _, attribute = entry.target.partition(':')
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section('Commands'):
            formatter.write_dl([(name, entry.summary) for name, entry in sorted(_COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        with render_errors(ctx):
            return super().invoke(ctx)


@click.group(cls=_LazyGroup)
@click.version_option(VERSION, prog_name='greenq')
def main() -> None:
    """Redis job queues with RQ's commands, and workers that run a thousand jobs at once."""
