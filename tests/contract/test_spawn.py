"""The essentials with a spawn worker, in one go; the whole contract holds for it too, but takes long (`-m slow`)."""

from __future__ import annotations

import redis

from greenq import Callback, Queue, Retry
from greenq.job import JobStatus
from tests.worker import jobs
from tests.worker.runner import Runners


def test_a_spawn_worker(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    good = queue.enqueue(jobs.add, 1, on_success=Callback(jobs.on_success))
    bad = queue.enqueue(jobs.fail, on_failure=Callback(jobs.on_failure))
    retried = queue.enqueue(jobs.fail_times, 1, retry=Retry(max=1))
    exiting = queue.enqueue(jobs.raise_named, 'SystemExit')
    killed = queue.enqueue(jobs.kill_me)
    coroutine = queue.enqueue(jobs.async_who)

    runners('spawn').run(exception_handlers=['tests.worker.jobs.first_handler'])

    assert good.return_value() == 2
    assert retried.return_value() == 2
    assert coroutine.return_value() == [coroutine.id] * 3
    assert [job.get_status() for job in (bad, exiting, killed)] == [JobStatus.FAILED] * 3
    assert 'Work-horse terminated unexpectedly' in str(killed.latest_result().exc_string)  # type: ignore[union-attr]
    assert sorted(jobs.noted(connection)) == [
        f'failure {bad.id} ValueError as told',
        'first SystemExit',
        'first ValueError',
        'first ValueError',
        f'success {good.id} 2',
    ]
