"""greenq's commands, and stories in an interpreter of their own, for tests with a server or a prefix of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import ROOT, WorkerProcess, command_environment


@contextmanager
def running_worker(*args: str, env: Mapping[str, str | None] | None = None) -> Iterator[WorkerProcess]:
    """Run `python -m greenq worker ...` during the block; what it wrote is shown if the block fails."""
    with tempfile.TemporaryDirectory(prefix='greenq-worker-') as folder:
        log = Path(folder) / 'output'
        with log.open('wb') as output:
            process = subprocess.Popen(
                [sys.executable, '-m', 'greenq', 'worker', *args],
                cwd=ROOT,
                env=command_environment(env),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        worker = WorkerProcess('', process, log)
        try:
            yield worker
            assert process.poll() in (None, 0), 'the worker has ended'
        except BaseException as error:
            error.add_note(f'the worker said:\n{worker.output[-6000:]}')
            raise
        finally:
            worker.end(10)


def tell_story(module: str, name: str, url: str, env: Mapping[str, str | None] | None = None) -> None:
    """Runs `name(url)` of a module in an interpreter of its own, which has its own environment from the start."""
    code = f'import {module} as stories; stories.{name}({url!r})'
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code],
        cwd=ROOT,
        env=command_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f'{name} ended with status {done.returncode}:\n{done.stdout}{done.stderr}'
