"""The fetcher: a claim whose reply is lost is repeated, so that no job is lost or taken twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from greenq import Queue
from greenq.connections import worker_connection
from greenq.store import keys
from greenq.suspension import resume, suspend
from greenq.worker.fetcher import Fetcher
from tests.worker.jobs import nothing
from tests.worker.proxy import Proxy


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def fetcher(proxy: Proxy) -> Iterator[Fetcher]:
    with redis.Redis.from_url(proxy.url) as model:
        client = worker_connection(model, max_connections=1, blocking=True)
        yield Fetcher(client, 'w', lifetime=180)
        client.close()


def _enqueue(connection: redis.Redis, count: int, name: str = 'default') -> list[str]:
    queue = Queue(name, connection=connection)
    return [queue.enqueue(nothing).id for _ in range(count)]


def test_a_batch_in_order(fetcher: Fetcher, connection: redis.Redis) -> None:
    low, high = _enqueue(connection, 3, 'low'), _enqueue(connection, 2, 'high')

    claimed = fetcher.fetch(['high', 'low'], 4)

    assert claimed is not None
    assert [item.job_id for item in claimed] == high + low[:2]
    assert [item.queue for item in claimed] == ['high'] * 2 + ['low'] * 2
    assert len({item.execution_id for item in claimed}) == 4
    assert connection.smembers(keys.held('w')) == {f'{item.job_id}:{item.execution_id}'.encode() for item in claimed}


def test_nothing_there_and_suspended(fetcher: Fetcher, connection: redis.Redis) -> None:
    assert fetcher.fetch(['default'], 5) == []
    ids = _enqueue(connection, 1)
    suspend(connection)
    assert fetcher.fetch(['default'], 5) is None
    resume(connection)
    claimed = fetcher.fetch(['default'], 5)
    assert claimed is not None and [item.job_id for item in claimed] == ids


def test_a_lost_reply_is_asked_for_again(fetcher: Fetcher, connection: redis.Redis, proxy: Proxy) -> None:
    fetcher.fetch(['default'], 1)
    ids = _enqueue(connection, 5)
    proxy.drop_reply_to(b'EVALSHA')

    with pytest.raises(redis.ConnectionError):
        fetcher.fetch(['default'], 3)
    proxy.wait_until_dropped()
    assert connection.llen(keys.queue('default')) == 2, 'the claim whose reply was lost has taken them'
    again = fetcher.fetch(['default'], 3)
    rest = fetcher.fetch(['default'], 3)

    assert again is not None and rest is not None
    # The index of what a worker holds is a set, so what is recalled comes in any order.
    assert sorted(item.job_id for item in again) == sorted(ids[:3])
    assert [item.job_id for item in rest] == ids[3:]
    assert len({item.execution_id for item in again + rest}) == 5
    assert connection.scard(keys.held('w')) == 5


def test_a_request_that_never_arrived(fetcher: Fetcher, connection: redis.Redis, proxy: Proxy) -> None:
    ids = _enqueue(connection, 2)
    proxy.go_away()
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            fetcher.fetch(['default'], 5)
    proxy.come_back()

    claimed = fetcher.fetch(['default'], 5)

    assert claimed is not None and [item.job_id for item in claimed] == ids


def test_recalled_and_fresh_jobs_share_a_reply(fetcher: Fetcher, connection: redis.Redis, proxy: Proxy) -> None:
    fetcher.fetch(['default'], 1)
    ids = _enqueue(connection, 1)
    proxy.drop_reply_to(b'EVALSHA')
    with pytest.raises(redis.ConnectionError):
        fetcher.fetch(['default'], 3)
    proxy.wait_until_dropped()
    ids += _enqueue(connection, 5)

    claimed = fetcher.fetch(['default'], 3)

    assert claimed is not None
    assert [item.job_id for item in claimed] == ids[:3]
    assert len({item.execution_id for item in claimed}) == 3


def test_a_server_that_refuses_has_taken_nothing(fetcher: Fetcher, connection: redis.Redis) -> None:
    """After an error reply the claim is no repeat, and takes jobs by the order of the queues."""
    connection.set(keys.queue('broken'), 'no list')
    with pytest.raises(redis.ResponseError):
        fetcher.fetch(['broken'], 1)
    ids = _enqueue(connection, 1)
    claimed = fetcher.fetch(['default'], 1)
    assert claimed is not None and [item.job_id for item in claimed] == ids


def test_execution_ids_are_those_of_rq(fetcher: Fetcher) -> None:
    ids = {fetcher.new_execution_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(id) == 32 and int(id, 16) for id in ids)
