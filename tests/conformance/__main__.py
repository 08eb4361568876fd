"""`python -m tests.conformance`: runs RQ's suite against greenq, and prints what passes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import runner, suite

REQUIRED_PERCENT = 98
KINDS = ('public', 'internal')


class Tally:
    """What passed of each kind in some files."""

    def __init__(self, classes: suite.Classes, files: list[str], results: runner.Results):
        self._classes = classes
        self._results = results
        self.files = files
        self.tests = {test for test in results if '::' in test}

    def passed(self, kind: str, file: str | None = None) -> int:
        return sum(
            self._results[test].outcome == 'passed'
            for test in self.tests
            if self._classes.kind(test) == kind and test.partition('::')[0] == (file or test.partition('::')[0])
        )

    def total(self, kind: str, file: str | None = None) -> int:
        return sum(self._classes.count(each, kind) for each in ([file] if file else self.files))

    def figure(self, kind: str, file: str | None = None) -> str:
        return f'{self.passed(kind, file)}/{self.total(kind, file)}'

    def losses(self, kind: str) -> Iterator[tuple[str, runner.Result]]:
        for test, result in sorted(self._results.items()):
            broken_file = '::' not in test
            if result.outcome != 'passed' and (broken_file or self._classes.kind(test) == kind):
                yield test, result

    @property
    def is_enough(self) -> bool:
        return self.passed('public') * 100 >= self.total('public') * REQUIRED_PERCENT


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.conformance', description=__doc__)
    parser.add_argument('-j', '--jobs', type=int, default=2, help='files at once (2)')
    parser.add_argument('-k', default='', metavar='TEXT', help='only the files with this in their names')
    parser.add_argument('-v', '--verbose', action='store_true', help='name the internal tests that do not pass as well')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write every result there')
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs what the arguments ask for; returns the exit status."""
    options = parse(arguments)
    classes = suite.Classes()
    files = [file for file in classes.files if options.k in file]
    if os.environ.get('GREENQ_TEST_SERVER'):
        os.environ['GREENQ_SERVER_BINARY'] = os.environ['GREENQ_TEST_SERVER']
    with tempfile.TemporaryDirectory(prefix='greenq-conformance-') as scratch:
        folder = Path(scratch)
        suite.lay_out(folder)
        files.sort(key=lambda file: -(folder / 'tests' / file).stat().st_size)
        results = runner.run(folder, files, options.jobs, _progress)
    tally = Tally(classes, sorted(files), results)
    report(tally, options.verbose)
    if options.json:
        options.json.write_text(json.dumps(as_json(tally, classes, results), indent=1) + '\n')
    return 0 if tally.is_enough else 1


def _progress(file: str, results: runner.Results) -> None:
    passed = sum(result.outcome == 'passed' for result in results.values())
    print(f'{file}: {passed} of {len(results)} pass', file=sys.stderr, flush=True)


def report(tally: Tally, verbose: bool) -> None:
    """Prints the table, what does not pass, and the line that counts."""
    print(f'{"file":32} {"public":>9} {"internal":>9}')
    for file in tally.files:
        print(f'{file:32} {tally.figure("public", file):>9} {tally.figure("internal", file):>9}')
    for kind in KINDS if verbose else KINDS[:1]:
        print(f'\n{kind} tests that do not pass:')
        for test, result in tally.losses(kind):
            print(f'  {test}: {result.outcome}: {result.reason}')
    print(f'\nconformance: public {tally.figure("public")}, internal {tally.figure("internal")}')


def as_json(tally: Tally, classes: suite.Classes, results: runner.Results) -> dict[str, object]:
    """The same, for a program."""
    return {
        'rq': suite.RQ_VERSION,
        **{kind: [tally.passed(kind), tally.total(kind)] for kind in KINDS},
        'tests': {test: {'kind': classes.kind(test), **results[test]._asdict()} for test in sorted(tally.tests)},
    }


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except suite.SuiteError as error:
        sys.exit(str(error))
