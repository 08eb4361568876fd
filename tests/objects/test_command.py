"""Commands to workers, worker registration, and what is left in RQ's intermediate list."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from greenq import command
from greenq.exceptions import InvalidJobOperation, NoSuchJobError
from greenq.executions import Execution
from greenq.job import JobStatus
from greenq.job_lifecycle import call_exception_handlers, format_exc_info
from greenq.maintenance import clean_intermediate_queue
from greenq.queue import Queue
from greenq.worker_registration import clean_worker_registry, get_keys, register, unregister


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


@pytest.fixture
def channel(connection: redis.Redis) -> Iterator[Any]:
    """What arrives for worker `w`."""
    with connection.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe('rq:pubsub:w')
        assert pubsub.get_message(timeout=5)['type'] == 'subscribe'
        yield lambda: json.loads(pubsub.get_message(timeout=5)['data'])


def greet() -> str:
    return 'Hello'


class Recorder:
    """What a command does to a worker, without one."""

    redis_workers_keys = 'rq:workers'
    log = logging.getLogger('test')
    horse_pid = 0

    def __init__(self, connection: redis.Redis, key: str = 'rq:worker:w') -> None:
        self.connection = connection
        self.key = key
        self.done: list[Any] = []

    def queue_names(self) -> list[str]:
        return ['work', 'low']

    def kill_horse(self) -> None:
        self.done.append('kill')

    def request_stop_job(self, job_id: str) -> None:
        self.done.append(('job', job_id))

    def request_stop_execution(self, execution_id: str) -> None:
        self.done.append(('execution', execution_id))


class TestSending:
    def test_shutdown_and_kill(self, connection: redis.Redis, channel: Any) -> None:
        command.send_shutdown_command(connection, 'w')
        assert channel() == {'command': 'shutdown'}
        command.send_kill_horse_command(None, 'w')
        assert channel() == {'command': 'kill-horse'}
        assert command.send_command(connection, 'w', 'own', answer=42) == 1
        assert channel() == {'command': 'own', 'answer': 42}
        assert command.send_command(connection, 'nobody', 'own') == 0

    def test_stop_job(self, connection: redis.Redis, queue: Queue, channel: Any) -> None:
        job = queue.enqueue(greet)
        with pytest.raises(InvalidJobOperation, match=f'Job {job.id} is not currently executing'):
            command.send_stop_job_command(connection, job.id)
        with pytest.raises(NoSuchJobError):
            command.send_stop_job_command(connection, 'nobody')
        job.worker_name = 'w'
        job.save()
        command.send_stop_job_command(connection, job.id)
        assert channel() == {'command': 'stop-job', 'job_id': job.id}

    def test_stop_execution(self, connection: redis.Redis, queue: Queue, channel: Any) -> None:
        job = queue.enqueue(greet)
        with pytest.raises(InvalidJobOperation, match=f'Execution e of job {job.id} is not running'):
            command.send_stop_execution_command(connection, job.id, 'e')
        with connection.pipeline() as pipeline:
            execution = Execution.create(job, 90, pipeline, worker_name='w')
            pipeline.execute()
        command.send_stop_execution_command(connection, job.id, execution.id)
        assert channel() == {'command': 'stop-execution', 'job_id': job.id, 'execution_id': execution.id}


class TestReceiving:
    def test_payloads(self) -> None:
        assert command.parse_payload({'data': b'{"command": "shutdown"}'}) == {'command': 'shutdown'}
        for data in (b'[]', b'{}', b'nonsense', b'{"command": 1}'):
            with pytest.raises(ValueError, match=r'Not a command|Expecting value'):
                command.parse_payload({'data': data})

    def test_jobs_and_executions_are_stopped_by_the_worker(self, connection: redis.Redis) -> None:
        worker: Any = Recorder(connection)
        command.handle_command(worker, {'command': 'stop-job', 'job_id': 'a'})
        command.handle_command(worker, {'command': 'stop-execution', 'job_id': 'a', 'execution_id': 'e'})
        assert worker.done == [('job', 'a'), ('execution', 'e')]

    def test_a_horse_is_killed_if_there_is_one(self, connection: redis.Redis) -> None:
        worker: Any = Recorder(connection)
        command.handle_command(worker, {'command': 'kill-horse'})
        assert worker.done == []
        worker.horse_pid = 42
        command.handle_command(worker, {'command': 'kill-horse'})
        assert worker.done == ['kill']

    def test_shutdown_is_a_sigint(self, connection: redis.Redis) -> None:
        worker: Any = Recorder(connection)
        with pytest.raises(KeyboardInterrupt):
            command.handle_command(worker, {'command': 'shutdown'})
            signal.pause()

    def test_unknown_commands_are_ignored(self, connection: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
        worker: Any = Recorder(connection)
        command.handle_command(worker, {'command': 'dance'})
        assert "Unknown command 'dance' ignored" in caplog.text


class TestWorkerRegistration:
    def test_workers_come_and_go(self, connection: redis.Redis, queue: Queue) -> None:
        worker: Any = Recorder(connection)
        register(worker)
        assert get_keys(queue) == get_keys(connection=connection) == {'rq:worker:w'}
        assert get_keys(Queue('other', connection=connection)) == set()
        unregister(worker)
        assert get_keys(connection=connection) == get_keys(queue) == set()
        with pytest.raises(ValueError, match='argument is required'):
            get_keys()

    def test_in_a_pipeline(self, connection: redis.Redis, queue: Queue) -> None:
        worker: Any = Recorder(connection)
        with connection.pipeline() as pipeline:
            register(worker, pipeline=pipeline)
            assert get_keys(queue) == set()
            pipeline.execute()
            unregister(worker, pipeline=pipeline)
            assert get_keys(queue) == {'rq:worker:w'}
            pipeline.execute()
        assert get_keys(queue) == set()

    def test_workers_without_a_record_are_forgotten(self, connection: redis.Redis, queue: Queue) -> None:
        live: Any = Recorder(connection, key='rq:worker:live')
        register(live)
        connection.hset(live.key, 'state', 'idle')
        for number in range(3):
            dead: Any = Recorder(connection, key=f'rq:worker:dead-{number}')
            register(dead)
        clean_worker_registry(queue)
        assert get_keys(queue) == get_keys(connection=connection) == {'rq:worker:live'}
        clean_worker_registry(queue)
        assert get_keys(queue) == {'rq:worker:live'}


class TestIntermediateQueue:
    def park(self, queue: Queue) -> str:
        """A job that an RQ worker dequeued before it died."""
        job_id = queue.enqueue(greet).id
        Queue.dequeue_any([queue], None, queue.connection)
        return job_id

    def age(self, queue: Queue, job_id: str, seconds: float) -> None:
        queue.connection.set(queue.intermediate_queue.get_first_seen_key(job_id), time.time() - seconds)

    def test_first_seen(self, queue: Queue) -> None:
        intermediate = queue.intermediate_queue
        assert intermediate.key == queue.intermediate_queue_key == 'rq:queue:work:intermediate'
        assert intermediate.get_first_seen('a') is None
        assert not intermediate.should_be_cleaned_up('a')
        assert intermediate.set_first_seen('a')
        assert not intermediate.set_first_seen('a')
        seen = intermediate.get_first_seen('a')
        assert seen is not None
        assert abs(seen.timestamp() - time.time()) < 5
        assert not intermediate.should_be_cleaned_up('a')
        self.age(queue, 'a', 61)
        assert intermediate.should_be_cleaned_up('a')

    def test_a_job_that_never_began_goes_back_to_the_front(self, queue: Queue) -> None:
        lost = self.park(queue)
        waiting = queue.enqueue(greet)
        queue.intermediate_queue.cleanup(None, queue)
        assert queue.intermediate_queue.get_job_ids() == [lost]
        self.age(queue, lost, 61)
        queue.intermediate_queue.cleanup(None, queue)
        assert queue.intermediate_queue.get_job_ids() == []
        assert queue.job_ids == [lost, waiting.id]
        assert queue.intermediate_queue.get_first_seen(lost) is None

    def test_what_runs_is_left_alone(self, queue: Queue, connection: redis.Redis) -> None:
        job_id = self.park(queue)
        job = queue.fetch_job(job_id)
        assert job is not None
        with connection.pipeline() as pipeline:
            Execution.create(job, 90, pipeline)
            pipeline.execute()
        self.age(queue, job_id, 61)
        queue.intermediate_queue.cleanup(None, queue)
        assert queue.intermediate_queue.get_job_ids() == [job_id]

    def test_what_has_ended_or_is_gone_is_dropped(self, queue: Queue, connection: redis.Redis) -> None:
        finished, gone, started = self.park(queue), self.park(queue), self.park(queue)
        connection.hset(f'rq:job:{finished}', 'status', JobStatus.FINISHED.value)
        connection.hset(f'rq:job:{started}', 'status', JobStatus.STARTED.value)
        connection.delete(f'rq:job:{gone}')
        for job_id in (finished, started):
            self.age(queue, job_id, 61)
        queue.intermediate_queue.cleanup(None, queue)
        assert queue.intermediate_queue.get_job_ids() == [started]
        assert queue.job_ids == []
        queue.intermediate_queue.remove(started)
        assert queue.intermediate_queue.get_job_ids() == []

    def test_the_older_function(self, queue: Queue, connection: redis.Redis) -> None:
        lost = self.park(queue)
        self.age(queue, lost, 61)
        with pytest.deprecated_call(match='clean_intermediate_queue is deprecated'):
            clean_intermediate_queue(None, queue)  # type: ignore[arg-type]
        assert queue.job_ids == [lost]


class TestLifecycle:
    def test_handlers_are_called_until_one_says_stop(self, queue: Queue) -> None:
        called: list[Any] = []

        def handler(verdict: Any) -> Any:
            def handle(*args: Any) -> Any:
                called.append((verdict, args))
                return verdict

            return handle

        job = queue.enqueue(greet)
        handlers = [handler(verdict) for verdict in (None, True, False, None)]
        call_exception_handlers(handlers, job, LookupError, None, None)
        assert [verdict for verdict, _ in called] == [None, True, False]
        assert called[0][1] == (job, LookupError, None, None)

    def test_an_exception_that_cannot_say_what_it_is(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise LookupError

        try:
            raise Mute
        except Mute as error:
            text = format_exc_info((type(error), error, error.__traceback__))
        assert 'raise Mute' in text
        assert 'Mute' in text.splitlines()[-1]
