"""RQ and greenq as two values of one parameter."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import redis
import rq

import greenq

WORKER = 'worker-1'


class Package:
    """One of the two; `run` is its simple worker on a queue until that is empty."""

    def __init__(self, top: ModuleType) -> None:
        self.name = top.__name__
        self.top: Any = top
        self.command, self.group, self.scheduler, self.suspension = map(
            self._module, ('command', 'group', 'scheduler', 'suspension')
        )
        self.Job = self._module('job').Job
        self.Dependency = self._module('job').Dependency
        self.Worker = self._module('worker').Worker
        self.SimpleWorker = self._module('worker').SimpleWorker

    def _module(self, name: str) -> Any:
        return importlib.import_module(f'{self.name}.{name}')

    def __repr__(self) -> str:
        return self.name

    def queue(self, connection: redis.Redis, name: str = 'default') -> Any:
        return self.top.Queue(name, connection=connection)

    def fetch(self, connection: redis.Redis, job_id: str) -> Any:
        return self.Job.fetch(job_id, connection=connection)

    def run(self, connection: redis.Redis, *queues: str, **options: Any) -> None:
        """Works off some queues."""
        worker = self.SimpleWorker(list(queues or ['default']), name=WORKER, connection=connection)
        worker.work(burst=True, **options)
        connection.delete(worker.key)


RQ = Package(rq)
GREENQ = Package(greenq)
BOTH = [RQ, GREENQ]
EACH_WAY = [(RQ, GREENQ), (GREENQ, RQ)]
