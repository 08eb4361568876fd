"""Runs `async def` jobs: one asyncio loop in a native thread, next to the greenlets.

A greenlet waits for its coroutine as for any other I/O; thousands of coroutines share the loop.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Coroutine
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original
from greenlet import getcurrent, greenlet

#: What a greenlet is switched to with: (result, exception).
Reply = tuple[Any, BaseException | None]


class CoroutineLoop:
    """Responsible for the loop, which starts with the first coroutine; `run` is called by greenlets."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replies: deque[tuple[greenlet, Reply]] = deque()
        self._arrived: Any = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result, or what it raised. If the greenlet is interrupted, the coroutine is cancelled."""
        loop = self._started_loop()
        me = getcurrent()
        context = contextvars.copy_context()
        tasks: list[asyncio.Task[Any]] = []

        def begin() -> None:
            task = loop.create_task(coroutine, context=context)
            tasks.append(task)
            task.add_done_callback(lambda done: self._reply(me, done))

        loop.call_soon_threadsafe(begin)
        try:
            result, error = get_hub().switch()
        except BaseException:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            raise
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the loop and its thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._arrived.stop()
            self._loop = None

    def _reply(self, waiting: greenlet, task: 'asyncio.Task[Any]') -> None:
        """In the loop's thread."""
        if task.cancelled():
            reply: Reply = (None, asyncio.CancelledError())
        else:
            error = task.exception()
            reply = (None, error) if error is not None else (task.result(), None)
        self._replies.append((waiting, reply))
        self._arrived.send()

    def _deliver(self) -> None:
        """In the hub's thread."""
        while self._replies:
            waiting, reply = self._replies.popleft()
            if not waiting.dead:
                waiting.switch(reply)

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            hub_loop = get_hub().loop
            self._arrived = hub_loop.async_()
            self._arrived.start(self._deliver)
            ready = deque[asyncio.AbstractEventLoop]()
            started = hub_loop.async_()
            get_original('_thread', 'start_new_thread')(self._serve, (ready, started))
            while not ready:
                get_hub().wait(started)
            started.close()
            self._loop = ready[0]
        return self._loop

    def _serve(self, ready: 'deque[asyncio.AbstractEventLoop]', started: Any) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        ready.append(loop)
        started.send()
        loop.run_forever()
        loop.close()
