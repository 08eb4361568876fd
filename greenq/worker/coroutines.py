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
from greenlet import getcurrent

#: What a greenlet is switched to with: (result, exception).
Reply = tuple[Any, BaseException | None]


class _Call:
    """A greenlet that waits for its coroutine, until it is over."""

    def __init__(self) -> None:
        self.greenlet = getcurrent()
        self.task: asyncio.Task[Any] | None = None
        self.is_over = False


class CoroutineLoop:
    """Responsible for the loop, which starts with the first coroutine; `run` is called by greenlets."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replies: deque[tuple[_Call, Reply]] = deque()
        self._arrived: Any = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result, or what it raised. If the greenlet is interrupted, the coroutine is cancelled."""
        loop = self._started_loop()
        call = _Call()
        context = contextvars.copy_context()

        def begin() -> None:
            call.task = loop.create_task(coroutine, context=context)
            call.task.add_done_callback(lambda done: self._reply(call, done))

        def cancel() -> None:
            if call.task is not None:
                call.task.cancel()

        loop.call_soon_threadsafe(begin)
        try:
            result, error = get_hub().switch()
        except BaseException:
            loop.call_soon_threadsafe(cancel)
            raise
        finally:
            # By the time that a cancelled coroutine replies, the greenlet may wait for something else.
            call.is_over = True
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the loop and its thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._arrived.stop()
            self._loop = None

    def _reply(self, call: _Call, task: 'asyncio.Task[Any]') -> None:
        """In the loop's thread."""
        if task.cancelled():
            reply: Reply = (None, asyncio.CancelledError())
        else:
            error = task.exception()
            reply = (None, error) if error is not None else (task.result(), None)
        self._replies.append((call, reply))
        self._arrived.send()

    def _deliver(self) -> None:
        """In the hub's thread."""
        while self._replies:
            call, reply = self._replies.popleft()
            if not call.is_over:
                call.greenlet.switch(reply)

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._arrived = get_hub().loop.async_()
            self._arrived.start(self._deliver)
            is_ready = get_original('_thread', 'allocate_lock')()
            is_ready.acquire()
            get_original('_thread', 'start_new_thread')(self._serve, (is_ready,))
            # Blocks every greenlet for the millisecond that it takes, so that none of them starts a second loop.
            is_ready.acquire()
        assert self._loop is not None
        return self._loop

    def _serve(self, is_ready: Any) -> None:
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        is_ready.release()
        while not _has_stopped(loop):
            pass
        loop.close()


def _has_stopped(loop: asyncio.AbstractEventLoop) -> bool:
    """Runs the loop; False if it was left by a `sys.exit` in some coroutine, after which the others go on."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        return False
    return True
