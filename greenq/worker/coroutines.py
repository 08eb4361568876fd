"""Runs `async def` jobs: one asyncio loop in a native thread, next to the greenlets.

A greenlet waits for its coroutine as for any other I/O; thousands of coroutines share the loop. No alarm reaches that
thread, so a coroutine that never waits is broken by an exception set from here.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original
from greenlet import getcurrent

from greenq.defaults import DEADLINE_GRACE_SECONDS
from greenq.timeouts import _raise_in_thread

#: A loop that has not cancelled a coroutine after this long (s) is kept from running; then it is looked at as often.
LOOK_SECONDS = 0.4
#: A loop that is kept from running is given up after this long (s).
GIVE_UP_SECONDS = 2 * DEADLINE_GRACE_SECONDS

#: What a greenlet is switched to with: (result, exception).
Reply = tuple[Any, BaseException | None]


class _Call:
    """A greenlet that waits for its coroutine, until it is over."""

    def __init__(self) -> None:
        self.greenlet = getcurrent()
        self.task: asyncio.Task[Any] | None = None
        self.is_over = False
        #: Whether the loop has taken note that the greenlet does not wait any more.
        self.is_cancelled = False


class CoroutineLoop:
    """Responsible for the loop, which starts with the first coroutine; `run` is called by greenlets.

    `on_stuck` is called, in the hub, when a loop does not run any more whatever is done; the next coroutine gets
    another one.
    """

    def __init__(self, on_stuck: Callable[[], None] = lambda: None) -> None:
        self._on_stuck = on_stuck
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._left: list[_Call] = []
        self._watch: Any = None
        self._looks_left = 0
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
            call.is_cancelled = True
            if call.task is not None:
                call.task.cancel()

        loop.call_soon_threadsafe(begin)
        try:
            result, error = get_hub().switch()
        except BaseException:
            loop.call_soon_threadsafe(cancel)
            self._see_to_end(call)
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
            self._watch.stop()
            self._loop = None

    # Coroutines that never wait

    def _see_to_end(self, call: _Call) -> None:
        self._left.append(call)
        if len(self._left) == 1:
            self._looks_left = round(GIVE_UP_SECONDS / LOOK_SECONDS)
            self._watch.start(self._look)

    def _look(self) -> None:
        """In the hub's thread."""
        self._left = [call for call in self._left if not call.is_cancelled]
        if not self._left:
            self._watch.stop()
            return
        self._looks_left -= 1
        if not self._looks_left:
            self._give_loop_up()
            return
        running = asyncio.current_task(self._loop)
        if running is not None and any(call.task is running for call in self._left):
            _raise_in_thread(self._thread_id, asyncio.CancelledError)

    def _give_loop_up(self) -> None:
        self._watch.stop()
        self._arrived.stop()
        self._left = []
        self._loop = None
        self._on_stuck()

    # The loop

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
            self._watch = get_hub().loop.timer(LOOK_SECONDS, LOOK_SECONDS)
            is_ready = get_original('_thread', 'allocate_lock')()
            is_ready.acquire()
            get_original('_thread', 'start_new_thread')(self._serve, (is_ready,))
            # Blocks every greenlet for the millisecond that it takes, so that none of them starts a second loop.
            is_ready.acquire()
        assert self._loop is not None
        return self._loop

    def _serve(self, is_ready: Any) -> None:
        self._thread_id = get_original('_thread', 'get_ident')()
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        is_ready.release()
        while not _has_stopped(loop):
            pass
        loop.close()


def _has_stopped(loop: asyncio.AbstractEventLoop) -> bool:
    """Runs the loop; False if it was left by a `sys.exit` in some coroutine, or by what was meant to break one that
    ended at that moment, after which the others go on."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt, asyncio.CancelledError):
        return False
    return True
