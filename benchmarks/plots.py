"""Plots of a run's figures, as SVG files. matplotlib is loaded only when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.contenders import GREENQ, OWN
from benchmarks.figures import Results
from benchmarks.workloads import BACKLOGS, NAP_SECONDS, NAP_SLOTS

GREEN, GREY, BLUE = '#1a7f37', '#8c959f', '#57606a'


def check() -> None:
    """Raises `click.ClickException` if matplotlib is missing, so that a long run does not end with that."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            "--plot needs matplotlib: pip install 'greenq[benchmarks]', or leave --plot out, keep --json FILE, and run "
            '`python -m benchmarks.report FILE --plot DIR` where it is installed'
        ) from error


def draw(results: Results, folder: Path) -> list[Path]:
    """Writes those plots for which there are figures; returns their files."""
    check()
    folder.mkdir(parents=True, exist_ok=True)
    drawn = (
        _bars(results, folder / 'noop.svg', 'noop.jobs_per_second', 'no-op jobs per second (log scale)', is_log=True),
        _bars(results, folder / 'http.svg', 'http.jobs_per_second', 'HTTP calls of 50 ms per second, 200 slots'),
        _bars(
            results, folder / 'memory.svg', 'memory.1000_kib_per_job', 'KiB per job in flight (log scale)', is_log=True
        ),
        _bars(results, folder / 'latency.svg', 'latency.p99_ms', 'latency on an idle worker, p99, ms'),
        _sleeps(results, folder / 'sleeps.svg'),
        _backlog(results, folder / 'backlog.svg'),
    )
    return [path for path in drawn if path is not None]


@contextmanager
def _figure(path: Path, height: float) -> Iterator[Any]:
    """Axes whose drawing is written to `path`; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({'svg.hashsalt': 'greenq', 'font.size': 10}):
        figure = Figure(figsize=(8, height), layout='constrained')
        axes = figure.subplots()
        axes.spines[['top', 'right']].set_visible(False)
        yield axes
        figure.savefig(path, metadata={'Date': None})


def _color(contender: str) -> str:
    if contender == GREENQ:
        return GREEN
    return GREY if contender in {own.name for own in OWN} else BLUE


def _label(contender: str) -> str:
    return {'gevent': 'greenq gevent', 'fork': 'greenq fork'}.get(contender, contender)


def _bars(results: Results, path: Path, name: str, title: str, is_log: bool = False) -> Path | None:
    found = [(value, contender) for contender in results.contenders() if (value := results.median(contender, name))]
    if not found:
        return None
    found.sort()
    with _figure(path, 0.9 + 0.3 * len(found)) as axes:
        bars = axes.barh(
            [_label(contender) for _, contender in found],
            [value for value, _ in found],
            color=[_color(contender) for _, contender in found],
        )
        axes.bar_label(
            bars, labels=[f'{value:,.0f}' if value >= 20 else f'{value:.2g}' for value, _ in found], padding=3
        )
        if is_log:
            axes.set_xscale('log')
        axes.margins(x=0.12)
        axes.set_title(title, loc='left')
    return path


def _sleeps(results: Results, path: Path) -> Path | None:
    lines = {
        contender: points
        for contender in results.contenders()
        if len(points := _points(results, contender, {slots: f'naps_{slots}' for slots in NAP_SLOTS})) > 1
    }
    if not lines:
        return None
    with _figure(path, 5) as axes:
        axes.plot(NAP_SLOTS, [slots / NAP_SECONDS for slots in NAP_SLOTS], color=GREY, linestyle=':', label='ideal')
        _lines(axes, lines)
        axes.set_xlabel('slots')
        axes.set_title('jobs per second that sleep 50 ms (log scales)', loc='left')
        axes.set_yscale('log')
    return path


def _backlog(results: Results, path: Path) -> Path | None:
    names = {length: f'backlog_{name}' for name, length in BACKLOGS.items()}
    lines = {
        contender: points for contender in results.contenders() if len(points := _points(results, contender, names)) > 1
    }
    if not lines:
        return None
    with _figure(path, 4) as axes:
        _lines(axes, lines)
        axes.set_xlabel('jobs queued behind those that are timed')
        axes.set_ylim(bottom=0)
        axes.set_title('no-op jobs per second as the queue grows', loc='left')
    return path


def _points(results: Results, contender: str, names: dict[int, str]) -> list[tuple[int, float]]:
    found = ((x, results.median(contender, f'{name}.jobs_per_second')) for x, name in names.items())
    return [(x, value) for x, value in found if value is not None]


def _lines(axes: Any, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for contender, points in lines.items():
        is_greenq, color = contender == GREENQ, _color(contender)
        axes.plot(
            *zip(*points, strict=True),
            marker='o',
            label=_label(contender),
            # The peers need colors of their own.
            color=None if color == BLUE else color,
            linestyle='--' if color == GREY else '-',
            linewidth=2.5 if is_greenq else 1.2,
        )
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xscale('log')
    axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
    axes.minorticks_off()
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
