"""A network between a worker and Redis that can lose replies and go away."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit


class Proxy:
    """Forwards TCP connections to the server of `url`; used as a context."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target: str | tuple[str, int] = (
            parts.path if parts.scheme == 'unix' else (str(parts.hostname), parts.port or 6379)
        )
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._dropped = threading.Event()
        self._is_away = False
        self._drop_reply_to: bytes | None = None
        self._hold_up: tuple[bytes, float] | None = None

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self._listener.getsockname()[1]}'

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def drop_reply_to(self, word: bytes) -> None:
        """Lets the next request with this word in it through, and cuts the connection when the reply comes."""
        self._dropped.clear()
        self._drop_reply_to = word

    def hold_up(self, word: bytes, seconds: float) -> None:
        """From now on requests with this word in them are on their way for so long."""
        self._hold_up = word, seconds

    def wait_until_dropped(self, timeout: float = 10) -> None:
        assert self._dropped.wait(timeout), 'no reply was dropped'

    def go_away(self) -> None:
        """Cuts all connections and takes no new ones."""
        self._is_away = True
        self.cut()

    def come_back(self) -> None:
        self._is_away = False

    def cut(self) -> None:
        """Cuts all connections."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            _close(*link)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_away:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            far.connect(self._target)
            with self._lock:
                self._links.append((near, far))
            doomed = threading.Event()
            threading.Thread(target=self._forward, args=(near, far, doomed), daemon=True).start()
            threading.Thread(target=self._return, args=(near, far, doomed), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                if self._drop_reply_to is not None and self._drop_reply_to in data:
                    self._drop_reply_to = None
                    doomed.set()
                if self._hold_up is not None and self._hold_up[0] in data:
                    time.sleep(self._hold_up[1])
                far.sendall(data)
        _close(near, far)

    def _return(self, near: socket.socket, far: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if doomed.is_set():
                    self._dropped.set()
                    break
                near.sendall(data)
        _close(near, far)


def _close(*sockets: socket.socket) -> None:
    for item in sockets:
        with contextlib.suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
