"""An HTTP server that answers each request after a while: `python -m benchmarks.web SECONDS`; it prints its port, and
ends when its standard input does.

In a process of its own, and with as little work per request as asyncio allows, so that it is no bottleneck.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok'


class _Answering(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # Requests of the measured jobs have no body and fit into one packet.
        if data.endswith(b'\r\n\r\n'):
            asyncio.get_running_loop().call_later(self._delay, self._answer)

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)


async def _serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(delay), '127.0.0.1', 0, backlog=1024)
    loop.add_reader(sys.stdin, server.close)
    print(server.sockets[0].getsockname()[1], flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == '__main__':
    asyncio.run(_serve(float(sys.argv[1])))
