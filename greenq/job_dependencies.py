"""What a job waits for: how its caller says it, and whether it has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Self

from greenq.job_record import JobRecord
from greenq.store import keys, transitions
from greenq.store.states import JobStatus
from greenq.types import JobDependencyType
from greenq.utils import as_text, current_timestamp, ensure_job_list

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.job import Job


class Dependency:
    """What a job waits for: jobs or their ids, and on which terms.

    With `allow_failure` it also runs after jobs that failed; with `enqueue_at_front` it then goes first.
    """

    def __init__(
        self,
        jobs: Job | str | Iterable[Job | str],
        allow_failure: bool = False,
        enqueue_at_front: bool = False,
    ) -> None:
        dependencies = ensure_job_list(jobs)
        if not dependencies:
            raise ValueError('jobs: cannot be empty.')
        for job in dependencies:
            if not isinstance(job, (JobRecord, str)):
                raise ValueError(
                    f'jobs: must contain objects of type Job and/or strings representing Job ids, not {job!r}'
                )
        self.dependencies: Sequence[Job | str] = dependencies
        self.allow_failure = allow_failure
        self.enqueue_at_front = enqueue_at_front


def expected_statuses(
    connection: Redis, submissions: Sequence[transitions.Submission], pending: Collection[str] = ()
) -> list[str]:
    """What submissions in a pipeline will most likely end in; `pending` are ids that it is about to store."""
    parents = list({job_id for submission in submissions for job_id in submission.dependency_ids})
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in parents:
            pipeline.hget(keys.job(job_id), 'status')
        status_of = dict(zip(parents, pipeline.execute() if parents else (), strict=True))
    status_of |= dict.fromkeys(pending, b'queued')
    expected = []
    for submission in submissions:
        met = {None, b'finished', b'failed'} if submission.allow_failure else {None, b'finished'}
        is_free = met.issuperset(status_of[job_id] for job_id in submission.dependency_ids)
        expected.append('queued' if is_free else 'deferred')
    return expected


class JobDependencies(JobRecord):
    """The jobs that a job waits for, and those that wait for it."""

    _cached_attributes = JobRecord._cached_attributes | {'_dependency'}

    def process_dependencies(self, depends_on: JobDependencyType) -> None:
        """Note what this job waits for. The terms of one `Dependency` hold for all; ValueError for other objects."""
        ids: list[str] = []
        for item in ensure_job_list(depends_on):
            if isinstance(item, Dependency):
                self.enqueue_at_front = self.enqueue_at_front or item.enqueue_at_front
                self.allow_dependency_failures = self.allow_dependency_failures or item.allow_failure
            elif not isinstance(item, (JobRecord, str)):
                raise ValueError(f'depends_on items must be Job objects or string job IDs, got {type(item).__name__}')
            listed = item.dependencies if isinstance(item, Dependency) else [item]
            ids += (job.id if isinstance(job, JobRecord) else job for job in listed)
        self._dependency_ids = ids

    def _goes_first(self, at_front: bool) -> bool:
        """Whether it goes to the front: now, or, which is noted on it, when what it waits for has finished."""
        if self._dependency_ids and (at_front or self.enqueue_at_front):
            self.enqueue_at_front = True
            return True
        return at_front

    @property
    def _dependency_id(self) -> str | None:
        """Other packages read it."""
        return self._dependency_ids[0] if self._dependency_ids else None

    @property
    def dependency(self) -> Self | None:
        """The first job that this one waits for, fetched once; NoSuchJobError if it is gone."""
        dependency_id = self._dependency_id
        if dependency_id is None:
            return None
        if '_dependency' not in self.__dict__:
            self._dependency = self.fetch(dependency_id, connection=self.connection, serializer=self.serializer)
        return self._dependency

    @property
    def dependent_ids(self) -> list[str]:
        """Ids of the jobs that wait for this one."""
        return [as_text(member) for member in self.connection.smembers(self.dependents_key)]

    @property
    def dependency_ids(self) -> list[str]:
        """Ids of the jobs that this one waits for, as Redis has them."""
        return [as_text(member) for member in self.connection.smembers(self.dependencies_key)]

    def fetch_dependencies(self, watch: bool = False, pipeline: Pipeline | None = None) -> list[Self]:
        """The jobs that this one waits for, without those that are gone; if asked, WATCHed by the pipeline."""
        if watch and self._dependency_ids:
            self._client(pipeline).watch(*map(self.key_for, self._dependency_ids))
        found = self.fetch_many(self._dependency_ids, connection=self.connection, serializer=self.serializer)
        return [job for job in found if job is not None]

    def register_dependency(self, pipeline: Pipeline | None = None) -> None:
        """Write what this job waits for, and that it waits. `Queue.enqueue_job` does all that in one step."""
        client = self._client(pipeline)
        client.zadd(keys.registry('deferred', self.origin), {self.id: current_timestamp()})
        for dependency_id in self._dependency_ids:
            client.sadd(self.dependents_key_for(dependency_id), self.id)
            client.sadd(self.dependencies_key, dependency_id)

    def dependencies_are_met(
        self,
        parent_job: JobRecord | None = None,
        pipeline: Pipeline | None = None,
        exclude_job_id: str | None = None,
        refresh_job_status: bool = True,
    ) -> bool:
        """Whether all that this job waits for has finished, or is gone, or has failed if that is allowed.

        `parent_job` has just ended: only being canceled, stopped, or failed when that is not allowed counts
        against it. `exclude_job_id` is not looked at. A pipeline WATCHes the dependencies.
        """
        reader = self._client(pipeline)
        if pipeline is not None and self._dependency_ids:
            reader.watch(*map(self.key_for, self._dependency_ids))
        ids = {as_text(member) for member in reader.smembers(self.dependencies_key)}
        ids.discard(exclude_job_id or '')
        if parent_job is not None and parent_job.id != exclude_job_id:
            ids.discard(parent_job.id)
            if not self._lets_run(parent_job.get_status(refresh=refresh_job_status)):
                return False
        with self.connection.pipeline(transaction=False) as statuses:
            for dependency_id in ids:
                statuses.hget(self.key_for(dependency_id), 'status')
            found = [JobStatus(as_text(status)) for status in statuses.execute() if status]
        return all(status in self._met_statuses() for status in found)

    def _met_statuses(self) -> set[JobStatus]:
        return {JobStatus.FINISHED, JobStatus.FAILED} if self.allow_dependency_failures else {JobStatus.FINISHED}

    def _lets_run(self, parent_status: JobStatus) -> bool:
        ended_badly = {JobStatus.CANCELED, JobStatus.STOPPED, JobStatus.FAILED}
        return parent_status not in ended_badly or parent_status in self._met_statuses()
