"""Child processes by POSIX's own calls: how they end, what they inherit."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import IO

import pytest

from greenq.child_process import ChildProcess
from greenq.pulse import VARIABLE, Pulse


class Child(ChildProcess):
    """Runs a line of Python."""

    def __init__(self, code: str, pulse: Pulse | None = None, stdin: IO[bytes] | None = None) -> None:
        super().__init__(pulse)
        self._code = code
        self._stdin = stdin

    def start(self) -> None:
        self._spawn([sys.executable, '-c', self._code], {'GREETING': 'hello'}, self._stdin)


def ended(code: str, pulse: Pulse | None = None, stdin: IO[bytes] | None = None) -> int | None:
    child = Child(code, pulse, stdin)
    assert (child.pid, child.exitcode, child.is_alive()) == (None, None, False)
    child.start()
    assert child.pid is not None
    child.join(20)
    assert not child.is_alive()
    return child.exitcode


@pytest.mark.parametrize(
    ('code', 'exitcode'),
    [
        ('pass', 0),
        ('raise SystemExit(7)', 7),
        ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', -signal.SIGKILL),
        ('import os; assert os.environ["GREETING"] == "hello"', 0),
    ],
)
def test_how_it_ended(code: str, exitcode: int) -> None:
    assert ended(code) == exitcode


def test_waiting_is_over_in_time() -> None:
    child = Child('import time; time.sleep(60)')
    child.start()
    began = time.monotonic()
    child.join(0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert child.is_alive()
    child.terminate()
    child.join(20)
    assert child.exitcode == -signal.SIGTERM
    child.kill()
    child.terminate()
    assert child.exitcode == -signal.SIGTERM


def test_whose_status_somebody_else_took() -> None:
    child = Child('raise SystemExit(7)')
    child.start()
    assert child.pid is not None
    os.waitpid(child.pid, 0)
    assert child.exitcode == 0
    child.kill()


def test_standard_input() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'42')
    os.close(writer)
    with os.fdopen(reader, 'rb') as stdin:
        assert ended('import sys; raise SystemExit(int(sys.stdin.read()))', stdin=stdin) == 42


def test_its_pulse_is_its_own() -> None:
    pulse, other = Pulse.shared(), Pulse.shared()
    reads = f'import os; os.fstat(int(os.environ[{VARIABLE!r}]))'
    try:
        assert ended(reads, pulse) == 0
        assert ended(f'import os; os.fstat({other.descriptor})', pulse) == 1, 'an error: there is no such descriptor'
        assert pulse.descriptor is not None and not os.get_inheritable(pulse.descriptor)
    finally:
        pulse.close()
        other.close()


def test_signals_that_python_ignores_are_as_others_expect_them() -> None:
    child = Child('')
    child._spawn(['/bin/sh', '-c', 'kill -PIPE $$'])
    child.join(20)
    assert child.exitcode == -signal.SIGPIPE
