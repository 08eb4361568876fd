"""Enqueueing many jobs in few round trips: one call of `Queue.enqueue_many`, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from greenq.callbacks import Callback
from greenq.exceptions import DuplicateJobError
from greenq.job import Job, JobStatus
from greenq.job_dependencies import expected_statuses
from greenq.job_options import NOTHING_SAID, Args, Function, JobOptions, Kwargs
from greenq.job_record import in_transaction
from greenq.store import keys, transitions
from greenq.utils import as_text, now, split_list

if TYPE_CHECKING:
    from redis.client import Pipeline

    from greenq.queue import Queue
    from greenq.rate_limit import RateLimit
    from greenq.repeat import Repeat
    from greenq.retry import Retry
    from greenq.types import JobDependencyType
    from greenq.webhook import Webhook

_JOBS_PER_CALL = 500


class EnqueueData(NamedTuple):
    """One job of an `enqueue_many` call; made by `Queue.prepare_data`."""

    func: Function
    args: Args = None
    kwargs: Kwargs = None
    timeout: float | str | None = None
    result_ttl: float | str | None = None
    ttl: float | str | None = None
    failure_ttl: float | str | None = None
    description: str | None = None
    depends_on: JobDependencyType | None = None
    job_id: str | None = None
    at_front: bool = False
    meta: dict[Any, Any] | None = None
    retry: Retry | None = None
    on_success: Callback | Callable[..., Any] | None = None
    on_failure: Callback | Callable[..., Any] | None = None
    on_stopped: Callback | Callable[..., Any] | None = None
    repeat: Repeat | None = None
    webhooks: Sequence[Webhook] | None = None
    rate_limit: RateLimit | None = None
    unique: bool = False
    on_lost: str | None = None

    def options(self, group_id: str | None = None) -> JobOptions:
        """All but the call itself."""
        if group_id is None and self[3:] == _NOTHING_SAID:
            return NOTHING_SAID
        options: dict[str, Any] = dict(zip(self._fields[3:], self[3:], strict=True))
        return JobOptions(group_id=group_id, **options)


#: What all fields but those of the call are in most calls.
_NOTHING_SAID = tuple(EnqueueData._field_defaults[name] for name in EnqueueData._fields[3:])


class BulkEnqueue:
    """The jobs of one call, with where they go. Those of a collection are built before the first is stored; an iterator
    is asked for the next ones while the server stores those before."""

    def __init__(
        self, queue: Queue, datas: Iterable[EnqueueData], pipeline: Pipeline | None, group_id: str | None
    ) -> None:
        self._queue = queue
        self._pipeline = pipeline
        self._group_id = group_id
        self._is_stream = not isinstance(datas, Collection)
        self._datas = datas
        self._options_of: dict[str, JobOptions] = {}
        self._independent: list[Job] = []
        self._dependent: list[Job] = []

    def _built(self, data: EnqueueData) -> Job:
        options = data.options(self._group_id)
        job = self._queue._created(options, data.func, data.args, data.kwargs)
        self._queue._check(job, self._pipeline, options.unique)
        if options.unique and self._pipeline is not None:
            raise ValueError(f'unique=True cannot be used with a pipeline, as for {job.id!r}: leave the pipeline out')
        # Serialized now and kept, so that what cannot be is found before anything is stored.
        _ = job.data
        if job.meta:
            job._serialize_meta()
        if job.id in self._options_of:
            raise ValueError(f'Job ID {job.id!r} appears more than once in enqueue_many(): give each job its own')
        self._options_of[job.id] = options
        return job

    def submit(self) -> list[Job]:
        """Store the jobs; returns and raises what `Queue.enqueue_many` does."""
        refused = self._submit_all(self._chunks())
        if refused:
            raise DuplicateJobError(
                f'Jobs with these IDs already exist: {", ".join(refused)}; '
                f'the other {len(self._options_of) - len(refused)} were enqueued'
            )
        unmet = [job for job in self._dependent if job._status is JobStatus.DEFERRED]
        met = [job for job in self._dependent if job._status is not JobStatus.DEFERRED]
        return self._independent + unmet + met

    def _chunks(self) -> Iterator[Sequence[Job]]:
        """The jobs in the order in which they are stored: first those that depend on nothing."""
        built: Iterable[Job] = map(self._built, self._datas)
        if not self._is_stream:
            built = list(built)
            # Raises for jobs that depend on each other in a circle.
            _dependencies_first([job for job in built if job._dependency_ids])
        begin = 0
        for job in built:
            if job._dependency_ids:
                self._dependent.append(job)
                continue
            self._independent.append(job)
            if len(self._independent) - begin == _JOBS_PER_CALL:
                yield self._independent[begin:]
                begin += _JOBS_PER_CALL
        self._dependent = _dependencies_first(self._dependent)
        if begin < len(self._independent):
            yield self._independent[begin:]
        yield from split_list(self._dependent, _JOBS_PER_CALL)

    def _submit_all(self, chunks: Iterable[Sequence[Job]]) -> list[str]:
        """Store all jobs; returns the ids of those that were refused."""
        if not self._queue.is_async:
            return [job_id for chunk in chunks for job_id in self._run_chunk(chunk)]
        if self._pipeline is not None or self._group_id is not None:
            return [job_id for chunk in chunks for job_id in self._submit_chunk(chunk)]
        queue = self._queue
        refused: list[str] = []
        under_way: tuple[Sequence[Job], Callable[[], list[str]]] | None = None
        try:
            for chunk in chunks:
                # While the server stores a chunk, the next one is put together.
                submissions = self._submissions(chunk)
                earlier, under_way = under_way, None
                if earlier is not None:
                    refused += self._note_statuses(earlier[0], earlier[1]())
                under_way = chunk, transitions.enqueue_ahead(queue.connection, queue.name, submissions)
        finally:
            if under_way is not None:
                refused += self._note_statuses(under_way[0], under_way[1]())
        return refused

    def _submit_chunk(self, jobs: Sequence[Job]) -> list[str]:
        """Store some jobs; returns the ids of those that were refused."""
        submissions = self._submissions(jobs)
        queue, pipeline = self._queue, self._pipeline
        if pipeline is not None:
            in_transaction(pipeline)
            self._join_group(jobs, pipeline)
            transitions.enqueue(pipeline, queue.name, submissions)
            statuses = expected_statuses(queue.connection, submissions, self._options_of.keys())
        else:
            with queue.connection.pipeline() as own:
                self._join_group(jobs, own)
                transitions.enqueue(own, queue.name, submissions)
                statuses = [as_text(status) for status in own.execute()[-1]]
        return self._note_statuses(jobs, statuses)

    def _submissions(self, jobs: Sequence[Job]) -> list[transitions.Submission]:
        moment = now()
        submissions = []
        for job in jobs:
            options = self._options_of[job.id]
            self._queue._adopt(job)
            job.enqueued_at = moment
            submissions.append(job.to_submission(at_front=job._goes_first(options.at_front), unique=options.unique))
        return submissions

    def _note_statuses(self, jobs: Sequence[Job], statuses: Sequence[str]) -> list[str]:
        refused = []
        for job, status in zip(jobs, statuses, strict=True):
            if status == 'duplicate':
                refused.append(job.id)
            else:
                self._queue._note_status(job, status)
        return refused

    def _run_chunk(self, jobs: Sequence[Job]) -> list[str]:
        """Run some jobs in place, one after the other; returns the ids of those that were refused."""
        self._join_group(jobs, self._queue.connection)
        refused = []
        for job in jobs:
            try:
                self._queue._submit(job, None, at_front=False, unique=self._options_of[job.id].unique)
            except DuplicateJobError:
                refused.append(job.id)
        return refused

    def _join_group(self, jobs: Sequence[Job], client: Any) -> None:
        if self._group_id is None:
            return
        client.sadd(keys.group(self._group_id), *(job.id for job in jobs))
        client.sadd(keys.groups(), self._group_id)


def _dependencies_first(jobs: list[Job]) -> list[Job]:
    """The same jobs, none before one that it depends on: a job that is not stored yet would count as finished."""
    if not jobs:
        return []
    from graphlib import CycleError, TopologicalSorter

    by_id = {job.id: job for job in jobs}
    graph = {job.id: [parent for parent in job._dependency_ids if parent in by_id] for job in jobs}
    try:
        return [by_id[job_id] for job_id in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise ValueError(f'These jobs depend on each other in a circle: {", ".join(error.args[1])}') from None
