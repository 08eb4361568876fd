"""Commands over the worker's channel, through whatever happens to the subscription."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from greenq import Queue, SimpleWorker, Worker
from greenq.command import send_command
from greenq.connections import worker_connection
from greenq.executions import Execution
from greenq.job import Job, JobStatus
from greenq.store import keys
from greenq.worker.control import Control
from tests.helpers import wait_until


@pytest.fixture
def received() -> list[Any]:
    return []


@pytest.fixture
def control(connection: redis.Redis, received: list[Any]) -> Iterator[Control]:
    def handle(message: dict[str, Any]) -> None:
        received.append(json.loads(message['data']))

    client = worker_connection(connection, max_connections=1, blocking=True)
    control = Control(client, keys.channel('w'), handle)
    control.start()
    yield control
    control.stop()
    client.close()


def test_commands_arrive_in_order(control: Control, connection: redis.Redis, received: list[Any]) -> None:
    for number in range(10):
        assert send_command(connection, 'w', 'count', number=number) == 1
    wait_until(lambda: len(received) == 10)
    assert [item['number'] for item in received] == list(range(10))


def test_it_subscribes_again(control: Control, connection: Any, received: list[Any]) -> None:
    for _ in range(2):
        received.clear()
        connection.client_kill_filter(_type='pubsub')
        wait_until(lambda: send_command(connection, 'w', 'again') == 1)
        wait_until(lambda: received)


def test_what_cannot_be_carried_out_ends_nothing(
    control: Control, connection: redis.Redis, received: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    connection.publish(keys.channel('w'), b'\xff no JSON')
    send_command(connection, 'w', 'fine')
    wait_until(lambda: received)
    assert received == [{'command': 'fine'}]
    assert 'cannot carry out' in caplog.text


def test_stopping_ends_the_thread_and_the_subscription(control: Control, connection: Any) -> None:
    control.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == 'greenq-control']
    wait_until(lambda: send_command(connection, 'w', 'anybody?') == 0)


def test_a_worker_ignores_what_it_does_not_know(connection: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    worker = SimpleWorker(['default'], connection=connection)
    for data in (b'{"command": "dance"}', b'{"command": "stop-job", "job_id": "x"}', b'{"command": "stop-execution"}'):
        worker.handle_payload({'type': 'message', 'data': data})
    assert "Unknown command 'dance' ignored" in caplog.text
    assert 'Not working on job x' in caplog.text
    for data in (b'[]', b'{}', b'nonsense'):
        with pytest.raises(ValueError):
            worker.handle_payload({'type': 'message', 'data': data})


class _StoppedBeforeItsHorse(Worker):
    """Gets the command between the claim, by which the job counts as started, and the fork."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        self.request_stop_job(job.id)
        super().fork_work_horse(job, queue)


def test_a_stop_may_come_before_the_horse(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue(time.sleep, 60)
    _StoppedBeforeItsHorse(['default'], connection=connection).work(burst=True)
    assert job.get_status() == JobStatus.STOPPED


def test_a_stop_may_overtake_the_reply_that_hands_the_job_over(connection: redis.Redis) -> None:
    worker = SimpleWorker(['default'], connection=connection)
    command = threading.Thread(target=worker.request_stop_job, args=('j',))
    command.start()
    worker.execution = Execution('e', 'j', connection)
    command.join()
    assert worker._stopped_job_id == 'j'
