"""The examples of RQ's documentation, in the older spellings too, as their readers type them.

Only the addresses differ: the pages come from a server of this test's own, and so does Redis.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from redis import Redis, StrictRedis

from greenq import Queue, SimpleWorker, Worker, get_current_job
from greenq.decorators import job as job_decorator
from greenq.job import Job
from greenq.registry import FailedJobRegistry, StartedJobRegistry
from tests.helpers import run_cli

PAGE = b'three short words'


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header('Content-Length', str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope='module')
def url() -> Iterator[str]:
    """In place of http://nvie.com."""
    with ThreadingHTTPServer(('127.0.0.1', 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()
        thread.join()


@pytest.fixture
def q(connection: Redis) -> Queue:
    return Queue(connection=connection)


def count_words_at_url(url: str, **kwargs: Any) -> int:
    return len(requests.get(url, timeout=5).text.split())


def div_by_zero(x: int) -> float:
    return x / 0


def fib(n: int) -> int:
    return n if n <= 1 else fib(n - 1) + fib(n - 2)


def generate_report() -> str:
    return 'report'


def send_report() -> str:
    return 'sent'


def mytask(foo: int, bar: int = 0) -> tuple[int, int]:
    return foo, bar


def really_really_slow() -> str:
    return 'done'


def func_without_rv() -> None:
    pass


@job_decorator('low', timeout=5)
def add(x: int, y: int) -> int:
    return x + y


def add_and_tell(x: int, y: int) -> tuple[int, str]:
    job = get_current_job()
    assert job is not None
    return x + y, job.id


def add_and_note(x: int, y: int) -> int:
    job = get_current_job()
    assert job is not None
    job.meta['handled_by'] = socket.gethostname()
    job.save_meta()
    return x + y


def work_off(connection: Redis, *names: str) -> None:
    """`rq worker --burst`, in this process."""
    SimpleWorker(names or ['default'], connection=connection).work(burst=True)


class ErrorHandler:
    """An exception handler as one passes it by its path."""

    def __new__(cls, job: Job, *exc_info: Any) -> bool:  # type: ignore[misc]
        job.connection.set('rq:test:handled', job.id)
        return True


class TestEnqueueing:
    def test_a_job_has_an_id(self, q: Queue, url: str) -> None:
        job = q.enqueue(count_words_at_url, url)
        assert 'Job id: %s' % job.id == f'Job id: {job.id}'  # noqa: UP031
        assert q.enqueue(count_words_at_url, url, job_id='my_job_id').id == 'my_job_id'

    @pytest.mark.filterwarnings('ignore:job.result is deprecated')
    def test_the_result_is_there_when_a_worker_is_done(self, q: Queue, url: str, connection: Redis) -> None:
        job = q.enqueue(count_words_at_url, url)
        assert job.result is None
        work_off(connection)
        assert job.result == 3

    def test_queues_by_name_and_functions_by_path(self, connection: Redis, url: str) -> None:
        q = Queue('low', connection=connection)
        q.enqueue(count_words_at_url, url)
        job = q.enqueue('tests.objects.test_seeds.mytask', 3, 4)
        work_off(connection, 'low')
        assert job.return_value() == (3, 4)

    def test_enqueue_call_with_a_timeout(self, q: Queue, url: str, connection: Redis) -> None:
        job = q.enqueue_call(func=count_words_at_url, args=(url,), timeout=30)
        assert job.timeout == 30
        work_off(connection)
        assert job.return_value() == 3

    def test_looking_at_a_queue(self, q: Queue, url: str) -> None:
        job = q.enqueue(count_words_at_url, url, job_id='my_id')
        assert len(q) == 1
        assert q.job_ids == ['my_id']
        assert q.jobs == [job]
        assert q.fetch_job('my_id') == job

    @pytest.mark.filterwarnings('ignore:job.result is deprecated')
    def test_the_decorator(self, connection: Redis) -> None:
        job = add.delay(3, 4)  # type: ignore[attr-defined]
        assert job.timeout == 5
        work_off(connection, 'low')
        assert job.result == 7

    @pytest.mark.filterwarnings('ignore:job.result is deprecated')
    def test_without_a_worker(self, connection: Redis) -> None:
        with pytest.deprecated_call(match='Use `is_async` instead'):
            q = Queue('low', connection=connection, **{'async': False})  # type: ignore[arg-type]
        job = q.enqueue(fib, 8)
        assert job.result == 21
        assert Queue('low', is_async=False, connection=connection).enqueue(fib, 8).result == 21

    def test_dependencies(self, connection: Redis) -> None:
        q = Queue('low', connection=connection)
        report_job = q.enqueue(generate_report)
        sending = q.enqueue(send_report, depends_on=report_job)
        assert sending.is_deferred
        work_off(connection, 'low')
        assert sending.return_value() == 'sent'

    def test_how_long_results_are_kept(self, q: Queue, connection: Redis) -> None:
        default, day, none, ever = (q.enqueue(generate_report, result_ttl=ttl) for ttl in (None, 86400, 0, -1))
        without = q.enqueue(func_without_rv, result_ttl=500)
        work_off(connection)
        assert 490 < connection.ttl(default.key) <= 500
        assert 86390 < connection.ttl(day.key) <= 86400
        assert not Job.exists(none.id, connection)
        assert connection.ttl(ever.key) == -1
        assert without.is_finished
        assert without.return_value() is None

    def test_timeouts(self, q: Queue, connection: Redis) -> None:
        job = q.enqueue(mytask, args=(1,), kwargs={'bar': 2}, timeout=600)
        assert job.timeout == 600
        high = Queue('high', default_timeout=8, connection=connection)
        low = Queue('low', default_timeout=600)
        assert high.enqueue(mytask, 1).timeout == 8
        assert low.enqueue(mytask, 1).timeout == 600
        slow = low.enqueue(really_really_slow, timeout=3600)
        assert slow.timeout == 3600
        work_off(connection, 'default', 'low')
        assert (job.return_value(), slow.return_value()) == ((1, 2), 'done')


class TestJobs:
    def test_create(self, q: Queue, url: str, connection: Redis) -> None:
        job = Job.create(count_words_at_url, url)
        q.enqueue_job(job)
        named = Job.create(count_words_at_url, url, id='my_job_id')
        assert named.id == 'my_job_id'
        work_off(connection)
        assert job.return_value() == 3

    def test_create_with_arguments_that_are_called_like_options(self, q: Queue, url: str, connection: Redis) -> None:
        job = Job.create(
            count_words_at_url,
            ttl=30,
            args=(url,),
            kwargs={'description': 'Function description', 'ttl': 15},
        )
        q.enqueue_job(job)
        assert 0 < connection.ttl(job.key) <= 30
        work_off(connection)
        assert job.return_value() == 3

    @pytest.mark.parametrize(('timeout', 'seconds'), [(2, 2), ('2', 2), ('1h', 3600), ('3m', 180), ('5s', 5)])
    def test_create_with_a_timeout(self, timeout: int | str, seconds: int, connection: Redis) -> None:
        assert Job.create(div_by_zero, timeout=timeout).timeout == seconds

    @pytest.mark.filterwarnings('ignore:job.(result|exc_info) is deprecated')
    def test_fetch_and_its_attributes(self, q: Queue, url: str, connection: Redis) -> None:
        q.enqueue(count_words_at_url, url, job_id='my_job_id')
        work_off(connection)
        job = Job.fetch('my_job_id', connection=connection)
        assert 'Status: %s' % job.get_status().value == 'Status: finished'  # noqa: UP031
        assert job.func_name == 'tests.objects.test_seeds.count_words_at_url'
        assert (job.args, job.kwargs, job.result, job.exc_info) == ((url,), {}, 3, None)
        assert job.enqueued_at is not None
        assert job.started_at is not None
        assert job.ended_at is not None
        assert job.enqueued_at <= job.started_at <= job.ended_at <= job.started_at + timedelta(seconds=10)

    def test_fetch_many(self, q: Queue, connection: Redis) -> None:
        q.enqueue(div_by_zero, 1, job_id='foo_id')
        q.enqueue(mytask, 1, job_id='bar_id')
        jobs = Job.fetch_many(['foo_id', 'bar_id'], connection=connection)
        names = [job.func_name for job in jobs if job is not None]
        assert names == ['tests.objects.test_seeds.div_by_zero', 'tests.objects.test_seeds.mytask']

    def test_the_current_job(self, q: Queue, connection: Redis) -> None:
        job = q.enqueue(add_and_tell, 1, 2)
        work_off(connection)
        assert job.return_value() == (3, job.id)
        assert get_current_job() is None

    def test_meta(self, q: Queue, connection: Redis) -> None:
        job = q.enqueue(add_and_note, 1, 2)
        work_off(connection)
        assert job.get_meta() == {'handled_by': socket.gethostname()}

    def test_time_to_live(self, q: Queue, url: str, connection: Redis) -> None:
        assert Job.create(func=mytask, result_ttl=600, ttl=43).ttl == 43
        job = q.enqueue(count_words_at_url, url, result_ttl=600, ttl=43)
        assert 0 < connection.ttl(job.key) <= 43

    def test_failed_jobs(self, server_url: str, connection: Redis) -> None:
        with StrictRedis.from_url(server_url) as client:
            queue = Queue(connection=client)
            job = queue.enqueue(div_by_zero, 1)
            registry = queue.failed_job_registry
            worker = Worker([queue])
            worker.work(burst=True)
            assert len(registry) == 1
            assert job.is_failed
            registry.requeue(job)
            assert len(registry) == 0
            assert queue.count == 1
            assert queue.enqueue(mytask, failure_ttl=300).failure_ttl == 300


class TestRegistries:
    def test_what_a_registry_says(self, q: Queue, url: str, connection: Redis) -> None:
        job = q.enqueue(count_words_at_url, url)
        registry = StartedJobRegistry(queue=q)
        registry2 = StartedJobRegistry(name='my_queue', connection=connection)
        assert f'Queue associated with the registry: {registry.get_queue()}'.endswith('<Queue default>')
        assert f'Number of jobs in registry {registry.count}' == 'Number of jobs in registry 0'
        assert f'IDs in registry {registry.get_job_ids()}' == 'IDs in registry []'
        assert job not in registry
        assert job.id not in registry2

    def test_by_the_queue(self, q: Queue) -> None:
        assert q.started_job_registry == StartedJobRegistry(queue=q)
        assert q.failed_job_registry == FailedJobRegistry(queue=q)
        for registry in (q.deferred_job_registry, q.finished_job_registry, q.scheduled_job_registry):
            assert registry.get_queue() == q

    def test_removing_jobs(self, q: Queue, connection: Redis) -> None:
        first, second = q.enqueue(div_by_zero, 1), q.enqueue(div_by_zero, 1)
        work_off(connection)
        registry = FailedJobRegistry(queue=q)
        assert set(registry.get_job_ids()) == {first.id, second.id}
        registry.remove(first.id)
        assert Job.exists(first.id, connection)
        for job_id in registry.get_job_ids():
            registry.remove(job_id, delete_job=True)
        assert not Job.exists(second.id, connection)
        assert registry.count == 0


class TestWorkers:
    def test_all_and_count(self, connection: Redis) -> None:
        queue = Queue('queue_name')
        worker = Worker([queue], connection=connection, name='name')
        worker.register_birth()
        assert [found.name for found in Worker.all(connection=connection)] == ['name']
        assert [found.name for found in Worker.all(queue=queue)] == ['name']
        assert Worker.all(queue=Queue('other')) == []
        assert Worker.count(connection=connection) == 1
        worker.register_death()

    def test_find_by_key_and_its_statistics(self, connection: Redis) -> None:
        queue = Queue('queue_name')
        queue.enqueue(mytask, 1)
        queue.enqueue(div_by_zero, 1)
        SimpleWorker([queue], connection=connection, name='name').work(burst=True)
        worker = Worker.find_by_key('rq:worker:name')
        assert worker is not None
        assert worker.successful_job_count == 1
        assert worker.failed_job_count == 1
        assert worker.total_working_time > 0


class TestCommands:
    def test_requeue(self, connection: Redis, server_url: str) -> None:
        queue = Queue('myqueue', connection=connection)
        for job_id in ('foo_job_id', 'bar_job_id', 'third'):
            queue.enqueue(div_by_zero, 1, job_id=job_id)
        work_off(connection, 'myqueue')
        requeued = run_cli('requeue', '--queue', 'myqueue', '-u', server_url, 'foo_job_id', 'bar_job_id')
        assert requeued.returncode == 0, requeued.stderr
        assert set(queue.job_ids) == {'foo_job_id', 'bar_job_id'}
        requeued = run_cli('requeue', '--queue', 'myqueue', '-u', server_url, '--all')
        assert requeued.returncode == 0, requeued.stderr
        assert queue.count == 3

    def test_workers_take_queues_in_the_order_given(self, connection: Redis, server_url: str) -> None:
        jobs = [Queue(name, connection=connection).enqueue(mytask, 1) for name in ('low', 'normal', 'high')]
        done = run_cli('worker', '--burst', 'high', 'normal', 'low', '-u', server_url)
        assert done.returncode == 0, done.stderr
        started = [job.started_at for job in Job.fetch_many([job.id for job in jobs], connection=connection) if job]
        assert all(started)
        assert started == sorted(started, reverse=True)  # type: ignore[type-var]

    def test_settings(self, connection: Redis, server_url: str, tmp_path: Path) -> None:
        job = Queue('high', connection=connection).enqueue(mytask, 1)
        settings = f'REDIS_URL = {server_url!r}\nQUEUES = ["high", "normal", "low"]\n'
        (tmp_path / 'settings.py').write_text(settings)
        done = run_cli('worker', '--burst', '-c', 'settings', env={'PYTHONPATH': str(tmp_path)})
        assert done.returncode == 0, done.stderr
        assert job.is_finished

    def test_own_worker_classes(self, connection: Redis, server_url: str) -> None:
        job = Queue(connection=connection).enqueue(mytask, 1)
        done = run_cli('worker', '--burst', '-w', 'greenq.GeventWorker', '-u', server_url)
        assert done.returncode == 0, done.stderr
        assert job.is_finished

    def test_exception_handlers(self, connection: Redis, server_url: str) -> None:
        job = Queue(connection=connection).enqueue(div_by_zero, 1)
        handler = 'tests.objects.test_seeds.ErrorHandler'
        done = run_cli('worker', '--burst', '--exception-handler', handler, '-u', server_url)
        assert done.returncode == 0, done.stderr
        assert connection.get('rq:test:handled') == job.id.encode()


def test_redis_py_has_the_older_class_still() -> None:
    assert issubclass(StrictRedis, redis.Redis)
