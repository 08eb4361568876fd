"""Classes that users make of greenq's; each notes what reaches it."""

from __future__ import annotations

from typing import Any

from greenq import Queue, SimpleWorker, Worker
from greenq.executions import Execution
from greenq.job import Job
from greenq.worker import GeventWorker
from tests.worker.jobs import note


class CustomJob(Job):
    """Says so when it is run."""

    def perform(self) -> Any:
        note(f'custom {self.id}')
        return super().perform()


class CustomQueue(Queue):
    """A queue class of a user's."""


class Overrides:
    """Overrides what Sentry, frappe, CKAN and others override or patch."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        note(f'execute {job.id} {queue.name}')
        super().execute_job(job, queue)  # type: ignore[misc]

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        note(f'perform {job.id}')
        done: bool = super().perform_job(job, queue, execution)  # type: ignore[misc]
        return done

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        note(f'exception {job.id} {exc_info[0].__name__}')
        super().handle_exception(job, *exc_info)  # type: ignore[misc]

    def handle_job_success(self, job: Job, queue: Queue, *args: Any, **kwargs: Any) -> None:
        note(f'success {job.id}')
        super().handle_job_success(job, queue, *args, **kwargs)  # type: ignore[misc]

    def handle_job_failure(self, job: Job, queue: Queue, *args: Any, **kwargs: Any) -> None:
        note(f'failure {job.id}')
        super().handle_job_failure(job, queue, *args, **kwargs)  # type: ignore[misc]


class CustomSimpleWorker(Overrides, SimpleWorker):
    pass


class CustomForkWorker(Overrides, Worker):
    pass


class CustomGeventWorker(Overrides, GeventWorker):
    pass


class OwnPerformWorker(GeventWorker):
    """Replaces how a job is run, as RQ's documentation shows for one job a time."""

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        job.meta['performed by'] = 'OwnPerformWorker'
        job.save_meta()
        return super().perform_job(job, queue, execution)


class RaisingHandlerWorker(GeventWorker):
    """Its hooks are broken."""

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        raise LookupError('a broken handler')


class RaisingWebhookWorker(GeventWorker):
    """Cannot tell anybody of an outcome."""

    def send_webhooks(self, *args: Any, **kwargs: Any) -> None:
        raise LookupError('a broken webhook')
