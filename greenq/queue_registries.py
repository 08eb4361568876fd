"""The registries beside a queue, who cleans them, and who enqueues what is due."""

from __future__ import annotations

from typing import TypeVar

from greenq.queue_record import QueueRecord
from greenq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ReadyJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from greenq.store import keys
from greenq.utils import as_text

_R = TypeVar('_R', bound=BaseRegistry)

_MAINTENANCE_LOCK_SECONDS = 899


class QueueRegistries(QueueRecord):
    """Where the jobs of a queue are when they do not wait in it."""

    def _registry(self, kind: type[_R]) -> _R:
        return kind(
            self.name,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        """The jobs that run."""
        return self._registry(StartedJobRegistry)

    @property
    def finished_job_registry(self) -> FinishedJobRegistry:
        """The jobs that succeeded."""
        return self._registry(FinishedJobRegistry)

    @property
    def failed_job_registry(self) -> FailedJobRegistry:
        """The jobs that failed or were stopped."""
        return self._registry(FailedJobRegistry)

    @property
    def deferred_job_registry(self) -> DeferredJobRegistry:
        """The jobs that wait for others."""
        return self._registry(DeferredJobRegistry)

    @property
    def ready_job_registry(self) -> ReadyJobRegistry:
        """The jobs that an RQ worker is about to enqueue."""
        return self._registry(ReadyJobRegistry)

    @property
    def scheduled_job_registry(self) -> ScheduledJobRegistry:
        """The jobs that wait for their time."""
        return self._registry(ScheduledJobRegistry)

    @property
    def canceled_job_registry(self) -> CanceledJobRegistry:
        """The jobs that were canceled."""
        return self._registry(CanceledJobRegistry)

    @property
    def registry_cleaning_key(self) -> str:
        """The Redis key of the maintenance lock."""
        return keys.clean_registries(self.name)

    def acquire_maintenance_lock(self) -> bool:
        """Whether the caller is the one to clean this queue's registries, for the next 15 minutes."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=_MAINTENANCE_LOCK_SECONDS))

    def release_maintenance_lock(self) -> None:
        """Let others clean this queue's registries again."""
        self.connection.delete(self.registry_cleaning_key)

    @property
    def scheduler_pid(self) -> int | None:
        """The process that enqueues this queue's scheduled jobs, on whichever host; None if there is none."""
        name = self.connection.get(keys.scheduler_lock(self.name))
        pid = None if name is None else self.connection.hget(keys.scheduler(as_text(name)), 'pid')
        return int(pid) if pid else None
