"""A network between a worker and Redis that freezes, loses what is sent, resets connections, and leads elsewhere."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass, field

HOST = '127.0.0.1'
#: A socket that is closed with this resets its connection.
_RESET = struct.pack('ii', 1, 0)


@dataclass
class _Link:
    """A client's connection and the one that goes on from it."""

    near: socket.socket
    far: socket.socket
    #: Set when nothing that is sent on it arrives any more, while both ends believe that it is open.
    is_lost: threading.Event = field(default_factory=threading.Event)


class Network:
    """Forwards TCP connections to a port of this host; used as a context. All faults concern what goes through it."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._target = port
        self._rng = rng
        self._listener = socket.create_server((HOST, 0))
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._reset_every = 0
        self._requests = 0
        #: How many connections were reset.
        self.resets = 0

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f'redis://{HOST}:{self.port}'

    def __enter__(self) -> Network:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self.cut()

    # ---- faults ----

    def freeze(self) -> None:
        """Holds back everything, also new connections, until `thaw`; nothing is lost."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def lose(self) -> None:
        """The far ends of all connections are closed, and the near ones never hear of it; new connections are well."""
        for link in self._take_links():
            link.is_lost.set()
            _close(link.far)

    def reset_every(self, requests: int) -> None:
        """Resets the connection of every so many-th request, before it arrives or before its reply does; 0 ends it."""
        self._reset_every = requests

    def cut(self) -> None:
        """Closes all connections."""
        for link in self._take_links():
            _close(link.near, link.far)

    def lead_to(self, port: int) -> None:
        """New connections go elsewhere; the old ones are closed."""
        self._target = port
        self.cut()

    # ---- forwarding ----

    def _take_links(self) -> list[_Link]:
        with self._lock:
            links, self._links = self._links, []
        return links

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection((HOST, self._target))
        except OSError:
            _close(near)
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(near, far)
        with self._lock:
            self._links.append(link)
        threading.Thread(target=self._return, args=(link,), daemon=True).start()
        self._forward(link)

    def _forward(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.near.recv(65_536):
                self._flows.wait()
                if link.is_lost.is_set():
                    continue
                if self._is_to_reset():
                    self._reset(link, data)
                    return
                link.far.sendall(data)
        self._end(link)

    def _return(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.far.recv(65_536):
                self._flows.wait()
                link.near.sendall(data)
        if not link.is_lost.is_set():
            self._end(link)

    def _is_to_reset(self) -> bool:
        if not self._reset_every:
            return False
        with self._lock:
            self._requests += 1
            return self._requests % self._reset_every == 0

    def _reset(self, link: _Link, data: bytes) -> None:
        self.resets += 1
        if self._rng.random() < 0.5:
            # The server carries it out, and the client does not learn of it: the link ends before the reply.
            link.is_lost.set()
            with contextlib.suppress(OSError):
                link.far.sendall(data)
        with contextlib.suppress(OSError):
            link.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        link.near.close()
        self._forget(link)
        # Closed a moment later, or the server might not get to read what was sent.
        threading.Timer(0.05, _close, (link.far,)).start()

    def _end(self, link: _Link) -> None:
        self._forget(link)
        _close(link.near, link.far)

    def _forget(self, link: _Link) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._links.remove(link)


def _close(*sockets: socket.socket) -> None:
    for item in sockets:
        with contextlib.suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
