"""Where the console script starts: patches the process for a gevent worker before anything else is imported.

It must import nothing but os, sys, pickle, types for annotations and, when it patches, gevent. What it cannot tell
from a name alone (a user's own worker class) others find out by importing it, and come back by `restart_patched`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

GEVENT_WORKER_NAMES = frozenset(
    {
        'gevent',
        'greenq.GeventWorker',
        'greenq.worker.GeventWorker',
        'greenq.worker.gevent_worker.GeventWorker',
    }
)
WORKER_CLASS_VARIABLES = ('GREENQ_WORKER_CLASS', 'RQ_WORKER_CLASS')
PATCHING_COMMANDS = frozenset({'worker'})
SUPERVISOR_VARIABLE = 'GREENQ_SUPERVISOR'

#: Tells a process to patch. Taken out of the environment again, because its children are not meant.
PATCH_VARIABLE = 'GREENQ_PATCH'
#: Names the worker in a process of its own.
NAME_VARIABLE = 'GREENQ_WORKER_NAME'
#: Tells a process to be a supervisor, and of what; who has read the command line gives the order.
_ORDER_VARIABLE = 'GREENQ_SUPERVISE'

_entered = False
_patched_first = False


def main() -> None:
    """Run the `greenq` command with the arguments of this process."""
    global _entered
    _entered = True
    order = os.environ.pop(_ORDER_VARIABLE, None)
    if order is not None:
        from greenq.supervision import obey

        obey(order)
    if os.environ.pop(PATCH_VARIABLE, None) or works_itself(sys.argv[1:], os.environ):
        _patch()

    from greenq.cli import main as command

    command(prog_name='greenq')


def run_child() -> None:
    """What an interpreter that `greenq.fresh_process` started does; its standard input says what that is."""
    global _entered
    _entered = True
    import pickle

    wants_patch = pickle.load(sys.stdin.buffer)
    if os.environ.pop(PATCH_VARIABLE, None) or wants_patch:
        _patch()

    from greenq.fresh_process import child_main

    child_main()


def works_itself(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether these arguments ask for a gevent worker in this very process, without a supervisor."""
    if chosen_worker_class(argv, environ) not in GEVENT_WORKER_NAMES:
        return False
    return '--no-supervisor' in argv or environ.get(SUPERVISOR_VARIABLE, '1').lower() in ('0', 'false', 'no', 'off')


def chosen_worker_class(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The worker class that these arguments name, else that the environment names; None for other commands.

    Knows the plain spellings. What it overlooks (`-bw gevent`) costs a restart, not the patching.
    """
    words = [word for word in argv if not word.startswith('-')]
    if not words or words[0] not in PATCHING_COMMANDS:
        return None
    return _flag_value(argv) or next((environ[name] for name in WORKER_CLASS_VARIABLES if environ.get(name)), None)


def _flag_value(argv: Sequence[str]) -> str | None:
    found = None
    for position, word in enumerate(argv):
        if word == '--':
            break
        if word in ('-w', '--worker-class'):
            found = argv[position + 1] if position + 1 < len(argv) else None
        elif word.startswith('--worker-class='):
            found = word.removeprefix('--worker-class=')
        elif word.startswith('-w'):
            found = word.removeprefix('-w')
    return found


def _patch() -> None:
    global _patched_first
    from gevent import monkey

    monkey.patch_all()
    _patched_first = True


def may_restart() -> bool:
    """Whether this process is the console script, and as such free to replace itself."""
    return _entered


def is_patched_first() -> bool:
    """Whether the process was patched before anything that keeps sockets, locks or threads was imported."""
    return _patched_first


def own_command() -> list[str]:
    """The command line of this process: its interpreter with its flags, so that `sys.path` stays what it is."""
    return [sys.executable, *(sys.orig_argv[1:] or ['-m', 'greenq', *sys.argv[1:]])]


def restart_patched() -> NoReturn:
    """Replace this process by the same command, patched from its first line on.

    There is no endless loop: the new process patches before it could ask for this.
    """
    _restart(PATCH_VARIABLE, '1')


def restart_supervising(order: str) -> NoReturn:
    """Replace this process by the same command as a supervisor, which keeps nothing of what was imported here."""
    _restart(_ORDER_VARIABLE, order)


def _restart(variable: str, value: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    command = own_command()
    os.execve(command[0], command, {**os.environ, variable: value})
