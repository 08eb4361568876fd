"""Looking up host names while a thousand jobs do the same.

gevent asks the system in real threads, which all want the interpreter's lock: for a job that calls an API, that costs
more than the rest of its connection. An address needs no question, and jobs that ask the same at the same time are
answered together.
"""

import _socket
import copy
import os
from typing import Any

from gevent import spawn_raw
from gevent.event import AsyncResult
from gevent.resolver.thread import Resolver

#: (host, port, family, type, proto, flags), as of `socket.getaddrinfo`.
Question = tuple[str, Any, int, int, int, int]


class Names(Resolver):  # type: ignore[misc]
    """gevent's resolver, which asks the system itself, with fewer questions."""

    def __init__(self, hub: Any = None):
        super().__init__(hub)
        #: By the process that asks, as a fork inherits no thread, and by the question.
        self._under_way: dict[tuple[Any, ...], Any] = {}

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """As `socket.getaddrinfo`."""
        if not isinstance(host, str) or not isinstance(port, int | str | None):
            whatever: list[Any] = super().getaddrinfo(host, port, family, type, proto, flags)
            return whatever
        if not isinstance(port, str) and _looks_like_address(host):
            try:
                return _socket.getaddrinfo(host, port, family, type, proto, flags | _socket.AI_NUMERICHOST)
            except _socket.gaierror:
                # A name after all, or not an address of this family: the full answer says which.
                pass
        return self._answer((host, port, family, type, proto, flags))

    def _answer(self, question: Question) -> list[Any]:
        key = (os.getpid(), *question)
        answer = self._under_way.get(key)
        if answer is None:
            answer = self._under_way[key] = AsyncResult()
            # In a greenlet of its own: who asked first may be ended meanwhile.
            spawn_raw(self._ask, key, question, answer)
        answer.wait()
        if answer.exception is not None:
            # Each its own: raising one adds to its traceback.
            raise copy.copy(answer.exception)
        return list(answer.value)

    def _ask(self, key: tuple[Any, ...], question: Question, answer: Any) -> None:
        try:
            found = self.pool.apply(_socket.getaddrinfo, question)
        except BaseException as error:
            del self._under_way[key]
            answer.set_exception(error)
        else:
            # What is asked from now on may have another answer.
            del self._under_way[key]
            answer.set(found)


def _looks_like_address(host: str) -> bool:
    return host[-1:].isdigit() or ':' in host
