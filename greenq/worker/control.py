"""Listens to the worker's channel for commands, through every reconnection."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from greenq.worker.reconnect import Backoff

log = logging.getLogger('greenq.worker')

#: A read returns by itself after this long (s), so that a stop is noticed.
READ_SECONDS = 60.0


class Control:
    """Responsible for the subscription: a daemon thread (a greenlet, if patched) that hands each message on."""

    def __init__(self, client: Any, channel: str, handle: Callable[[dict[str, Any]], None]):
        self._client = client
        self._channel = channel
        self._handle = handle
        self._pubsub: Any = None
        self._is_stopping = False
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Subscribes, then listens in the background."""
        self._subscribe()
        self.thread = threading.Thread(target=self._listen, name='greenq-control', daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Unsubscribes and ends the background listening."""
        self._is_stopping = True
        if self._pubsub is not None:
            try:
                self._pubsub.unsubscribe()
            except (RedisError, OSError):
                pass
        if self.thread is not None:
            self.thread.join(timeout=1)
        if self._pubsub is not None:
            self._pubsub.close()

    def _subscribe(self) -> None:
        pubsub = self._client.pubsub()
        pubsub.subscribe(self._channel)
        self._pubsub = pubsub

    def _listen(self) -> None:
        backoff = Backoff()
        while not self._is_stopping:
            try:
                if self._pubsub is None:
                    self._subscribe()
                message = self._pubsub.get_message(timeout=READ_SECONDS)
                backoff.reset()
            except (RedisError, OSError, ValueError) as error:
                if self._is_stopping:
                    return
                log.warning('Commands on %s: %s; subscribing again', self._channel, error)
                self._forget()
                backoff.sleep()
                continue
            if message and message['type'] == 'message':
                self._dispatch(message)

    def _forget(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        try:
            if pubsub is not None:
                pubsub.close()
        except (RedisError, OSError):
            pass

    def _dispatch(self, message: dict[str, Any]) -> None:
        try:
            self._handle(message)
        except Exception:
            log.exception('Commands on %s: cannot carry out %r', self._channel, message.get('data'))
