"""A child process that is a fresh interpreter, never a fork, with the face of `multiprocessing.Process`.

Both ends of the hand-over are here: an unlinked file, the child's standard input, which holds the call to make and
later the child's note to its parent. Nothing here knows workers or Redis.
"""

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn

from greenq.child_process import STOP_SIGNALS, ChildProcess, stop_signals_blocked
from greenq.exceptions import ConfigurationError
from greenq.pulse import Pulse

#: Exit status of a child that could not be set up; its note says why, and another one would fare no better.
SETUP_FAILED = os.EX_CONFIG

#: How both ends find their parts in the file: the parent's own path first, since greenq itself may be found by it.
_CHILD = (
    'import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer); '
    'from greenq.bootstrap import run_child; run_child()'
)

#: What a child calls: it returns what is to be done after all that can be wrong with the arguments is known.
Setup = Callable[..., Callable[[], Any]]


class FreshProcess(ChildProcess):
    """Calls, in a fresh interpreter, `setup(*args, **kwargs)`, and then what that returned.

    All arguments are pickled. `patched`: whether the interpreter is monkey-patched before it imports anything else.
    `pulse`: the page on which a worker in it gives signs of life.
    """

    def __init__(
        self,
        setup: Setup,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str,
        patched: bool = False,
        pulse: Pulse | None = None,
    ):
        super().__init__(pulse)
        self.name = name
        self._call = (setup, tuple(args), dict(kwargs or {}))
        self._patched = patched
        self._file: IO[bytes] | None = None
        self._last_note: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f'<FreshProcess {self.name!r} pid={self.pid} exitcode={self.exitcode}>'

    def start(self) -> None:
        """Starts the interpreter. ConfigurationError if something it needs cannot be handed over."""
        if self.pid is not None:
            raise AssertionError(f'{self!r} was started before; make a new one')
        content = self._pickled()
        self._file = _handover_file()
        self._file.write(content)
        self._file.flush()
        self._file.seek(0)
        # Signals that come before the child can deal with them wait: nobody sees a traceback of a half-started child.
        with stop_signals_blocked():
            self._spawn([sys.executable, *_own_flags(), '-c', _CHILD], stdin=self._file)

    def _pickled(self) -> bytes:
        try:
            call = pickle.dumps(self._call)
        except Exception as error:
            raise ConfigurationError(
                f'{self.name} cannot be started: something it needs cannot be pickled for another interpreter: {error}'
            ) from error
        surroundings = {'as_rq': _is_rq_aliased(), 'django': _is_django_ready()}
        return b''.join([pickle.dumps(sys.path), pickle.dumps(self._patched), pickle.dumps(surroundings), call])

    @property
    def exitcode(self) -> int | None:
        """As for every child; keeps its note once it has ended."""
        exitcode = super().exitcode
        if exitcode is not None and self._file is not None:
            self._last_note = self._read_note()
            self._file.close()
            self._file = None
        return exitcode

    def note(self) -> dict[str, Any]:
        """What the child has told of itself: `error` if it could not be set up, else what `leave_note` was given."""
        return self._last_note if self._file is None else self._read_note()

    def _read_note(self) -> dict[str, Any]:
        assert self._file is not None
        # The child reads by the same offset, so it must not be moved.
        content = os.pread(self._file.fileno(), 1 << 16, 0)
        try:
            note: dict[str, Any] = json.loads(content)
        except ValueError:  # still the call, or half of a note
            return {}
        return note


def _handover_file() -> IO[bytes]:
    # It holds the connection's password. In memory where that is possible, which also does without a writable disk.
    if hasattr(os, 'memfd_create'):
        return os.fdopen(os.memfd_create('greenq-handover'), 'w+b')
    return tempfile.TemporaryFile()


def _own_flags() -> list[str]:
    """The flags of this interpreter (-O, -X, -W...), as multiprocessing repeats them for its children."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _is_rq_aliased() -> bool:
    compat = sys.modules.get('greenq.compat')
    return compat is not None and compat.is_installed()


def _is_django_ready() -> bool:
    """Whether this is a process of Django's, whose models jobs may use; the settings are named in the environment."""
    django_apps = sys.modules.get('django.apps')
    return django_apps is not None and django_apps.apps.ready and bool(os.environ.get('DJANGO_SETTINGS_MODULE'))


# ---- in the child ----


def child_main() -> None:
    """What the child does once its interpreter is patched, if it has to be."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda signum, frame: os._exit(os.EX_OK))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        _surround(**pickle.load(sys.stdin.buffer))
        setup, args, kwargs = pickle.load(sys.stdin.buffer)
        work = setup(*args, **kwargs)
    except Exception as error:
        _refuse(error)
    _let_go_of_file()
    work()


def _surround(as_rq: bool, django: bool) -> None:
    """What a fork would have had from its parent, and what unpickling may need."""
    if as_rq:
        from greenq.compat import install_as_rq

        install_as_rq()
    if django:
        importlib.import_module('django').setup()


def leave_note(**note: Any) -> None:
    """Tells the parent something, in the child's `setup`."""
    os.ftruncate(0, 0)
    os.pwrite(0, json.dumps(note).encode(), 0)


def _refuse(error: Exception) -> NoReturn:
    # Python's own errors say little without their class.
    is_terse = type(error).__module__ == 'builtins' and not isinstance(error, ValueError)
    leave_note(error=f'{type(error).__name__}: {error}' if is_terse else str(error))
    sys.exit(SETUP_FAILED)


def _let_go_of_file() -> None:
    """Jobs that read standard input find nothing there."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
