"""A process that does what it is told with one package, RQ or greenq; both have the same face here, in plain data.

`python -m tests.interop.rq2_agent PACKAGE URL`: each line of its input is an order, each line of its output the reply.
Imports nothing but the package and redis-py, as the interpreter of an old RQ has nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from datetime import timedelta
from typing import Any

import redis

from tests.interop import rq2_jobs

REGISTRIES = ('started', 'finished', 'failed', 'deferred', 'scheduled', 'canceled')


class Agent:
    """One method for each order."""

    def __init__(self, package: str, url: str) -> None:
        self._package = package
        self._connection = redis.Redis.from_url(url)
        self._top: Any = importlib.import_module(package)

    def _module(self, name: str) -> Any:
        return importlib.import_module(f'{self._package}.{name}')

    def _queue(self, name: str = 'default') -> Any:
        return self._top.Queue(name, connection=self._connection)

    def _job(self, job_id: str) -> Any:
        return self._module('job').Job.fetch(job_id, connection=self._connection)

    def version(self) -> str:
        """The package's version."""
        return str(importlib.import_module(self._package).__version__)

    # ---- producing ----

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        made = dict(options)
        for name in ('on_success', 'on_failure', 'on_stopped'):
            if name in made:
                made[name] = self._top.Callback(getattr(rq2_jobs, made[name]), timeout=20)
        for name, kind in (('retry', self._top.Retry), ('repeat', self._top.Repeat)):
            if name in made:
                made[name] = kind(**made[name])
        if isinstance(made.get('depends_on'), dict):
            made['depends_on'] = self._module('job').Dependency(**made['depends_on'])
        return made

    def enqueue(self, function: str, *args: Any, queue: str = 'default', **options: Any) -> str:
        """The id of a new job that waits in a queue."""
        made = self._options(options)
        return str(self._queue(queue).enqueue(getattr(rq2_jobs, function), *args, **made).id)

    def enqueue_in(self, seconds: float, function: str, *args: Any, **options: Any) -> str:
        """The id of a new job that is due in some seconds."""
        due, made = timedelta(seconds=seconds), self._options(options)
        return str(self._queue().enqueue_in(due, getattr(rq2_jobs, function), *args, **made).id)

    def enqueue_retry_as_argument(self, maximum: int) -> str:
        """The id of a new job whose argument is an object of the package."""
        return str(self._queue().enqueue(rq2_jobs.kind_of, self._top.Retry(max=maximum)).id)

    def enqueue_group(self, count: int) -> str:
        """The name of a new group of jobs."""
        group = self._module('group').Group.create(connection=self._connection)
        queue = self._queue()
        group.enqueue_many(queue, [queue.prepare_data(rq2_jobs.add, (number,)) for number in range(count)])
        return str(group.name)

    def cancel(self, job_id: str, **options: Any) -> None:
        """Cancels a job."""
        self._job(job_id).cancel(**options)

    def delete(self, job_id: str) -> None:
        """Deletes a job."""
        self._job(job_id).delete()

    def requeue(self, job_id: str) -> None:
        """Requeues a failed job."""
        self._job(job_id).requeue()

    # ---- working ----

    def work(self, *queues: str, kind: str = 'SimpleWorker', name: str, **options: Any) -> list[Any]:
        """Works the queues off; returns what ran in this process."""
        rq2_jobs.calls.clear()
        worker_class = getattr(self._module('worker'), kind)
        worker = worker_class(list(queues or ['default']), name=name, connection=self._connection)
        worker.work(burst=True, **options)
        self._connection.delete(worker.key)
        return list(rq2_jobs.calls)

    # ---- reading ----

    def read_job(self, job_id: str) -> dict[str, Any]:
        """All that a producer reads of a job, but times."""
        job = self._job(job_id)
        results = job.results()
        return {
            'status': job.get_status().value,
            'call': [job.func_name, [_plain(value) for value in job.args], job.kwargs],
            'origin': job.origin,
            'description': job.description,
            'meta': job.meta,
            'timeouts': [job.timeout, job.result_ttl, job.failure_ttl, job.ttl],
            'worker': job.worker_name,
            'has_times': [bool(job.enqueued_at), bool(job.started_at), bool(job.ended_at)],
            'retries': [job.retries_left, job.retry_intervals],
            'repeats': [job.repeats_left, job.repeat_intervals],
            'callbacks': [job._success_callback_name, job._failure_callback_name, job._stopped_callback_name],
            'dependencies': sorted(job._dependency_ids),
            'results': [[result.type.name, _plain(result.return_value)] for result in results],
            'last_lines': [(result.exc_string or '').strip().splitlines()[-1:] for result in results],
            'value': _plain(job.return_value()),
        }

    def read_registries(self, queue: str = 'default') -> dict[str, list[str]]:
        """The ids in a queue and in each of its registries that are not empty."""
        of_queue = self._queue(queue)
        found = {name: getattr(of_queue, f'{name}_job_registry').get_job_ids() for name in REGISTRIES}
        found['queue'] = of_queue.job_ids
        return {name: sorted(ids) for name, ids in found.items() if ids}

    def read_group(self, name: str) -> dict[str, str]:
        """Job id -> status of a group."""
        group = self._module('group').Group.fetch(name, self._connection)
        return {job.id: job.get_status().value for job in group.get_jobs()}

    def read_queues(self) -> list[str]:
        """The names of all queues."""
        return sorted(queue.name for queue in self._top.Queue.all(self._connection))

    def read_workers(self) -> dict[str, Any]:
        """Name -> state, queues, pid, counts of each worker."""
        return {
            worker.name: [
                worker.get_state(),
                worker.queue_names(),
                worker.pid,
                worker.successful_job_count,
                worker.failed_job_count,
            ]
            for worker in self._top.Worker.all(connection=self._connection)
        }

    def read_executions(self, job_id: str) -> list[str]:
        """The execution ids of a job that runs."""
        return [execution.id for execution in self._job(job_id).get_executions()]

    # ---- commanding ----

    def stop_job(self, job_id: str) -> None:
        """Has a job stopped."""
        self._module('command').send_stop_job_command(self._connection, job_id)

    def shut_down(self, worker: str) -> None:
        """Has a worker end."""
        self._module('command').send_shutdown_command(self._connection, worker)

    def suspend(self) -> None:
        """Suspends all workers."""
        self._module('suspension').suspend(self._connection)

    def resume(self) -> None:
        """Ends a suspension."""
        self._module('suspension').resume(self._connection)

    def is_suspended(self) -> bool:
        """Whether the workers are suspended."""
        return bool(self._module('suspension').is_suspended(self._connection))

    def clean(self, queue: str = 'default') -> None:
        """Cleans the registries of a queue, as a worker's maintenance does."""
        self._module('registry').clean_registries(self._queue(queue))


def _plain(value: Any) -> Any:
    """A Retry as the name of its package and class, anything else as it is."""
    kind = type(value)
    return f'{kind.__module__.partition(".")[0]}.{kind.__name__}' if kind.__name__ == 'Retry' else value


def main(package: str, url: str) -> None:
    """Carries out orders until its input ends."""
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    agent = Agent(package, url)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            reply = json.dumps({'value': getattr(agent, order['do'])(*order['args'], **order['options'])})
        except BaseException:
            reply = json.dumps({'error': traceback.format_exc()})
        print(reply, file=replies)


if __name__ == '__main__':
    main(*sys.argv[1:])
