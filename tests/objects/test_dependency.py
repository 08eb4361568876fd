"""RQ's helper that sorts jobs by whether they still have to wait."""

from __future__ import annotations

import redis

from greenq.dependency import Dependency
from greenq.job import Job, JobStatus


def test_jobs_are_sorted_by_whether_they_can_run(connection: redis.Redis) -> None:
    done = Job.create(len, id='done', status=JobStatus.FINISHED, connection=connection)
    running = Job.create(len, id='running', status=JobStatus.STARTED, connection=connection)
    for job in (done, running):
        job.save()
    can_run = Job.create(len, depends_on=['done', 'gone'], connection=connection)
    must_wait = Job.create(len, depends_on=['done', 'running'], connection=connection)
    with connection.pipeline() as pipeline:
        sorted_jobs = Dependency.get_jobs_with_met_dependencies([must_wait, can_run], pipeline)
    assert sorted_jobs == ([can_run], [must_wait])
    assert running.dependent_ids == [must_wait.id]
    assert set(done.dependent_ids) == {can_run.id, must_wait.id}
