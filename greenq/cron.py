"""The cron scheduler, which enqueues cron jobs when they are due, and all else that RQ has under this name: what a cron
job is lives in `cron_job`, and the files that register them in `cron_config`.

Several schedulers may have the same jobs: each tick is enqueued by one of them, because the job and the note that the
tick is done are one write.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from greenq import cron_config, cron_scheduler_registry
from greenq import cron_job_registry as cron_job_registry
from greenq.connections import resolve_connection
from greenq.cron_config import _job_data_registry as _job_data_registry
from greenq.cron_config import register as register
from greenq.cron_job import CronJob as CronJob
from greenq.cron_job import get_cron_job_history_key as get_cron_job_history_key
from greenq.cron_job import get_cron_job_ids as get_cron_job_ids
from greenq.defaults import DEFAULT_CRON_SCHEDULER_TTL, DEFAULT_RESULT_TTL
from greenq.exceptions import SchedulerNotFound, StopRequested, UnserializableError
from greenq.logutils import setup_loghandlers
from greenq.serializers import resolve_serializer
from greenq.store import keys, scheduling
from greenq.utils import decode_redis_hash, now, str_to_date, utcformat, utcparse
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

log = logging.getLogger('greenq.cron')

#: Longest time (s) between two heartbeats of a scheduler.
MAX_SLEEP_SECONDS = 60
#: Pause (s) after trouble with Redis.
RETRY_SECONDS = 1


@dataclass
class _Tick:
    """What a job's ticks go by in Redis, and the last one that is known."""

    name: str
    last: str


class CronScheduler:
    """Enqueues its cron jobs when they are due. Any number of schedulers with the same jobs may run at once."""

    def __init__(
        self,
        connection: Redis | None = None,
        logging_level: str | int | None = logging.INFO,
        name: str = '',
    ) -> None:
        self.connection = resolve_connection(connection)
        self._cron_jobs: list[CronJob] = []
        self._ticks: dict[CronJob, _Tick] = {}
        self._stop_requested = False
        self._is_sleeping = False
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.name = name or f'{self.hostname}:{self.pid}:{uuid.uuid4().hex[:6]}'
        self.config_file = ''
        self.created_at = now()
        self.serializer = resolve_serializer()
        self.log = log
        if logging_level is not None and not log.hasHandlers():
            setup_loghandlers(logging_level, name=log.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronScheduler) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    # ---- jobs ----

    def register(
        self,
        func: Callable[..., Any],
        queue_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        interval: int | None = None,
        cron: str | None = None,
        job_timeout: float | str | None = None,
        result_ttl: float | str | None = DEFAULT_RESULT_TTL,
        ttl: float | str | None = None,
        failure_ttl: float | str | None = None,
        meta: dict[Any, Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        name: str = '',
    ) -> CronJob:
        """Add a cron job; arguments and errors as `CronJob`."""
        job = CronJob(
            queue_name,
            func,
            args=args,
            kwargs=kwargs,
            interval=interval,
            cron=cron,
            job_timeout=job_timeout,
            result_ttl=result_ttl,
            ttl=ttl,
            failure_ttl=failure_ttl,
            meta=meta,
            webhooks=webhooks,
            name=name,
        )
        self._cron_jobs.append(job)
        schedule = f'every {interval} seconds' if interval else f'with cron schedule {cron!r}'
        self.log.info('Registered %s to run on %s %s', job.func_name, queue_name, schedule)
        return job

    def get_jobs(self) -> list[CronJob]:
        """All its cron jobs."""
        return self._cron_jobs

    def load_config_from_file(self, config_path: str) -> None:
        """Add the cron jobs that a configuration registers, given as a dotted module name or as a file.

        ImportError, or what the configuration itself raises, if it cannot be loaded. A job that makes no sense is
        logged and left out.
        """
        self.config_file = config_path
        self.log.info('Loading cron configuration from %s', config_path)
        count = sum(self._register_from_config(data) for data in cron_config.load(config_path))
        self.log.info('Registered %d cron job(s) from %s', count, config_path)

    def _register_from_config(self, data: dict[str, Any]) -> bool:
        try:
            self.register(**data)
        except Exception:
            self.log.exception('Cannot register %r from %s', data['func'], self.config_file)
            return False
        return True

    # ---- enqueueing ----

    def enqueue_jobs(self) -> list[CronJob]:
        """Enqueue the jobs that are due and that no other scheduler has enqueued; returns them."""
        self._adopt_ticks()
        moment = now()
        return [job for job in self._cron_jobs if self._enqueue_if_due(job, moment)]

    def _adopt_ticks(self) -> None:
        """Find out when jobs that it has not looked at before were enqueued last, by whichever scheduler."""
        if all(job in self._ticks for job in self._cron_jobs):
            return
        # The same job twice is two jobs, as in RQ.
        count: Counter[str] = Counter()
        fresh: dict[CronJob, str] = {}
        for job in self._cron_jobs:
            digest = job._digest
            count[digest] += 1
            if job not in self._ticks:
                fresh[job] = f'{digest}:{count[digest]}'
        last_ticks = scheduling.last_ticks(self.connection, list(fresh.values()))
        for (job, name), last in zip(fresh.items(), last_ticks, strict=True):
            self._ticks[job] = _Tick(name, last)
            if last:
                job.set_enqueue_time(utcparse(last))

    def _enqueue_if_due(self, job: CronJob, moment: datetime) -> bool:
        tick = self._ticks[job]
        while job.should_run():
            try:
                tick.last = job.enqueue_tick(self.connection, tick.name, tick.last, moment)
            except UnserializableError:
                # A tick is all that this job loses; the other jobs lose nothing.
                self.log.exception('Cannot enqueue cron job %s', job.name)
                job.set_enqueue_time(moment)
                return False
            if tick.last:
                job.set_enqueue_time(utcparse(tick.last))
            if tick.last == utcformat(moment):
                return True
        return False

    def calculate_sleep_interval(self) -> float:
        """Seconds until the next job is due, at most a minute."""
        times = [job.next_enqueue_time for job in self._cron_jobs if job.next_enqueue_time]
        if not times:
            return MAX_SLEEP_SECONDS
        return min(max((min(times) - now()).total_seconds(), 0), MAX_SLEEP_SECONDS)

    # ---- running ----

    def start(self) -> None:
        """Run in the calling process until SIGINT or SIGTERM."""
        self.log.info('CronScheduler %s: starting', self.name)
        self._stop_requested = False
        self._install_signal_handlers()
        try:
            self.register_birth()
            while not self._stop_requested:
                self._sleep(self._run_step())
        except (KeyboardInterrupt, StopRequested):
            self.log.info('CronScheduler %s: stopping', self.name)
        finally:
            self._sign_off()

    def _run_step(self) -> float:
        """Enqueue what is due and give a sign of life; returns for how many seconds there is nothing to do."""
        try:
            if self.enqueue_jobs():
                self.save()
            self.heartbeat()
        except RedisError as error:
            self.log.warning('CronScheduler %s: Redis: %s; trying again', self.name, error)
            return RETRY_SECONDS
        return self.calculate_sleep_interval()

    def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self._is_sleeping = True
        try:
            if self._stop_requested:
                raise StopRequested
            time.sleep(seconds)
        finally:
            self._is_sleeping = False

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGINT, self._request_stop)
        signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop_requested = True
        # Not while it talks to Redis: what was begun is finished first.
        if self._is_sleeping:
            raise StopRequested

    def _sign_off(self) -> None:
        try:
            self.register_death()
        except (RedisError, SchedulerNotFound) as error:
            self.log.warning('CronScheduler %s: could not sign off: %s', self.name, error)
        self.log.info('CronScheduler %s: has stopped', self.name)

    # ---- record ----

    @property
    def key(self) -> str:
        """The Redis key of its record."""
        return keys.cron_scheduler(self.name)

    def to_dict(self) -> dict[Any, Any]:
        """Its record, as stored."""
        return {
            'hostname': self.hostname,
            'pid': str(self.pid),
            'name': self.name,
            'created_at': utcformat(self.created_at),
            'config_file': self.config_file,
            'cron_jobs': json.dumps([job.to_dict() for job in self._cron_jobs]),
        }

    def save(self, pipeline: Pipeline | None = None) -> None:
        """Write its record, which lasts two minutes without a heartbeat."""
        if pipeline is None:
            with self.connection.pipeline() as own:
                self.save(own)
                own.execute()
            return
        pipeline.hset(self.key, mapping=self.to_dict())
        pipeline.expire(self.key, DEFAULT_CRON_SCHEDULER_TTL)

    def restore(self, raw_data: Mapping[Any, Any]) -> None:
        """Take over a record as Redis returns it. Cron jobs that cannot be read are left out, and logged."""
        stored = decode_redis_hash(raw_data, decode_values=True)
        self.hostname = stored.get('hostname', '')
        self.pid = int(stored.get('pid', 0))
        self.name = stored.get('name', self.name)
        self.config_file = stored.get('config_file', '')
        if stored.get('created_at'):
            self.created_at = str_to_date(stored['created_at'])
        try:
            self._cron_jobs = [CronJob.from_dict(data) for data in json.loads(stored.get('cron_jobs') or '[]')]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.log.warning('CronScheduler %s: cannot read its cron jobs: %s', self.name, error)
            self._cron_jobs = []

    @classmethod
    def fetch(cls, name: str, connection: Redis | None = None) -> CronScheduler:
        """The running scheduler of a name, to look at. SchedulerNotFound if there is none."""
        scheduler = cls(connection=connection, logging_level=None, name=name)
        raw = scheduler.connection.hgetall(scheduler.key)
        if not raw:
            raise SchedulerNotFound(f"CronScheduler with name '{name}' not found: it has ended, or never was")
        scheduler.restore(raw)
        return scheduler

    @classmethod
    def all(cls, connection: Redis | None = None, cleanup: bool = True) -> list[CronScheduler]:
        """All running schedulers, to look at. `cleanup` forgets those that gave no sign of life for two minutes."""
        connection = resolve_connection(connection)
        if cleanup:
            cron_scheduler_registry.cleanup(connection)
        schedulers = []
        for name in cron_scheduler_registry.get_keys(connection):
            with suppress(SchedulerNotFound):
                schedulers.append(cls.fetch(name, connection))
        return schedulers

    def register_birth(self) -> None:
        """Add it to the registry, and write its record."""
        with self.connection.pipeline() as pipeline:
            cron_scheduler_registry.register(self, pipeline)
            self.save(pipeline)
            pipeline.execute()

    def register_death(self, pipeline: Pipeline | None = None) -> None:
        """Remove it from the registry; its record expires. SchedulerNotFound if it was not there."""
        cron_scheduler_registry.unregister(self, pipeline)

    def heartbeat(self) -> None:
        """Give a sign of life, and restore what was lost because one was late."""
        with self.connection.pipeline() as pipeline:
            pipeline.zadd(cron_scheduler_registry.get_registry_key(), {self.name: time.time()})
            pipeline.expire(self.key, DEFAULT_CRON_SCHEDULER_TTL)
            is_new, has_record = pipeline.execute()
        if not has_record:
            self.save()
        if is_new:
            self.log.info('CronScheduler %s: registered again', self.name)

    @property
    def last_heartbeat(self) -> datetime | None:
        """When it gave a sign of life last; None if it does not run."""
        score = self.connection.zscore(cron_scheduler_registry.get_registry_key(), self.name)
        return None if score is None else datetime.fromtimestamp(score, UTC)


def create_cron(connection: Redis | None = None) -> CronScheduler:
    """A scheduler with all the cron jobs that were registered so far, which no other one gets."""
    scheduler = CronScheduler(connection=connection)
    for data in cron_config.take_registered():
        scheduler.register(**data)
    return scheduler
