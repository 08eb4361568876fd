"""The horse of a forking worker leads a process group of its own as soon as anybody can know it."""

from __future__ import annotations

import subprocess
import sys

import redis

from greenq import Queue
from tests.helpers import ROOT

# In a process, and a group, of its own: what this is about would kill the tests with the worker.
_WORKER = """
import os
from greenq import Worker
from greenq.connections import connect

class Watching(Worker):
    def fork_work_horse(self, job, queue):
        super().fork_work_horse(job, queue)
        print('own' if os.getpgid(self.horse_pid) == self.horse_pid else 'shared')

Watching(['default'], connection=connect()).work(burst=True, logging_level='ERROR')
"""


def test_a_stop_never_finds_the_horse_in_the_group_of_the_worker(connection: redis.Redis) -> None:
    for _ in range(20):
        Queue(connection=connection).enqueue('tests.worker.jobs.nothing')
    done = subprocess.run(
        [sys.executable, '-c', _WORKER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['own'] * 20
