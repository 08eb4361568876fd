"""The `@job` decorator: a function that knows its queue and options, and enqueues itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from greenq.callbacks import Callback
from greenq.job_options import JobOptions
from greenq.queue import Queue
from greenq.store.states import checked_on_lost

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Job
    from greenq.rate_limit import RateLimit
    from greenq.repeat import Repeat
    from greenq.retry import Retry
    from greenq.types import JobDependencyType
    from greenq.webhook import Webhook

F = TypeVar('F', bound=Callable[..., Any])


class job:
    """Gives a function `enqueue(*args, **kwargs)`, and `delay`, its older name; called directly it runs as ever.

    `queue` is a queue or a name; a name's queue is of `queue_class`, with `connection` or the configured one. The
    options are those of `Queue.enqueue_call`. `depends_on`, `job_id` and `at_front` may also be given per call.
    """

    queue_class: type[Queue] = Queue

    def __init__(
        self,
        queue: Queue | str,
        connection: Redis | None = None,
        timeout: float | str | None = None,
        result_ttl: float | str | None = None,
        ttl: float | str | None = None,
        queue_class: type[Queue] | None = None,
        depends_on: JobDependencyType | None = None,
        at_front: bool = False,
        meta: dict[Any, Any] | None = None,
        description: str | None = None,
        failure_ttl: float | str | None = None,
        retry: Retry | None = None,
        on_failure: Callback | Callable[..., Any] | None = None,
        on_success: Callback | Callable[..., Any] | None = None,
        on_stopped: Callback | Callable[..., Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        repeat: Repeat | None = None,
        rate_limit: RateLimit | None = None,
        on_lost: str | None = None,
    ) -> None:
        self.queue = queue
        self.connection = connection
        if queue_class is not None:
            self.queue_class = queue_class
        self.options = JobOptions(
            timeout=timeout,
            result_ttl=result_ttl,
            ttl=ttl,
            depends_on=depends_on,
            at_front=at_front,
            meta=meta,
            description=description,
            failure_ttl=failure_ttl,
            retry=retry,
            on_failure=on_failure,
            on_success=on_success,
            on_stopped=on_stopped,
            webhooks=webhooks,
            repeat=repeat,
            rate_limit=rate_limit,
            on_lost=None if on_lost is None else checked_on_lost(on_lost),
        )

    def __call__(self, f: F) -> F:
        @wraps(f)
        def enqueue(*args: Any, **kwargs: Any) -> Job:
            options = self.options.given()
            for name in ('depends_on', 'job_id', 'at_front'):
                if (value := kwargs.pop(name, None)) is not None:
                    options[name] = value
            return self._target().enqueue_call(f, args=args, kwargs=kwargs, **options)

        f.delay = f.enqueue = enqueue  # type: ignore[attr-defined]
        return f

    def _target(self) -> Queue:
        if isinstance(self.queue, str):
            return self.queue_class(name=self.queue, connection=self.connection)
        return self.queue
