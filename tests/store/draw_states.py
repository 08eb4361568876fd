"""Draws the parts of docs/store.md that the code knows better; `python -m tests.store.draw_states` puts them there."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from greenq.store import keys
from greenq.store.states import TRANSITIONS, JobStatus

PAGE = Path(__file__).parents[2] / 'docs' / 'store.md'

_ANY = frozenset(JobStatus)
#: Sets of many states that one box stands for: what it is called, and its name in the diagram.
_BOXES = {_ANY: ('any state, or none', 'any'), _ANY - {JobStatus.CANCELED}: ('any but canceled', 'not_canceled')}


def diagram() -> str:
    """The states of a job and the transitions between them, as a Mermaid diagram."""
    lines = ['```mermaid', 'stateDiagram-v2']
    lines += [f'    state "{title}" as {name}' for title, name in _BOXES.values()]
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for transition, (sources, targets) in TRANSITIONS.items():
        for source in _names(sources):
            for target in sorted(targets):
                edges[source, target.value].append(transition)
    lines += [f'    {source} --> {target}: {", ".join(names)}' for (source, target), names in edges.items()]
    return '\n'.join([*lines, '```'])


def _names(sources: frozenset[JobStatus]) -> Iterable[str]:
    return [_BOXES[sources][1]] if sources in _BOXES else [source.value for source in sorted(sources)]


def key_table() -> str:
    """The keys that greenq adds to RQ's."""
    lines = ['| key, below the prefix | what it is |', '|---|---|']
    for name, template in keys.TEMPLATES.items():
        if template.startswith(':greenq:'):
            meaning = (getattr(keys, name).__doc__ or '').strip()
            argument = next(iter(inspect.signature(getattr(keys, name)).parameters), '').replace('_', ' ')
            key = template.removeprefix(':').replace('{0}', f'<{argument}>')
            lines.append(f'| `{key}` | {meaning} |')
    return '\n'.join(lines)


def script_table() -> str:
    """Every script, and the first sentence of what it says about itself."""
    folder = files('greenq.store').joinpath('scripts')
    lines = ['| script | what it does |', '|---|---|']
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith('.lua'):
            lines.append(f'| `{path.name.removesuffix(".lua")}` | {_purpose(path.read_text(encoding="utf-8"))} |')
    return '\n'.join(lines)


def _purpose(script: str) -> str:
    """The first sentence of a script's opening comment."""
    opening = []
    for line in script.splitlines():
        if not line.startswith('-- ') or re.match(r'-- (KEYS|ARGV):', line):
            break
        opening.append(line.removeprefix('-- '))
    return re.split(r'(?<=\.) ', ' '.join(opening))[0].replace('|', r'\|')


PARTS = {'states': diagram, 'keys': key_table, 'scripts': script_table}


def drawn(page: str) -> str:
    """The page with its drawn parts as they ought to be."""
    for name, draw in PARTS.items():
        begin, end = f'<!-- drawn: {name} -->', '<!-- end -->'
        before, rest = page.split(begin)
        _, _, after = rest.partition(end)
        page = f'{before}{begin}\n{draw()}\n{end}{after}'
    return page


if __name__ == '__main__':
    PAGE.write_text(drawn(PAGE.read_text()))
