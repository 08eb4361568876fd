"""Runs in every Python process of the suite: there, `rq` is greenq, and port 6379 is the private server's."""

from __future__ import annotations

import os
import sys
from typing import Any

RQ_PORT = 6379


def say_rq_to_greenq() -> None:
    """`import rq` gives greenq; where greenq cannot be imported it fails, rather than find an RQ that is installed."""
    sys.modules['rq'] = None  # type: ignore[assignment]
    from greenq.compat import install_as_rq

    del sys.modules['rq']
    install_as_rq()


def lead_to(port: int) -> None:
    """Every connection to Redis' usual port goes to another one; settings still show the usual one."""
    from redis.connection import Connection

    connect: Any = Connection._connect

    def connect_privately(self: Any) -> Any:
        if self.port == RQ_PORT:
            self.port = port
        return connect(self)

    Connection._connect = connect_privately  # type: ignore[method-assign]


if 'CONFORMANCE_PORT' in os.environ:
    say_rq_to_greenq()
    lead_to(int(os.environ['CONFORMANCE_PORT']))
