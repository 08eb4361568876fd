"""Runs each job in a child that starts as a fresh interpreter, for where forking is unsafe.

The child learns what it needs from standard input, as a pickle made by its parent; it never meets a user's data there.
"""

import os
import pickle
import sys
import time
from typing import Any

from greenq.connections import put_together, taken_apart
from greenq.executions import Execution
from greenq.job import Job
from greenq.queue import Queue
from greenq.worker.fork_worker import Worker

#: Settings of a worker that its horse takes over.
_SETTINGS = (
    'default_result_ttl',
    'job_monitoring_interval',
    'log_job_description',
    'log_result_lifespan',
    'disable_default_exception_handler',
    'on_lost',
    'death_penalty_class',
    '_exc_handlers',
)

_CHILD = (
    'import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer); '
    'from greenq.worker.spawn_worker import run_horse; run_horse()'
)


class SpawnWorker(Worker):
    """RQ's spawn worker: as `Worker`, but the child is spawned, not forked."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """As for every worker; refuses what a fresh interpreter could not import, before any job is taken."""
        for obj in (type(self), self.job_class, self.queue_class, self.death_penalty_class, *self._exc_handlers):
            if getattr(obj, '__module__', None) == '__main__':
                raise ValueError(
                    f'SpawnWorker cannot use {obj!r}: objects defined in __main__ are not importable by the work horse'
                )
        pickle.dumps(self._describe())
        super().bootstrap(*args, **kwargs)

    def _describe(self) -> dict[str, Any]:
        client_class, connection_class, connection_kwargs = taken_apart(self.connection)
        kwargs = {key: value for key, value in connection_kwargs.items() if key not in ('retry', 'driver_info')}
        return {
            'worker_class': type(self),
            'client_class': client_class,
            'connection_class': connection_class,
            'connection_kwargs': kwargs,
            'name': self.name,
            'queues': self.queue_names(),
            'job_class': self.job_class,
            'queue_class': self.queue_class,
            'serializer': self._serializer_arg,
            'settings': {name: getattr(self, name) for name in _SETTINGS},
        }

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Spawns the horse in a process group of its own."""
        execution = self.execution
        assert execution is not None
        os.environ['RQ_WORKER_ID'] = self.name
        os.environ['RQ_JOB_ID'] = job.id
        os.environ['RQ_EXECUTION_ID'] = execution.id
        reader, writer = os.pipe()
        file_actions = [(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_CLOSE, writer)]
        child_pid = os.posix_spawn(
            sys.executable, [sys.executable, '-c', _CHILD], os.environ, file_actions=file_actions, setpgroup=0
        )
        os.close(reader)
        with os.fdopen(writer, 'wb') as pipe:
            pickle.dump(sys.path, pipe)
            pickle.dump((self._describe(), job.id, queue.name, execution.id), pipe)
        self._horse_pid = child_pid
        self.procline(f'Spawned {child_pid} at {time.time()}')


def run_horse() -> None:
    """What the spawned interpreter does."""
    description, job_id, queue_name, execution_id = pickle.load(sys.stdin.buffer)
    worker = _rebuild(description)
    job = worker.job_class.fetch(job_id, connection=worker.connection, serializer=worker.serializer)
    queue = worker._queue_named(queue_name)
    execution = Execution.fetch(execution_id, job_id, connection=worker.connection)
    execution.queue_name = queue_name
    execution._job = job
    worker.execution = execution
    worker.main_work_horse(job, queue)


def _rebuild(description: dict[str, Any]) -> SpawnWorker:
    connection = put_together(
        description['client_class'], description['connection_class'], description['connection_kwargs']
    )
    worker_class: type[SpawnWorker] = description['worker_class']
    worker = worker_class(
        description['queues'],
        description['name'],
        connection=connection,
        job_class=description['job_class'],
        queue_class=description['queue_class'],
        serializer=description['serializer'],
        prepare_for_work=False,
    )
    for name, value in description['settings'].items():
        setattr(worker, name, value)
    return worker
