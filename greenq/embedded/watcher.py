"""The process that runs one embedded server and ends it with its last user; it must import the standard library only.

Run as a script: `watcher.py DATA_DIR SOCKET SERVER_BINARY`. It detaches itself, so the process that started it may die.

Who lives is told by `flock` locks on files in the data directory: the kernel drops them whatever a process dies of.

    users.lock     shared by all users; exclusive by the watcher while it stops the server, so nobody joins a dying one
    watcher.lock   exclusive by the watcher; only its holder may start a server
    server.lock    exclusive by the server itself (an inherited descriptor); holds its pid
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Mapping, Sequence

USERS_LOCK = 'users.lock'
WATCHER_LOCK = 'watcher.lock'
SERVER_LOCK = 'server.lock'
LOG = 'server.log'

POLL_SECONDS = 0.05
TERM_AGAIN_SECONDS = 1.0
KILL_AFTER_SECONDS = 60.0
LOG_MAX_BYTES = 1_000_000


def open_lock(path: str) -> int:
    """A new descriptor of a lock file; its locks are independent of every other descriptor's."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(fd: int, kind: int) -> bool:
    """Take the lock (`fcntl.LOCK_SH` or `LOCK_EX`) if that needs no waiting."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_lock(path: str) -> int | None:
    """A descriptor that holds the lock exclusively, or None. Patient: a look at a lock holds it for an instant."""
    lock = open_lock(path)
    for _ in range(10):
        if try_lock(lock, fcntl.LOCK_EX):
            return lock
        time.sleep(0.005)
    os.close(lock)
    return None


def is_held(fd: int) -> bool:
    """Whether another descriptor holds the lock exclusively."""
    if try_lock(fd, fcntl.LOCK_SH):
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False
    return True


def private_dir(path: str) -> None:
    """Create a directory that only this user can enter; `PermissionError` if somebody else's is in its place."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f'{path} exists and is not a private directory of this user') from None


def ping(socket_path: str) -> str:
    """How the server answers: `'ready'`, `'loading'`, or not at all: `''`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(socket_path)
            client.sendall(b'PING\r\n')
            answer = client.recv(64)
        except OSError:
            return ''
    if answer.startswith(b'-LOADING'):
        return 'loading'
    return 'ready' if answer else ''


class Server:
    """The server process of one data directory: one that is started here, or one whose watcher was killed."""

    def __init__(self, home: str, socket_path: str, binary: str) -> None:
        self._home = home
        self._socket = socket_path
        self._binary = binary
        # Kept open: the directory may be removed under a running server.
        self._probe = open_lock(os.path.join(home, SERVER_LOCK))
        self._started_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        self._reap()
        return is_held(self._probe)

    @property
    def has_socket(self) -> bool:
        return os.path.exists(self._socket)

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded its data and answers."""
        return ping(self._socket) == 'ready'

    @property
    def age(self) -> float:
        """Seconds since this watcher started, or found, the server."""
        return time.monotonic() - self._started_at

    def start(self) -> None:
        private = os.path.dirname(self._socket)
        if private != self._home:
            private_dir(private)
        self._remove_socket()
        log = os.path.join(self._home, LOG)
        if os.path.getsize(log) > LOG_MAX_BYTES:
            os.truncate(log, 0)
        lock = take_lock(os.path.join(self._home, SERVER_LOCK))
        if lock is None:
            raise OSError(f'another server is using {self._home}')
        try:
            os.set_inheritable(lock, True)
            command = server_command(self._home, self._socket, self._binary)
            pid = os.posix_spawn(command[0], command, server_environment(os.environ))
            os.ftruncate(lock, 0)
            os.write(lock, str(pid).encode())
        finally:
            os.close(lock)
        self._started_at = time.monotonic()

    def stop(self) -> None:
        """End the server with everything on disk, and remove its socket."""
        began = asked = time.monotonic()
        self._signal(signal.SIGTERM)
        while self.is_alive:
            now = time.monotonic()
            # A server that could not write its file refuses to stop: the disk may have room again later.
            if now - began > KILL_AFTER_SECONDS:
                self._signal(signal.SIGKILL)
            elif now - asked > TERM_AGAIN_SECONDS:
                self._signal(signal.SIGTERM)
                asked = now
            time.sleep(POLL_SECONDS / 5)
        self._remove_socket()
        private = os.path.dirname(self._socket)
        if private != self._home and os.path.isdir(private):
            os.rmdir(private)

    def _signal(self, number: int) -> None:
        # The pid in the file is the server's as long as its lock is held.
        pid = os.pread(self._probe, 32, 0)
        if pid and self.is_alive:
            os.kill(int(pid), number)

    def _reap(self) -> None:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass  # an adopted server is not a child

    def _remove_socket(self) -> None:
        try:
            os.unlink(self._socket)
        except FileNotFoundError:
            pass


def server_command(home: str, socket_path: str, binary: str) -> list[str]:
    """The command line; every option is understood by Redis 6.2 and later, and by Valkey."""
    options: dict[str, str] = {
        'port': '0',
        'bind': '127.0.0.1',
        'unixsocket': socket_path,
        'unixsocketperm': '700',
        'dir': home,
        'appendonly': 'yes',
        'appendfsync': 'everysec',
        'save': '',
        'daemonize': 'no',
        # Reserved for the results of each job at once; 4096 by default, of which one result fills a twentieth.
        'stream-node-max-bytes': '512',
    }
    return [binary, *(part for name, value in options.items() for part in (f'--{name}', value))]


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For a server that allocates by glibc: it keeps a thousand freed pieces of each size at hand instead of seven, as
    jobs come and go in pieces of a few sizes. Others ignore it; what was set before stays."""
    return {'GLIBC_TUNABLES': 'glibc.malloc.tcache_count=1000', **environ}


def watch(server: Server, users: int) -> None:
    """Keep the server running until nobody uses it, or until it proves unable to start."""
    # One that never got ready would fail at its data again and again.
    was_ready = server.is_alive
    if not was_ready:
        server.start()
    while not try_lock(users, fcntl.LOCK_EX):
        if not server.is_alive:
            if not was_ready:
                return
            print(f'greenq: the server ended after {server.age:.1f} s with users left; starting it again', flush=True)
            if server.age < 10:
                time.sleep(1)
            server.start()
            was_ready = False
        elif not was_ready:
            was_ready = server.is_ready
        elif not server.has_socket:
            print('greenq: somebody removed the socket; starting the server again', flush=True)
            server.stop()
        time.sleep(POLL_SECONDS)
    server.stop()


def detach() -> None:
    """Leave the starter's session and become nobody's child."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir('/')
    # The users decide when the server ends: the signal of a terminal or a service manager reaches them too, and they
    # may still have results to write. A handler, not SIG_IGN, which the server would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def main(arguments: Sequence[str]) -> None:
    home, socket_path, binary = arguments
    if take_lock(os.path.join(home, WATCHER_LOCK)) is None:
        return
    detach()
    try:
        watch(Server(home, socket_path, binary), open_lock(os.path.join(home, USERS_LOCK)))
    except OSError as error:
        print(f'greenq: {error}', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
