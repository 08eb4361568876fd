"""Claims that are sent behind the wait for work: whatever becomes of the connection, each job is taken once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from greenq import Queue
from greenq.connections import worker_connection
from greenq.store import keys
from greenq.store.transitions import Claimed
from greenq.suspension import resume, suspend
from greenq.worker import waiter as waiting
from greenq.worker.fetcher import Fetcher
from greenq.worker.signals import WakePipe
from greenq.worker.waiter import Waiter
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.proxy import Proxy
from tests.worker.runner import Runner

QUEUES = ['a', 'b', 'c']


class Worker:
    """The two parts that standing claims go through, on a network that can fail."""

    def __init__(self, proxy: Proxy) -> None:
        self.wake = WakePipe()
        self._model = redis.Redis.from_url(proxy.url)
        self._pool: Any = worker_connection(self._model, max_connections=4, blocking=True).connection_pool
        self._client: Any = worker_connection(self._model, max_connections=1, blocking=True)
        self.fetcher = Fetcher(self._client, 'w', lifetime=180, record=False)
        self.waiter = Waiter(self._pool, self._client, 'w', QUEUES, self.wake, claims=self.fetcher)
        # Loads the script, as a worker does that finds its queues empty.
        assert self.fetch(1) == []

    def fetch(self, count: int) -> list[Claimed]:
        claimed = self.fetcher.fetch(QUEUES, count)
        assert claimed is not None
        return claimed

    def arrived(self) -> list[str]:
        return sorted(item.job_id for item in self.fetcher.take_arrived())

    def close(self) -> None:
        self.waiter.close()
        self.wake.close()
        self._client.close()
        self._pool.disconnect()
        self._model.close()


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def worker(proxy: Proxy) -> Iterator[Worker]:
    worker = Worker(proxy)
    yield worker
    worker.close()


def _enqueue(connection: redis.Redis, count: int, name: str = 'a') -> list[str]:
    queue = Queue(name, connection=connection)
    return sorted(job.id for job in queue.enqueue_many([Queue.prepare_data(jobs.nothing) for _ in range(count)]))


def _held(connection: Any) -> list[str]:
    return sorted(item.decode().rpartition(':')[0] for item in connection.smembers(keys.held('w')))


def _wait_until_blocked(connection: Any, count: int = 3) -> None:
    wait_until(lambda: connection.info('clients')['blocked_clients'] == count)


@pytest.mark.parametrize('queue', QUEUES)
def test_what_comes_is_claimed_without_another_request(worker: Worker, connection: Any, queue: str) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    before = connection.info('commandstats')['cmdstat_evalsha']['calls']
    ids = _enqueue(connection, 3, queue)
    assert worker.waiter.wait(20, 30)
    assert worker.arrived() == ids == _held(connection)
    assert worker.arrived() == []
    assert connection.info('commandstats')['cmdstat_evalsha']['calls'] - before == 2, 'one enqueues, one claims'
    assert not connection.exists(keys.parked('w'))


def test_what_is_there_already_is_claimed(worker: Worker, connection: redis.Redis) -> None:
    ids = _enqueue(connection, 2, 'b')
    assert worker.waiter.wait(20, 30)
    assert worker.arrived() == ids


@pytest.mark.parametrize(('count', 'promised'), [(0, 0), (1, 0), (2, 0), (3, 3), (7, 6), (30, 30)])
def test_all_queues_together_get_no_more_than_was_said(
    worker: Worker, connection: redis.Redis, count: int, promised: int
) -> None:
    worker.waiter.wait(0, count)
    assert worker.waiter.promised == promised
    _wait_until_blocked(connection)
    for queue in QUEUES:
        _enqueue(connection, 20, queue)
    while worker.waiter.is_waiting:
        worker.waiter.wait(20, 0)
        if len(_held(connection)) == promised and not any(line.standing for line in worker.waiter._lines):
            break
    assert len(worker.arrived()) == promised


def test_what_another_queue_parked_is_not_forgotten(worker: Worker, connection: redis.Redis) -> None:
    """One claim brings more than was parked for it, and no claim stands behind the wait that parks something else."""
    worker.waiter.wait(0, 3)
    assert worker.waiter.promised == 3
    _wait_until_blocked(connection)
    [first] = _enqueue(connection, 1, 'b')
    assert worker.waiter.wait(20, 0)
    assert worker.arrived() == [first]
    worker.waiter.wait(0, 2)  # the wait for b has no claim now
    _wait_until_blocked(connection)
    [other] = _enqueue(connection, 1, 'b')
    wait_until(lambda: connection.lrange(keys.parked('w'), 0, -1) == [other.encode()])
    ids = _enqueue(connection, 1, 'c')
    assert worker.waiter.wait(20, 0)
    worker.waiter.wait(0.3, 0)
    assert connection.llen(keys.parked('w')) <= worker.waiter.parked_count
    found = worker.arrived()
    found += [item.job_id for item in worker.fetch(5)]
    assert sorted(found) == sorted([other, *ids])


def test_what_is_promised_still_is_not_promised_twice(worker: Worker, connection: redis.Redis) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    _enqueue(connection, 1, 'a')
    assert worker.waiter.wait(20, 30)
    assert worker.waiter.promised == 20
    worker.waiter.wait(0, 25)
    assert worker.waiter.promised == 25


def test_nothing_is_claimed_after_withdrawing(worker: Worker, connection: redis.Redis) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    assert worker.waiter.withdraw()
    ids = _enqueue(connection, 3)
    assert (worker.arrived(), worker.waiter.promised, _held(connection)) == ([], 0, [])
    assert sorted(item.job_id for item in worker.fetch(5)) == ids


@pytest.mark.parametrize('count', [0, 30])
def test_withdrawing_overtakes_the_wait(worker: Worker, connection: redis.Redis, proxy: Proxy, count: int) -> None:
    """The call that ends the wait arrives before the wait itself does."""
    proxy.hold_up(b'BLMOVE', 0.3)
    worker.waiter.wait(0, count)
    began = time.monotonic()
    assert worker.waiter.withdraw()
    assert time.monotonic() - began < 3
    assert not worker.waiter.is_waiting
    _wait_until_blocked(connection, 0)
    ids = _enqueue(connection, 2)
    assert sorted(item.job_id for item in worker.fetch(5)) == ids


def test_withdrawing_takes_nothing_that_is_there(worker: Worker, connection: Any) -> None:
    """The claim is carried out when the wait is ended, at a moment when there may be work."""
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    # In one transaction, as a server serves those who wait only after it.
    with connection.pipeline() as pipe:
        for line in worker.waiter._lines:
            pipe.execute_command('CLIENT', 'UNBLOCK', line.client_id)
        pipe.rpush(keys.queue('a'), *_enqueue(connection, 0), 'some job')
        pipe.execute()
    worker.waiter.wait(0, 0)
    assert worker.arrived() == []
    assert connection.lrange(keys.queue('a'), 0, -1) + connection.lrange(keys.parked('w'), 0, -1) == [b'some job']


def test_what_came_before_the_withdrawal_has_arrived(worker: Worker, connection: redis.Redis) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    ids = sorted(_enqueue(connection, 2, 'a') + _enqueue(connection, 1, 'c'))
    wait_until(lambda: _held(connection) == ids)
    assert worker.waiter.withdraw()
    assert worker.arrived() == ids


def test_a_lost_reply_is_asked_for_again(worker: Worker, connection: redis.Redis, proxy: Proxy) -> None:
    proxy.drop_reply_to(b'BLMOVE')
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    ids = [*_enqueue(connection, 3, 'a'), *_enqueue(connection, 3, 'b'), *_enqueue(connection, 3, 'c')]
    with pytest.raises(redis.ConnectionError):
        while worker.waiter.is_waiting:
            worker.waiter.wait(20, 0)
    proxy.wait_until_dropped()
    wait_until(lambda: len(_held(connection)) >= 3)
    found = worker.arrived()
    while more := worker.fetch(5):
        found += [item.job_id for item in more]
    assert sorted(found) == sorted(ids), 'each once'
    assert _held(connection) == sorted(ids)


def test_a_connection_that_is_cut_before_anything_comes(worker: Worker, connection: redis.Redis, proxy: Proxy) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        worker.waiter.wait(20, 30)
    _wait_until_blocked(connection, 0)
    ids = _enqueue(connection, 4)
    assert sorted(item.job_id for item in worker.fetch(5)) == ids
    assert worker.waiter.promised == 0


def test_a_server_that_has_forgotten_the_script(worker: Worker, connection: redis.Redis) -> None:
    connection.script_flush()
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    ids = _enqueue(connection, 2)
    assert worker.waiter.wait(20, 30)
    assert worker.arrived() == []
    assert worker.waiter.parked_count == 1
    assert sorted(item.job_id for item in worker.fetch(5)) == ids


def test_suspended_meanwhile(worker: Worker, connection: redis.Redis) -> None:
    worker.waiter.wait(0, 30)
    _wait_until_blocked(connection)
    suspend(connection)
    ids = _enqueue(connection, 1)
    assert worker.waiter.wait(20, 30)
    assert worker.arrived() == []
    assert worker.fetcher.fetch(QUEUES, 5) is None
    resume(connection)
    assert [item.job_id for item in worker.fetch(5)] == ids


def test_a_server_that_does_not_answer_any_more(
    worker: Worker, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is there, but nothing comes of it: what was asked is asked again on another one."""
    monkeypatch.setattr(waiting, 'STANDING_SECONDS', 600)
    monkeypatch.setattr(waiting, 'LATE_SECONDS', -599.5)
    worker.waiter.block_seconds = 600
    began = threading.Event()

    def wait() -> None:
        with pytest.raises(redis.TimeoutError, match='does not end a call'):
            worker.waiter.wait(1, 30)
        began.set()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(20)
    assert began.is_set()
    assert not worker.waiter.is_waiting
    _wait_until_blocked(connection, 0)
    ids = _enqueue(connection, 2)
    assert sorted(item.job_id for item in worker.fetch(5)) == ids


def test_a_job_on_an_idle_worker_takes_three_requests(gevent_runner: Runner, connection: Any) -> None:
    queue = Queue(connection=connection)
    gevent_runner.begin()
    _wait_until_blocked(connection, 1)
    queue.enqueue(jobs.nothing)
    done = keys.registry('finished', queue.name)
    wait_until(lambda: connection.zcard(done) == 1)
    _wait_until_blocked(connection, 1)
    connection.config_resetstat()
    for count in range(2, 12):
        queue.enqueue(jobs.nothing)
        wait_until(lambda count=count: connection.zcard(done) == count)  # type: ignore[misc]
        _wait_until_blocked(connection, 1)
    calls = {name: stats['calls'] for name, stats in connection.info('commandstats').items()}
    # Enqueued, claimed, finished; and a beat now and then.
    assert 30 <= calls['cmdstat_evalsha'] <= 37
    assert 10 <= calls['cmdstat_blmove'] <= 13
    gevent_runner.stop()


@pytest.mark.parametrize('concurrency', [1, 2, 5])
def test_one_slot_and_many_queues(gevent_runner: Runner, connection: redis.Redis, concurrency: int) -> None:
    gevent_runner.begin(QUEUES, concurrency=concurrency)
    _wait_until_blocked(connection)
    expected = []
    for round_ in range(5):
        for name in QUEUES:
            for number in range(3):
                expected.append(f'{round_}{name}{number}')
                Queue(name, connection=connection).enqueue(jobs.note, expected[-1])
        wait_until(lambda: len(jobs.noted(connection)) == len(expected))
    assert sorted(jobs.noted(connection)) == sorted(expected)
    gevent_runner.stop()


def test_max_jobs_is_exact_when_jobs_come_one_by_one(gevent_runner: Runner, connection: redis.Redis) -> None:
    gevent_runner.begin(QUEUES, max_jobs=25, concurrency=10)
    _wait_until_blocked(connection)
    queues = [Queue(name, connection=connection) for name in QUEUES]
    for number in range(60):
        queues[number % 3].enqueue(jobs.nothing)
    assert gevent_runner.end().error is None
    assert sum(len(queue.finished_job_registry) for queue in queues) == 25
    assert sum(len(queue) for queue in queues) == 35


def test_connections_cut_at_random_moments_lose_and_double_nothing(
    gevent_runner: Runner, connection: Any, proxy: Proxy
) -> None:
    seed = random.randrange(1_000_000)
    numbers = random.Random(seed)
    gevent_runner.begin(QUEUES, url=proxy.url, concurrency=20)
    _wait_until_blocked(connection)
    queues = [Queue(name, connection=connection) for name in QUEUES]
    for number in range(200):
        queues[number % 3].enqueue(jobs.note, str(number))
        if numbers.random() < 0.15:
            proxy.cut()
        time.sleep(numbers.uniform(0, 0.02))
    done = [keys.registry('finished', name) for name in QUEUES]
    wait_until(lambda: sum(connection.zcard(key) for key in done) == 200, timeout=30, description=f'seed {seed}')
    assert sorted(jobs.noted(connection), key=int) == [str(number) for number in range(200)], f'seed {seed}'
    assert not connection.exists(keys.held(gevent_runner.worker_name), keys.parked(gevent_runner.worker_name))
    gevent_runner.stop()


def test_what_a_wait_brought_begins_though_another_queue_keeps_the_worker_busy(
    gevent_runner: Runner, connection: redis.Redis
) -> None:
    busy, rare = Queue('busy', connection=connection), Queue('rare', connection=connection)
    gevent_runner.begin(['rare', 'busy'], concurrency=100)
    for number in range(2):
        _wait_until_blocked(connection, 2)
        # Enough for six seconds, and at once, so that the wait for the other queue goes on.
        busy.enqueue_many(Queue.prepare_data(jobs.nap, (0.02,)) for _ in range(30_000))
        rare.enqueue(jobs.note, str(number))
        wait_until(lambda number=number: len(jobs.noted(connection)) > number, timeout=3)  # type: ignore[misc]
        busy.empty()
    gevent_runner.stop()
