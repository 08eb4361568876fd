"""RQ's helper that sorts jobs by whether they still have to wait. `greenq.job.Dependency` is what users pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from greenq.job import Job

if TYPE_CHECKING:
    from redis.client import Pipeline


class Dependency:
    """A namespace, as in RQ."""

    @classmethod
    def get_jobs_with_met_dependencies(cls, jobs: Iterable[Job], pipeline: Pipeline) -> tuple[list[Job], list[Job]]:
        """Write what each job waits for; return those that can run, and those that cannot yet.

        What is written comes before what is read: a dependency that ends in between finds the jobs that wait for it.
        """
        listed = list(jobs)
        for job in listed:
            job.register_dependency(pipeline=pipeline)
        pipeline.execute()
        met: list[Job] = []
        unmet: list[Job] = []
        for job in listed:
            (met if job.dependencies_are_met() else unmet).append(job)
        return met, unmet
