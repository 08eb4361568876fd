"""Taking jobs out of queues the way RQ does, kept for tools: greenq's workers claim, which a crash cannot tear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from greenq.connections import resolve_connection
from greenq.exceptions import DequeueTimeout, NoSuchJobError
from greenq.intermediate_queue import IntermediateQueue
from greenq.job import Job
from greenq.queue_record import QueueRecord
from greenq.serializers import Serializer
from greenq.timeouts import BaseDeathPenalty
from greenq.utils import as_text, backend_class

if TYPE_CHECKING:
    from redis import Redis


class Dequeue(QueueRecord):
    """RQ's class methods of a queue that wait for a job and take it."""

    @classmethod
    def lpop(
        cls, queue_keys: Sequence[str], timeout: int | None, connection: Redis | None = None
    ) -> tuple[Any, Any] | None:
        """Pop an id from the first queue that has one: (queue key, id), or None.

        A timeout of None does not wait. After `timeout` seconds without a job: DequeueTimeout.
        """
        connection = resolve_connection(connection)
        if timeout is None:
            for queue_key in queue_keys:
                job_id = connection.lpop(queue_key)
                if job_id is not None:
                    return queue_key, job_id
            return None
        result = connection.blpop(list(queue_keys), _checked_wait(timeout))
        if result is None:
            raise DequeueTimeout(f'No job within {timeout} s in {", ".join(queue_keys)}')
        return result[0], result[1]

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> tuple[str, Any] | None:
        """Move the next id of a queue to its intermediate list, as RQ workers do; waits and returns as `lpop`."""
        target = IntermediateQueue.get_intermediate_queue_key(queue_key)
        job_id: Any
        if timeout is None:
            job_id = connection.lmove(queue_key, target)
            return None if job_id is None else (queue_key, job_id)
        job_id = connection.blmove(queue_key, target, _checked_wait(timeout))
        if job_id is None:
            raise DequeueTimeout(f'No job within {timeout} s in {queue_key}')
        return queue_key, job_id

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[QueueRecord],
        timeout: int | None,
        connection: Redis | None = None,
        job_class: type[Job] | None = None,
        serializer: Serializer | str | None = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> tuple[Job, Self] | None:
        """Take the next job of the first queue that has one, skipping ids without a job; waits as `lpop`."""
        connection = resolve_connection(connection)
        job_class = backend_class(cls, 'job_class', override=job_class)
        queue_keys = [queue.key for queue in queues]
        while True:
            if len(queue_keys) == 1:
                popped = cls.lmove(connection, queue_keys[0], timeout)
            else:
                popped = cls.lpop(queue_keys, timeout, connection=connection)
            if popped is None:
                return None
            queue = cls.from_queue_key(as_text(popped[0]), connection, job_class, serializer, death_penalty_class)
            try:
                job = queue.job_class.fetch(as_text(popped[1]), connection=connection, serializer=serializer)
            except NoSuchJobError:
                continue
            return job, queue


def _checked_wait(timeout: int) -> int:
    if timeout == 0:
        raise ValueError('RQ does not support indefinite timeouts. Please pick a timeout value > 0')
    return timeout
