"""Functions that enqueue themselves."""

from __future__ import annotations

import pytest
import redis

from greenq.callbacks import Callback
from greenq.decorators import job
from greenq.job import Job
from greenq.queue import Queue
from greenq.retry import Retry
from greenq.webhook import Webhook


@job('sums')
def add(x: int, y: int = 0) -> int:
    """Adds."""
    return x + y


def test_the_function_stays_what_it_was() -> None:
    assert add(1, y=2) == 3
    assert add.__doc__ == add.enqueue.__doc__ == 'Adds.'  # type: ignore[attr-defined]


def test_it_enqueues_itself_on_the_configured_connection(connection: redis.Redis) -> None:
    for enqueue in (add.enqueue, add.delay):  # type: ignore[attr-defined]
        enqueued = enqueue(1, y=2)
        stored = Job.fetch(enqueued.id, connection=connection)
        assert (stored.origin, stored.func, stored.args, stored.kwargs) == ('sums', add, (1,), {'y': 2})
    assert Queue('sums', connection=connection).count == 2


def test_options_of_the_decorator(connection: redis.Redis) -> None:
    webhook = Webhook('http://example.com/', 'failed')
    decorate = job(
        'low',
        connection=connection,
        timeout='1m',
        result_ttl=10,
        ttl=20,
        failure_ttl=30,
        meta={'a': 1},
        description='adds',
        retry=Retry(3, 2),
        on_failure=Callback('some.where'),
        webhooks=[webhook],
        on_lost='fail',
    )
    enqueued = decorate(add).enqueue(1)  # type: ignore[attr-defined]
    stored = Job.fetch(enqueued.id, connection=connection)
    assert (stored.timeout, stored.result_ttl, stored.ttl, stored.failure_ttl) == (60, 10, 20, 30)
    assert (stored.meta, stored.description, stored.retries_left, stored.webhooks) == ({'a': 1}, 'adds', 3, [webhook])
    assert stored.on_lost == 'fail'
    with pytest.raises(ValueError, match="on_lost 'drop' is not allowed"):
        job('low', on_lost='drop')


def test_options_of_a_call_come_first(connection: redis.Redis) -> None:
    queue = Queue('low', connection=connection)
    first = queue.enqueue(len, ())
    decorate = job(queue, at_front=True, depends_on=first)
    waiting = decorate(add).enqueue(1)  # type: ignore[attr-defined]
    assert waiting.is_deferred
    ready = decorate(add).enqueue(1, depends_on='nobody', job_id='b')  # type: ignore[attr-defined]
    assert queue.job_ids == [ready.id, first.id] == ['b', first.id]
    last = decorate(add).enqueue(1, depends_on='nobody', at_front=False)  # type: ignore[attr-defined]
    assert queue.job_ids[-1] == last.id


def test_a_queue_or_a_queue_class(connection: redis.Redis) -> None:
    class OtherQueue(Queue):
        pass

    queue = OtherQueue('low', connection=connection)
    assert job(queue)(add).enqueue(1).origin == 'low'  # type: ignore[attr-defined]
    decorate = job('low', connection=connection, queue_class=OtherQueue)
    assert decorate.queue_class is OtherQueue
    assert decorate(add).enqueue(1).origin == 'low'  # type: ignore[attr-defined]
    assert job('low').queue_class is Queue


def test_bad_options_show_when_it_is_enqueued(connection: redis.Redis) -> None:
    with pytest.raises(ValueError, match='ttl must be greater than 0'):
        job('low', connection=connection, ttl=0)(add).enqueue(1)  # type: ignore[attr-defined]
