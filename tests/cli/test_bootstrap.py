"""Which commands patch the process, when, and what has been imported by then."""

import json
import subprocess
import sys

import pytest

from greenq import bootstrap
from greenq.version import VERSION
from tests.helpers import run_cli


@pytest.mark.parametrize(
    ('argv', 'environ', 'expected'),
    [
        (['worker'], {}, None),
        (['worker', '-w', 'gevent'], {}, 'gevent'),
        (['worker', '-wgevent', 'high'], {}, 'gevent'),
        (['worker', 'high', '--worker-class', 'greenq.GeventWorker'], {}, 'greenq.GeventWorker'),
        (['worker', '--worker-class=a.B', '-b'], {}, 'a.B'),
        (['worker', '-w', 'gevent', '-w', 'fork'], {}, 'fork'),
        (['worker', '-w'], {}, None),
        (['worker', '--', '-w', 'gevent'], {}, None),
        (['worker'], {'GREENQ_WORKER_CLASS': 'gevent', 'RQ_WORKER_CLASS': 'fork'}, 'gevent'),
        (['worker'], {'GREENQ_WORKER_CLASS': '', 'RQ_WORKER_CLASS': 'gevent'}, 'gevent'),
        (['worker', '-w', 'simple'], {'GREENQ_WORKER_CLASS': 'gevent'}, 'simple'),
        (['info', '-w', 'gevent'], {'RQ_WORKER_CLASS': 'gevent'}, None),
        (['--help'], {'RQ_WORKER_CLASS': 'gevent'}, None),
    ],
)
def test_the_chosen_worker_class(argv: list[str], environ: dict[str, str], expected: str | None) -> None:
    assert bootstrap.chosen_worker_class(argv, environ) == expected


def test_this_process_is_no_console_script_and_never_replaced() -> None:
    assert not bootstrap.may_restart()
    assert not bootstrap.is_patched_first()


# Everything that patching must come before: it binds sockets, locks or TLS contexts when it is imported.
_TOO_EARLY = ('gevent', 'redis', 'ssl', 'urllib3', 'socket', 'threading', 'click', 'logging', 'queue')


def _modules_after(code: str) -> set[str]:
    code += '; import sys, json; print(json.dumps(sorted(sys.modules)))'
    # -S -E: what the environment's own site hooks import says nothing about greenq.
    path = json.dumps([entry for entry in sys.path if entry])
    code = f'import sys; sys.path[:] = {path}; {code}'
    result = subprocess.run([sys.executable, '-S', '-E', '-c', code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_importing_the_bootstrap_imports_nothing_that_gevent_patches() -> None:
    assert not _modules_after('import greenq.bootstrap').intersection(_TOO_EARLY)


def test_help_lists_the_commands_without_importing_them() -> None:
    result = run_cli('--help')
    assert result.returncode == 0
    for name in ('demo', 'empty', 'enqueue', 'info', 'requeue', 'resume', 'server', 'suspend', 'worker'):
        assert f'\n  {name} ' in result.stdout
    assert not _modules_after('import greenq.cli').intersection(
        ('redis', 'gevent', 'greenq.queue', 'greenq.cli.worker')
    )


def test_an_unknown_command_is_refused() -> None:
    result = run_cli('wurker')
    assert result.returncode == 2
    assert "No such command 'wurker'" in result.stderr


def test_the_version() -> None:
    assert run_cli('--version').stdout == f'greenq, version {VERSION}\n'
