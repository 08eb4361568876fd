"""`python -m benchmarks`: greenq beside its floors and, with `--peers`, beside other queues."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import machine, plan, report
from benchmarks.contenders import ALL, OWN, Contender, Installed
from benchmarks.environments import default_folder, prepared, versions
from benchmarks.figures import Results
from benchmarks.plan import Plan, running_web_server
from benchmarks.processes import end_on_sigterm
from benchmarks.progress import Progress
from benchmarks.servers import running_server
from benchmarks.workloads import QUICK, Scale

#: Above this, the machine is too busy (%) for figures that are to be kept.
BUSY_PERCENT = 10


def _names(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str | None], list[str] | None]:
    """A parser of comma-separated names."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        chosen = [name.strip() for name in value.split(',') if name.strip()]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise click.BadParameter(f'{", ".join(unknown) or "nothing"} is not known. Use some of {", ".join(known)}.')
        return chosen

    return parse


@click.command()
@click.option('--peers', is_flag=True, help='Measure other queues too, each in an environment of its own.')
@click.option('--only', metavar='NAME,...', callback=_names([c.name for c in ALL]), help='Measure these only.')
@click.option('--workloads', metavar='NAME,...', callback=_names(plan.NAMES), help=f'Of {", ".join(plan.NAMES)}.')
@click.option('--rounds', type=click.IntRange(min=1), default=3, show_default=True, help='The medians of so many.')
@click.option('--quick', is_flag=True, help='One round with few jobs: shows that it works, no more.')
@click.option('--url', metavar='URL', help='A server with an empty database, used by nobody else.  [default: embedded]')
@click.option('--persistent', is_flag=True, help='Let the embedded server keep its append-only file.')
@click.option(
    '--envs',
    type=click.Path(file_okay=False, path_type=Path),
    default=default_folder(),
    show_default=True,
    help='Where the environments of peers are kept.',
)
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path), help='Write the figures there.')
@click.option('--plot', type=click.Path(file_okay=False, path_type=Path), help='Draw plots into this directory.')
def main(
    peers: bool,
    only: list[str] | None,
    workloads: list[str] | None,
    rounds: int,
    quick: bool,
    url: str | None,
    persistent: bool,
    envs: Path,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure greenq's workers, the floors and, with --peers, other queues: the same work, one server, in turns."""
    if plot is not None:
        from benchmarks import plots

        plots.check()
    end_on_sigterm()
    contenders = [_installed(contender, envs) for contender in _chosen(peers, only)]
    rounds = 1 if quick else rounds
    busy = machine.busy_percent()
    if busy > BUSY_PERCENT:
        click.echo(f'other things keep {busy:.0f} % of this machine busy: do not keep these figures', err=True)
    results, began = Results(), time.monotonic()
    with running_server(url, persistent) as server, running_web_server() as http_url:
        settings: dict[str, Any] = {
            'machine': machine.describe(),
            'busy before the run': f'{busy:.0f} %',
            'server': f'{server.version()}, {_kind(url, persistent)}',
            'rounds': rounds,
            'scale': 'quick' if quick else 'full',
            'versions': {installed.name: installed.versions for installed in contenders},
        }
        scale = QUICK if quick else Scale()
        Plan(contenders, server, rounds, frozenset(workloads or plan.NAMES), scale, results, http_url).execute(
            Progress()
        )
    settings['took'] = f'{(time.monotonic() - began) / 60:.1f} minutes'
    click.echo(report.text(results, settings))
    if json_file is not None:
        json_file.write_text(report.as_json(results, settings))
    if plot is not None:
        for path in plots.draw(results, plot):
            click.echo(f'drew {path}', err=True)
    sys.exit(1 if results.failures else 0)


def _chosen(peers: bool, only: list[str] | None) -> list[Contender]:
    if only is not None:
        return [contender for contender in ALL if contender.name in only]
    return list(ALL if peers else OWN)


def _installed(contender: Contender, envs: Path) -> Installed:
    home = contender.requirements and prepared(envs, contender.name.partition('-')[0], contender.requirements)
    return Installed(contender, home or None, versions(home or None, contender.distributions))


def _kind(url: str | None, persistent: bool) -> str:
    if url is not None:
        return 'given'
    return f'embedded, unix socket, {"with" if persistent else "without"} append-only file'


if __name__ == '__main__':
    main()
