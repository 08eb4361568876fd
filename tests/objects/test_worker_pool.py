"""WorkerPool: workers as fresh interpreters, which are watched, replaced and told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel

from greenq import Queue, SimpleWorker, Worker
from greenq.connections import put_together, taken_apart
from greenq.exceptions import ConfigurationError
from greenq.fresh_process import SETUP_FAILED, FreshProcess, leave_note
from greenq.job import Job
from greenq.serializers import JSONSerializer
from greenq.worker_pool import WorkerPool, run_worker
from tests.helpers import ROOT, wait_until


class OwnJob(Job):
    """A job class of the user's."""


class OwnQueue(Queue):
    """A queue class of the user's."""


class ClassNoting(SimpleWorker):
    """Leaves the names of what it was made with."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        made_with = [self.job_class, self.queue_class, self.serializer]
        self.connection.rpush('rq:test:made-with', *(getattr(item, '__name__', '?') for item in made_with))
        return super().work(*args, **kwargs)


class DiesYoung(SimpleWorker):
    """Ends before it has done anything."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        os._exit(3)


def mark(job: Job, *exc_info: Any) -> bool:
    job.meta['marked'] = True
    job.save_meta()
    return True


def fail() -> None:
    raise RuntimeError('as asked')


def hold(url: str) -> int:
    """Says who runs it, and runs until it is let go."""
    with redis.Redis.from_url(url) as client:
        client.rpush('rq:test:holders', os.getpid())
        while not client.exists('rq:test:let-go'):
            time.sleep(0.01)
    return os.getpid()


@pytest.fixture
def make_pool(connection: redis.Redis) -> Iterator[Callable[..., WorkerPool]]:
    """Makes pools, none of whose workers outlives the test."""
    pools: list[WorkerPool] = []

    def make(*queues: str, **options: Any) -> WorkerPool:
        pools.append(WorkerPool(queues or ['default'], connection=connection, **options))
        return pools[-1]

    yield make
    for pool in pools:
        for worker in pool.worker_dict.values():
            worker.process.kill()
            worker.process.join()
            assert not worker.process.is_alive()


def pids(pool: WorkerPool) -> set[int]:
    return {worker.pid for worker in pool.worker_dict.values()}


def until_registered(pool: WorkerPool) -> None:
    """Workers take signals as requests from the moment they have a record."""
    names = list(pool.worker_dict)
    wait_until(lambda: all(pool.connection.hget(f'rq:worker:{name}', 'state') for name in names), description='states')


# ---- jobs get done ----


def test_queues_are_of_the_queue_class(connection: redis.Redis) -> None:
    pool = WorkerPool(['a', Queue('b', connection=connection)], connection=connection, queue_class=OwnQueue)
    assert [queue.name for queue in pool.queues] == ['a', 'b']
    assert {type(queue) for queue in pool.queues} == {OwnQueue}
    assert pool.status == WorkerPool.Status.IDLE


@pytest.mark.parametrize('worker_class', [Worker, SimpleWorker, 'greenq.SpawnWorker', 'greenq.GeventWorker'])
def test_a_burst_ends_when_the_queues_are_empty(
    connection: redis.Redis, make_pool: Callable[..., WorkerPool], worker_class: Any
) -> None:
    jobs = [Queue(name, connection=connection).enqueue('tests.cli.sample.echo', 1) for name in ('a', 'b', 'b')]
    pool = make_pool('a', 'b', num_workers=2, worker_class=worker_class)
    pool.start(burst=True, logging_level='WARNING')
    assert [job.get_status(refresh=True) for job in jobs] == ['finished'] * 3
    assert pool.all_workers_have_stopped()


@pytest.mark.parametrize('worker_class', [SimpleWorker, 'greenq.GeventWorker'])
def test_what_jobs_start_is_not_taken_for_a_worker_of_the_pool(
    connection: redis.Redis, make_pool: Callable[..., WorkerPool], worker_class: Any
) -> None:
    job = Queue(connection=connection).enqueue('os.getenv', 'GREENQ_PULSE', 'nothing')
    make_pool(worker_class=worker_class).start(burst=True, logging_level='WARNING')
    assert job.return_value(refresh=True) == 'nothing'


IN_A_PLAIN_PROCESS = """
import sys, redis
from greenq.worker_pool import WorkerPool
WorkerPool(['default'], redis.Redis.from_url(sys.argv[1]), worker_class={worker_class}, concurrency=3).start(burst=True)
assert 'gevent' not in sys.modules or {may_import}, 'gevent came into the parent'
"""

OWN_CLASS = 'from greenq import GeventWorker\nclass Own(GeventWorker): pass\n'


@pytest.mark.parametrize(
    ('worker_class', 'may_import'),
    [("'greenq.GeventWorker'", False), ("'own.Own'", False), ("__import__('own').Own", True)],
)
def test_gevent_workers_are_patched_first_and_their_parent_is_not(
    connection: redis.Redis, server_url: str, tmp_path: Path, worker_class: str, may_import: bool
) -> None:
    (tmp_path / 'own.py').write_text(OWN_CLASS)
    job = Queue(connection=connection).enqueue('tests.cli.sample.is_patched')
    script = IN_A_PLAIN_PROCESS.format(worker_class=worker_class, may_import=may_import)
    result = subprocess.run(
        [sys.executable, '-c', script, server_url],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert job.return_value(refresh=True) is True


def test_classes_serializer_and_handlers_arrive(connection: redis.Redis, make_pool: Callable[..., WorkerPool]) -> None:
    queue = OwnQueue(connection=connection, serializer=JSONSerializer, job_class=OwnJob)
    job = queue.enqueue(fail)
    make_pool(
        worker_class=ClassNoting,
        serializer=JSONSerializer,
        job_class=OwnJob,
        queue_class=OwnQueue,
        exception_handlers=[mark],
    ).start(burst=True, logging_level='CRITICAL')
    assert connection.lrange('rq:test:made-with', 0, -1) == [b'OwnJob', b'OwnQueue', b'JSONSerializer']
    assert OwnJob.fetch(job.id, connection=connection, serializer=JSONSerializer).meta == {'marked': True}


def test_run_worker_runs_one_in_this_process(connection: redis.Redis) -> None:
    queue = Queue('here', connection=connection)
    job = queue.enqueue('tests.cli.sample.echo')
    run_worker('one', ['here'], *taken_apart(connection), worker_class=SimpleWorker, logging_level='WARNING')
    assert job.get_status(refresh=True) == 'finished'


def test_a_sentinel_client_arrives_as_one() -> None:
    sentinel = Sentinel([('a', 1), ('b', 2)], sentinel_kwargs={'password': 'p'}, min_other_sentinels=1)  # type: ignore[no-untyped-call]
    client = sentinel.master_for('mine', db=3, password='secret')  # type: ignore[no-untyped-call]
    pool: Any = put_together(*taken_apart(client)).connection_pool
    assert pool.service_name == 'mine'
    assert pool.connection_kwargs['password'] == 'secret'
    manager = pool.sentinel_manager
    watchers = [watcher.connection_pool.connection_kwargs for watcher in manager.sentinels]
    assert [(watcher['host'], watcher['port'], watcher['password']) for watcher in watchers] == [
        ('a', 1, 'p'),
        ('b', 2, 'p'),
    ]
    assert manager.min_other_sentinels == 1


# ---- watching ----


def test_dead_workers_are_forgotten_and_replaced(make_pool: Callable[..., WorkerPool]) -> None:
    pool = make_pool(num_workers=2, worker_class=SimpleWorker)
    pool.start_workers(burst=False, logging_level='WARNING')
    first = pids(pool)
    pool.check_workers()
    assert pids(pool) == first

    killed = next(iter(pool.worker_dict.values()))
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: not killed.process.is_alive())
    assert killed.process.exitcode == -signal.SIGKILL
    pool.check_workers(respawn=False)
    assert pids(pool) == first - {killed.pid}
    pool.check_workers(respawn=True)
    assert len(pids(pool) - first) == 1
    assert pool.number_of_active_workers == 2


def test_the_jobs_of_a_killed_worker_run_in_its_successor(
    connection: redis.Redis, server_url: str, make_pool: Callable[..., WorkerPool]
) -> None:
    job = Queue(connection=connection).enqueue(hold, server_url)
    pool = make_pool(worker_class=SimpleWorker, on_lost='requeue')
    pool.start_workers(burst=False, logging_level='ERROR')
    (first,) = pids(pool)
    wait_until(lambda: connection.lrange('rq:test:holders', 0, -1) == [str(first).encode()])
    os.kill(first, signal.SIGKILL)
    connection.set('rq:test:let-go', 1)

    def is_finished() -> bool:
        pool.check_workers()
        return job.get_status(refresh=True) == 'finished'

    # Its lease would have ended after 15 seconds.
    wait_until(is_finished, timeout=10)
    assert job.return_value(refresh=True) in pids(pool)


def test_workers_that_die_young_are_replaced_ever_later(make_pool: Callable[..., WorkerPool]) -> None:
    pool = make_pool(worker_class=DiesYoung)
    pool.start_workers(burst=False)

    def wait_for_death() -> None:
        wait_until(pool.all_workers_have_stopped)

    wait_for_death()
    pool.check_workers()
    assert pool.number_of_active_workers == 1, 'the first replacement comes at once'
    wait_for_death()
    died_at = time.monotonic()
    pool.check_workers()
    assert pool.number_of_active_workers == 0, 'the second has to wait'

    def is_replaced() -> bool:
        pool.check_workers()
        return pool.number_of_active_workers == 1

    wait_until(is_replaced)
    assert time.monotonic() - died_at > 0.5


# ---- stopping ----


def test_stop_workers_asks_each_to_shut_down(connection: redis.Redis, make_pool: Callable[..., WorkerPool]) -> None:
    pool = make_pool(num_workers=2, worker_class=SimpleWorker)
    pool.start_workers(burst=False, logging_level='WARNING')
    workers = list(pool.worker_dict.values())
    until_registered(pool)
    pool.stop_workers()
    wait_until(pool.all_workers_have_stopped)
    assert [worker.process.exitcode for worker in workers] == [0, 0]
    assert not connection.zcard('rq:greenq:leases')


def test_workers_that_have_hardly_started_can_be_stopped(make_pool: Callable[..., WorkerPool]) -> None:
    pool = make_pool(num_workers=3)
    pool.start_workers(burst=False)
    workers = list(pool.worker_dict.values())
    pool.request_stop()
    assert pool.status == WorkerPool.Status.STOPPED
    wait_until(pool.all_workers_have_stopped)
    assert {worker.process.exitcode for worker in workers} <= {0, -signal.SIGINT}
    pool.check_workers()
    assert pool.number_of_active_workers == 0, 'a stopped pool starts no workers'


# ---- what cannot work ----


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'worker_class': 'no.such.Worker'}, "Cannot import worker class 'no.such.Worker'"),
        ({'worker_class': 'tests.cli.sample.echo'}, "'tests.cli.sample.echo' is not a worker class"),
        ({'worker_class': SimpleWorker, 'concurrency': 3}, 'concurrency cannot be used with SimpleWorker'),
        ({'worker_class': 'greenq.GeventWorker', 'grace': -1}, 'grace -1'),
        ({'worker_class': SimpleWorker, 'nonsense': 1}, "unexpected keyword argument 'nonsense'"),
        ({'exception_handlers': [lambda *args: True]}, 'cannot be pickled'),
    ],
)
def test_wrong_arguments_end_the_pool_with_one_error(
    make_pool: Callable[..., WorkerPool], options: dict[str, Any], message: str
) -> None:
    pool = make_pool(num_workers=2, **options)
    with pytest.raises(ConfigurationError, match=message):
        pool.start(logging_level='WARNING')
    assert not pool.worker_dict


def test_what_is_defined_in_main_is_refused(
    make_pool: Callable[..., WorkerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiesYoung, '__module__', '__main__')
    with pytest.raises(ConfigurationError, match='__main__; move it to a module'):
        make_pool(worker_class=DiesYoung).start_worker()


# ---- processes ----


def _greeting(name: str) -> Callable[[], None]:
    leave_note(greeting=f'hello {name}')
    return lambda: sys.exit(5)


def _never_ready(message: str) -> Callable[[], None]:
    raise ValueError(message)


def _reads_input() -> Callable[[], None]:
    return lambda: sys.exit(len(os.read(0, 10)))


def test_a_process_has_the_face_of_multiprocessing() -> None:
    process = FreshProcess(_greeting, ['you'], name='mine')
    assert (process.name, process.pid, process.exitcode, process.is_alive()) == ('mine', None, None, False)
    process.start()
    assert process.pid != os.getpid()
    process.join()
    assert (process.exitcode, process.is_alive()) == (5, False)
    assert process.note() == {'greeting': 'hello you'}
    with pytest.raises(AssertionError):
        process.start()


def test_a_process_that_cannot_be_set_up_says_why() -> None:
    process = FreshProcess(_never_ready, ['that is wrong'], name='mine')
    process.start()
    process.join()
    assert process.exitcode == SETUP_FAILED
    assert process.note() == {'error': 'that is wrong'}


def test_jobs_find_nothing_in_standard_input() -> None:
    process = FreshProcess(_reads_input, name='mine')
    process.start()
    process.join()
    assert process.exitcode == 0
