"""Processes that use an embedded server, to be stopped or killed by a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import ROOT, wait_until

USE = """
import sys
{before}
from greenq import embedded
server = embedded.start(sys.argv[1])
print(server.pid, flush=True)
sys.stdin.readline()
{after}
"""


class User:
    """Another process that has started or joined the server in `path`, and stays until told."""

    def __init__(self, path: Path, *, before: str = '', after: str = '') -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-c', USE.format(before=before, after=after), str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._server_pid: int | None = None

    @property
    def server_pid(self) -> int:
        """The server's pid; waits until the server runs."""
        if self._server_pid is None:
            assert self._process.stdout is not None
            self._server_pid = int(self._process.stdout.readline())
        return self._server_pid

    def read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write('\n')
        self._process.stdin.flush()

    def leave(self) -> None:
        """Let it end by itself."""
        self._process.communicate('\n', timeout=20)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=20)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose server, whatever happens, is gone after the test."""
    path = tmp_path / 'data'
    yield path
    lock = path / 'server.lock'
    if lock.exists():
        wait_until(lambda: not is_running(int(lock.read_text() or 0)), description='the server ends with its last user')


@pytest.fixture
def use(home: Path) -> Iterator[Callable[..., User]]:
    """Start a `User` of the server in `home`; it is killed after the test."""
    users: list[User] = []

    def start(*, before: str = '', after: str = '') -> User:
        users.append(User(home, before=before, after=after))
        return users[-1]

    yield start
    for user in users:
        user.kill()


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet reaped does not."""
    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
