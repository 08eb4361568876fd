"""What kinds of jobs there are, in which order they run, and what else runs with them: the same with every worker."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from greenq import Callback, Queue
from greenq.command import send_shutdown_command, send_stop_job_command
from greenq.job import Dependency, JobStatus
from greenq.results import Result
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.runner import Runner


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


def test_kinds_of_callables(worker: Runner, queue: Queue) -> None:
    by_name = queue.enqueue('tests.worker.jobs.add', 1, 2)
    method = queue.enqueue(jobs.Adder(10).plus, 5)
    static = queue.enqueue('tests.worker.jobs.Adder.static', 5)
    instance = queue.enqueue(jobs.Adder(10), 5)
    builtin = queue.enqueue(len, [1, 2, 3])
    coroutine = queue.enqueue(jobs.async_add, 3, 4)

    worker.run()

    results = [job.return_value() for job in (by_name, method, static, instance, builtin, coroutine)]
    assert results == [3, 15, -5, 50, 3, 7]


def test_arguments_arrive_as_given(worker: Runner, queue: Queue) -> None:
    job = queue.enqueue_call(jobs.echo, args=(1, [2], None), kwargs={'timeout': 3, 'ü': 'ö'})
    worker.run()
    assert job.return_value() == [[1, [2], None], {'timeout': 3, 'ü': 'ö'}]


@pytest.mark.parametrize('serializer', ['json', 'tests.worker.jobs.LiteralSerializer'])
def test_serializers(worker: Runner, connection: redis.Redis, serializer: str) -> None:
    queue = Queue('encoded', connection=connection, serializer=serializer)
    good = queue.enqueue(jobs.echo, 1, two=[2], meta={'kept': True})
    bad = queue.enqueue(jobs.fail)

    worker.run('encoded', serializer=serializer)

    assert good.return_value() == [[1], {'two': [2]}]
    assert good.get_meta() == {'kept': True}
    assert bad.get_status() == JobStatus.FAILED


def test_the_current_job(worker: Runner, queue: Queue) -> None:
    plain = [queue.enqueue(jobs.note_job_id) for _ in range(3)]
    coroutines = [queue.enqueue(jobs.async_who) for _ in range(3)]

    worker.run()

    assert [job.return_value() for job in plain] == [job.id for job in plain]
    assert [job.return_value() for job in coroutines] == [[job.id] * 3 for job in coroutines]


def test_order_of_a_queue(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    for text in 'abc':
        queue.enqueue(jobs.note, text)
    queue.enqueue(jobs.note, 'first', at_front=True)

    worker.run(**_one_at_a_time(worker))

    assert jobs.noted(connection) == ['first', 'a', 'b', 'c']


def test_order_of_the_queues(worker: Runner, connection: redis.Redis) -> None:
    for name in ('low', 'high'):
        for number in range(2):
            Queue(name, connection=connection).enqueue(jobs.note, f'{name} {number}')

    worker.run(['high', 'low'], **_one_at_a_time(worker))

    assert jobs.noted(connection) == ['high 0', 'high 1', 'low 0', 'low 1']


def test_round_robin(worker: Runner, connection: redis.Redis) -> None:
    for name in 'abc':
        for number in range(2):
            Queue(name, connection=connection).enqueue(jobs.note, f'{name}{number}')

    worker.run(list('abc'), dequeue_strategy='round_robin', **_one_at_a_time(worker))

    assert jobs.noted(connection) == ['a0', 'b0', 'c0', 'a1', 'b1', 'c1']


def test_random(worker: Runner, connection: redis.Redis) -> None:
    in_turn = ['a'] * 10 + ['b'] * 10
    # A worker that claims ahead draws for a batch, so that few draws decide.
    for _ in range(20):
        for name in in_turn:
            Queue(name, connection=connection).enqueue(jobs.note, name)
        worker.run(['a', 'b'], dequeue_strategy='random', **_one_at_a_time(worker))
        notes = jobs.noted(connection)
        assert sorted(notes) == in_turn
        if notes not in (in_turn, in_turn[::-1]):
            return
        connection.delete(jobs.key('notes'))
    pytest.fail('twenty times in order')


def test_dependencies_across_queues(worker: Runner, connection: redis.Redis) -> None:
    one, other = Queue('one', connection=connection), Queue('other', connection=connection)
    parents = [one.enqueue(jobs.note, f'parent {number}') for number in range(2)]
    child = other.enqueue(jobs.note, 'child', depends_on=parents)
    grandchild = one.enqueue(jobs.note, 'grandchild', depends_on=child)
    assert child.get_status() == grandchild.get_status() == JobStatus.DEFERRED

    worker.run(['one', 'other'])

    notes = jobs.noted(connection)
    assert sorted(notes[:2]) == ['parent 0', 'parent 1']
    assert notes[2:] == ['child', 'grandchild']
    assert not other.deferred_job_registry.get_job_ids() and not one.deferred_job_registry.get_job_ids()


def test_dependents_of_a_failure(worker: Runner, queue: Queue) -> None:
    parent = queue.enqueue(jobs.fail)
    waits = queue.enqueue(jobs.add, 1, depends_on=parent)
    forgives = queue.enqueue(jobs.add, 1, depends_on=Dependency([parent], allow_failure=True))

    worker.run()

    assert waits.get_status() == JobStatus.DEFERRED
    assert forgives.get_status() == JobStatus.FINISHED


def test_a_dependency_without_result(worker: Runner, queue: Queue) -> None:
    parent = queue.enqueue(jobs.add, 1, result_ttl=0)
    child = queue.enqueue(jobs.add, 1, depends_on=parent)
    worker.run()
    assert child.get_status() == JobStatus.FINISHED


def test_callbacks(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    on_success, on_failure = Callback(jobs.on_success), Callback('tests.worker.jobs.on_failure')
    queue.enqueue(jobs.add, 1, on_success=on_success, on_failure=on_failure, job_id='good')
    queue.enqueue(jobs.fail, on_success=on_success, on_failure=on_failure, job_id='bad')

    worker.run()

    assert sorted(jobs.noted(connection)) == ['failure bad ValueError as told', 'success good 2']


def test_callbacks_that_fail(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    failing = Callback(jobs.failing_callback)
    after_success = queue.enqueue(jobs.add, 1, on_success=failing)
    after_failure = queue.enqueue(jobs.fail, on_failure=failing)
    next_one = queue.enqueue(jobs.add, 1)

    worker.run()

    for job in (after_success, after_failure):
        result = job.latest_result()
        assert result is not None and result.type is Result.Type.FAILED
        assert "KeyError: 'in the callback'" in str(result.exc_string)
    assert next_one.get_status() == JobStatus.FINISHED


@pytest.mark.slow
def test_timeouts(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    late = queue.enqueue(jobs.nap, 30, job_timeout=1, on_failure=Callback(jobs.on_failure))
    late_callback = queue.enqueue(jobs.add, 1, on_success=Callback(jobs.slow_callback, timeout=1))
    in_time = queue.enqueue(jobs.nap, 0.01, job_timeout=1)
    unlimited = queue.enqueue(jobs.nap, 0.01, job_timeout=-1)

    ended = worker.run()

    assert ended.seconds < 6
    for job in (late, late_callback):
        text = str(job.latest_result().exc_string)  # type: ignore[union-attr]
        assert 'greenq.timeouts.JobTimeoutException: Task exceeded maximum timeout value (1 seconds)' in text
    assert in_time.get_status() == unlimited.get_status() == JobStatus.FINISHED
    assert jobs.noted(connection) == [
        f'failure {late.id} JobTimeoutException Task exceeded maximum timeout value (1 seconds)'
    ]


def test_bad_exceptions(worker: Runner, queue: Queue) -> None:
    names = ['SystemExit', 'KeyboardInterrupt', 'MemoryError', 'RecursionError', 'SystemError', 'GeneratorExit']
    names += ['CancelledError', 'GreenletExit', 'StopIteration']
    failing = {name: queue.enqueue(jobs.raise_named, name) for name in [*names, 'SpeechlessError']}
    neighbour = queue.enqueue(jobs.add, 1)

    worker.run()

    for name, job in failing.items():
        assert job.get_status() == JobStatus.FAILED, name
        assert name in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert neighbour.get_status() == JobStatus.FINISHED


def test_bad_exceptions_of_coroutines(worker: Runner, queue: Queue) -> None:
    names = ['ValueError', 'SystemExit', 'KeyboardInterrupt', 'MemoryError', 'CancelledError']
    failing = {name: queue.enqueue(jobs.raise_named_in_coroutine, name, job_timeout=3) for name in names}
    neighbour = queue.enqueue(jobs.async_add, 1, 1, job_timeout=3)

    worker.run()

    for name, job in failing.items():
        assert job.get_status() == JobStatus.FAILED, name
        assert name in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert neighbour.get_status() == JobStatus.FINISHED


def test_damaged_jobs(worker: Runner, queue: Queue, connection: Any) -> None:
    """What cannot be run fails with a reason; the next one runs."""
    corrupt, dataless, bad_timeout = (queue.enqueue(jobs.add, 1) for _ in range(3))
    connection.hset(corrupt.key, 'data', b'no pickle')
    connection.hdel(dataless.key, 'data')
    connection.hset(bad_timeout.key, 'timeout', 'soon')
    unknown = queue.enqueue('tests.worker.jobs.no_such_function')
    no_module = queue.enqueue('no_such_module.function')
    raising_module = queue.enqueue('tests.worker.raises_on_import.function')
    neighbour = queue.enqueue(jobs.add, 1)

    worker.run()

    reasons = {
        corrupt: 'DeserializationError',
        dataless: 'Error',
        bad_timeout: 'soon',
        unknown: 'no_such_function',
        no_module: 'no_such_module',
        raising_module: 'raised while it was imported',
    }
    for job, reason in reasons.items():
        assert connection.hget(job.key, 'status') == b'failed', reason
        assert job.id in queue.failed_job_registry, reason
        result = job.latest_result()
        assert result is not None and reason in str(result.exc_string), reason
    assert neighbour.get_status() == JobStatus.FINISHED
    assert not queue.started_job_registry.get_job_ids(cleanup=False)


def test_exception_handlers(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    """They are called in the order given, until one returns False."""
    handlers = ['tests.worker.jobs.first_handler', 'tests.worker.jobs.second_handler']
    queue.enqueue(jobs.fail, 'go on')
    worker.run(exception_handlers=handlers)
    assert jobs.noted(connection) == ['first ValueError', 'second ValueError']
    connection.delete(jobs.key('notes'))

    queue.enqueue(jobs.fail, 'stop here')
    worker.run(exception_handlers=handlers)
    assert jobs.noted(connection) == ['first ValueError']


def test_max_jobs(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    for number in range(5):
        queue.enqueue(jobs.note, number)

    worker.begin(max_jobs=3)
    assert worker.end().error is None

    assert sorted(jobs.noted(connection)) == ['0', '1', '2']
    assert len(queue) == 2


def test_max_idle_time(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    queue.enqueue(jobs.note, 'only one')
    worker.begin(max_idle_time=1)
    ended = worker.end()
    assert ended.error is None
    assert jobs.noted(connection) == ['only one']
    assert 1 <= ended.seconds < 4


@pytest.mark.slow
def test_stop_command(worker: Runner, queue: Queue, connection: redis.Redis) -> None:
    if worker.kind == 'simple':
        pytest.skip('a simple worker has no process or greenlet that it could stop')
    worker.begin()
    stopped = queue.enqueue(jobs.wait_at_gate, on_stopped=Callback(jobs.on_stopped), retry=None)
    jobs.wait_for_notes(connection, 1)
    wait_until(stopped.get_executions, description='record of the execution, which takes a gevent worker a second')
    [execution] = stopped.get_executions()
    assert execution.worker_name == worker.worker_name

    send_stop_job_command(connection, stopped.id)

    wait_until(lambda: stopped.get_status() == JobStatus.STOPPED)
    assert stopped.id in queue.failed_job_registry
    assert jobs.noted(connection) == [f'stopped {stopped.id}']
    assert not stopped.get_executions()
    next_one = queue.enqueue(jobs.add, 1)
    wait_until(lambda: next_one.get_status() == JobStatus.FINISHED)
    send_shutdown_command(connection, worker.worker_name)
    assert worker.end().error is None


def _one_at_a_time(worker: Runner) -> dict[str, Any]:
    return {'concurrency': 1} if worker.kind == 'gevent' else {}
