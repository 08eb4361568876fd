"""RQ's released test suite: fetched, verified, laid out to say `rq` to greenq, and sorted. `runner` runs it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

RQ_VERSION = '3.0.0'
SHA256 = 'b41e39b3c36ec3faf9e2402c638a0b25fe18ebb93a1cb15193bc69694f054618'

#: Not counted, since they do not pass on RQ itself without a TLS server, or where process 1 does not reap orphans.
NOT_COUNTED = frozenset(
    {
        'test_scheduler.py::TestWorker::test_work_with_ssl',
        'test_spawn_worker.py::TestWorker::test_work_with_ssl',
        'test_worker.py::WorkerShutdownTestCase::test_work_horse_force_death',
    }
)

#: Where a test compares a text that names the package: the path of a class in a traceback, the version of a worker.
_RENAMED = {
    "'rq.timeouts.JobTimeoutException'": "'greenq.timeouts.JobTimeoutException'",
    'from rq.version import VERSION': 'from greenq.version import VERSION',
}

_PYTEST_INI = '[pytest]\nmarkers =\n    slow\n    ssl_test\n'


class SuiteError(Exception):
    """The suite cannot be had."""


class Classes:
    """Which of RQ's tests are public (documented behaviour, the Redis layout), and which call or patch RQ's insides."""

    def __init__(self) -> None:
        table = json.loads((Path(__file__).parent / 'classes.json').read_text())
        self._public: dict[str, int] = {file: entry['public'] for file, entry in table.items()}
        self._internal: dict[str, frozenset[str]] = {
            file: frozenset(entry['internal']) for file, entry in table.items()
        }

    @property
    def files(self) -> list[str]:
        """The names of all test files."""
        return list(self._public)

    def count(self, file: str, kind: str) -> int:
        """How many tests of a kind a file has."""
        return self._public[file] if kind == 'public' else len(self._internal[file])

    def kind(self, test: str) -> str:
        """`public` or `internal`; the argument is `file::class::name`."""
        file, _, name = test.partition('::')
        return 'internal' if name in self._internal[file] else 'public'


def lay_out(folder: Path) -> None:
    """Copies the suite into a folder, so that `pytest tests` runs it there."""
    archive = _sdist()
    with tarfile.open(archive) as tar:
        top = f'rq-{RQ_VERSION}/tests/'
        members = [member for member in tar.getmembers() if member.name.startswith(top)]
        for member in members:
            member.name = member.name.removeprefix(f'rq-{RQ_VERSION}/')
        tar.extractall(folder, members, filter='data')
    for file in (folder / 'tests').rglob('*.py'):
        file.write_text(_adapted(file.read_text()))
    (folder / 'pytest.ini').write_text(_PYTEST_INI)


def _sdist() -> Path:
    """RQ's source distribution, from the user's cache or from PyPI."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'greenq' / 'conformance'
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f'rq-{RQ_VERSION}.tar.gz'
    if not archive.exists():
        _download(cache)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise SuiteError(f'{archive} has SHA-256 {found} where {SHA256} is due; remove it and try again')
    return archive


def _download(folder: Path) -> None:
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', 'download']
    options = ['--no-deps', '--no-binary', ':all:', '--dest', str(folder), f'rq=={RQ_VERSION}']
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or '?').splitlines()[-1]
        raise SuiteError(f'rq {RQ_VERSION} cannot be downloaded: {last}')


def _adapted(text: str) -> str:
    """The text of a file of the suite, with a stand-in for each imported name that greenq lacks."""
    for name, ours in _RENAMED.items():
        text = text.replace(name, ours)
    lines = text.splitlines(keepends=True)
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    for node in sorted(imports, key=lambda node: node.lineno, reverse=True):
        missing = _missing_names(node)
        if missing:
            lines[node.lineno - 1 : node.end_lineno] = _replacement(node, missing)
    return ''.join(lines)


def _missing_names(node: ast.ImportFrom) -> list[ast.alias]:
    module = node.module or ''
    if node.level or module.split('.')[0] != 'rq':
        return []
    home = importlib.import_module(f'greenq{module.removeprefix("rq")}')
    return [alias for alias in node.names if not _has(home, alias.name)]


def _has(module: ModuleType, name: str) -> bool:
    is_package = hasattr(module, '__path__')
    return hasattr(module, name) or (is_package and find_spec(f'{module.__name__}.{name}') is not None)


def _replacement(node: ast.ImportFrom, missing: list[ast.alias]) -> list[str]:
    statements = ['from absent import Absent']
    statements += [f"{alias.asname or alias.name} = Absent('{node.module}.{alias.name}')" for alias in missing]
    kept = [alias for alias in node.names if alias not in missing]
    if kept:
        statements.append(ast.unparse(ast.ImportFrom(node.module, kept, 0)))
    return [f'{" " * node.col_offset}{statement}\n' for statement in statements]
