"""The demo's web server, a process of its own: each page takes 50 ms, whoever else is waiting.

Run as `python -m greenq.cli.demo_server`. It prints its URL, and ends when its standard input does, so that it cannot
outlive the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

DELAY_SECONDS = 0.05
WORDS_PER_PAGE = 200
BACKLOG = 4096

_TEXT = 'a thousand jobs wait for a thousand answers and while they wait nobody has to do anything at all'
_PAGE = ' '.join(random.choices(_TEXT.split(), k=WORDS_PER_PAGE)).encode()
_ANSWER = b'\r\n'.join(
    (
        b'HTTP/1.1 200 OK',
        b'Content-Type: text/plain; charset=utf-8',
        b'Content-Length: %d' % len(_PAGE),
        b'Connection: close',
        b'',
        _PAGE,
    )
)


class _Visit(asyncio.Protocol):
    """One connection: a request, a pause, an answer."""

    def __init__(self) -> None:
        self._received = b''

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        was_complete = b'\r\n\r\n' in self._received
        self._received += data
        if not was_complete and b'\r\n\r\n' in self._received:
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._answer)

    def _answer(self) -> None:
        self._transport.write(_ANSWER)
        self._transport.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Visit, '127.0.0.1', 0, backlog=BACKLOG)
    host, port = server.sockets[0].getsockname()
    print(f'http://{host}:{port}/', flush=True)
    is_over = asyncio.Event()
    stdin = sys.stdin.fileno()
    loop.add_reader(stdin, lambda: None if os.read(stdin, 1024) else is_over.set())
    await is_over.wait()


if __name__ == '__main__':
    asyncio.run(_serve())
