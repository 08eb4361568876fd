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

#: Tells the restarted process to patch. Taken out of the environment again, because children are not meant.
_PATCH_VARIABLE = 'GREENQ_PATCH'

_entered = False
_patched_first = False


def main() -> None:
    """Run the `greenq` command with the arguments of this process."""
    global _entered
    _entered = True
    restarted = os.environ.pop(_PATCH_VARIABLE, None)
    if restarted or chosen_worker_class(sys.argv[1:], os.environ) in GEVENT_WORKER_NAMES:
        _patch()

    from greenq.cli import main as command

    command(prog_name='greenq')


def run_child() -> None:
    """What an interpreter that `greenq.fresh_process` started does; its standard input says what that is."""
    global _entered
    _entered = True
    import pickle

    wants_patch = pickle.load(sys.stdin.buffer)
    restarted = os.environ.pop(_PATCH_VARIABLE, None)
    if restarted or wants_patch:
        _patch()

    from greenq.fresh_process import child_main

    child_main()


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


def restart_patched() -> NoReturn:
    """Replace this process by the same command, patched from its first line on.

    The interpreter's own arguments are repeated, so that its flags, `sys.path` and the working directory stay what
    they are. There is no endless loop: the new process patches before it could ask for this.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = sys.orig_argv[1:] or ['-m', 'greenq', *sys.argv[1:]]
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, _PATCH_VARIABLE: '1'})
