"""Cron jobs: functions that are enqueued at intervals or at times of day, and the scheduler that does so.

Several schedulers may have the same jobs: each tick is enqueued by one of them, because the job and the note that the
tick is done are one write.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from greenq import cron_job_registry as cron_job_registry
from greenq import cron_scheduler_registry
from greenq.connections import resolve_connection
from greenq.defaults import (
    DEFAULT_CRON_JOB_HISTORY_LIMIT,
    DEFAULT_CRON_JOB_HISTORY_TTL,
    DEFAULT_CRON_SCHEDULER_TTL,
    DEFAULT_RESULT_TTL,
)
from greenq.exceptions import SchedulerNotFound, StopRequested, UnserializableError
from greenq.job_options import parse
from greenq.logutils import setup_loghandlers
from greenq.queue import Queue
from greenq.serializers import resolve_serializer
from greenq.store import keys, scheduling
from greenq.utils import (
    NOT_JSON_SERIALIZABLE,
    as_text,
    decode_redis_hash,
    normalize_config_path,
    now,
    safe_json_dumps,
    str_to_date,
    utcformat,
    utcparse,
    validate_absolute_path,
)
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from greenq.job import Job
    from greenq.store.transitions import Submission

log = logging.getLogger('greenq.cron')

#: Longest time (s) between two heartbeats of a scheduler.
MAX_SLEEP_SECONDS = 60
#: For how long (s) a tick is made up for that nobody enqueued in time, because no scheduler ran.
CATCH_UP_SECONDS = 3600
#: Pause (s) after trouble with Redis.
RETRY_SECONDS = 1


def get_cron_job_history_key(name: str) -> str:
    """The Redis key of the ids of the jobs that cron jobs of a name have enqueued."""
    return keys.cron_job_history(name)


def get_cron_job_ids(name: str, connection: Redis, start: int = 0, end: int = -1) -> list[str]:
    """The ids of the jobs that cron jobs of a name have enqueued, newest first; `start` and `end` are inclusive."""
    job_ids: Any = connection.zrange(keys.cron_job_history(name), start, end, desc=True)
    return [as_text(job_id) for job_id in job_ids]


class CronJob:
    """A function, what it is called with, and when: every `interval` seconds, or by a `cron` string in local time.

    `name` is what its history goes by; several jobs may share one. A job that was read from Redis has no function, only
    its name, and cannot be enqueued. ValueError for a job without a schedule, or with two.
    """

    def __init__(
        self,
        queue_name: str,
        func: Callable[..., Any] | None = None,
        func_name: str | None = None,
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
    ) -> None:
        if func is None and not func_name:
            raise ValueError('Either func or func_name must be provided')
        self.func = func
        self.func_name = func_name or '' if func is None else f'{func.__module__}.{func.__name__}'
        if interval and cron:
            raise ValueError(f'Cannot specify both interval and cron parameters for {self.func_name}: leave one out')
        if not interval and not cron:
            raise ValueError(f'Must specify either interval or cron parameter for {self.func_name}')
        self.name = name or self.func_name
        self.queue_name = queue_name
        self.args: Any = args or ()
        self.kwargs: Any = kwargs or {}
        self.interval = interval
        self.cron = cron
        options: dict[str, Any] = {
            'job_timeout': job_timeout,
            'result_ttl': result_ttl,
            'ttl': ttl,
            'failure_ttl': failure_ttl,
            'meta': meta,
            'webhooks': _checked_webhooks(webhooks),
        }
        self.job_options = {option: value for option, value in options.items() if value is not None}
        self.latest_enqueue_time: datetime | None = None
        self.next_enqueue_time: datetime | None = self.get_next_enqueue_time() if cron else None

    # ---- when ----

    def get_next_enqueue_time(self) -> datetime:
        """The first time after the latest one, or after now; the end of time for an interval that never began."""
        return self._next_after(self.latest_enqueue_time)

    def _next_after(self, latest: datetime | None) -> datetime:
        if self.cron:
            return _next_cron_time(self.cron, latest or now())
        if self.interval and latest:
            return latest + timedelta(seconds=self.interval)
        return datetime.max

    def should_run(self) -> bool:
        """Whether it is due. An interval begins at once, a cron string at its first time."""
        if not self.cron and not self.latest_enqueue_time:
            return True
        return self.next_enqueue_time is not None and now() >= self.next_enqueue_time

    def set_enqueue_time(self, time: datetime) -> None:
        """Note that it was enqueued at a time, which decides on the next one."""
        self.latest_enqueue_time = time
        self.next_enqueue_time = self.get_next_enqueue_time()

    # ---- enqueueing ----

    def enqueue(self, connection: Redis) -> Job:
        """Enqueue it now, whether it is due or not, and add the job to its history."""
        job, _ = self._enqueue(connection)
        return job

    def enqueue_tick(self, connection: Redis, name: str, expected: str, moment: datetime) -> str:
        """Enqueue it for the tick that is due, if the last tick under `name` is still the `expected` one.

        Returns the last tick as it is then: `moment` as stored, or that of another scheduler which was faster.
        """
        # While it is needed to make up for the next tick, and to tell that this one is done.
        seconds = (self._next_after(moment) - moment).total_seconds() + CATCH_UP_SECONDS
        tick = {'tick_name': name, 'expected': expected, 'tick': utcformat(moment), 'tick_ttl': int(seconds)}
        _, last = self._enqueue(connection, **tick)
        return last

    def _enqueue(self, connection: Redis, **tick: Any) -> tuple[Job, str]:
        job, submission = self._build(connection)
        assert job.enqueued_at is not None
        last = scheduling.enqueue_tick(
            connection,
            self.queue_name,
            submission,
            cron_job=self.name,
            enqueued_at=job.enqueued_at.timestamp(),
            history_limit=DEFAULT_CRON_JOB_HISTORY_LIMIT,
            history_ttl=DEFAULT_CRON_JOB_HISTORY_TTL,
            **tick,
        )
        if last == tick.get('tick', ''):
            log.info('Enqueued %s to queue %s: job %s', self.func_name, self.queue_name, job.id)
        return job, last

    def _build(self, connection: Redis) -> tuple[Job, Submission]:
        if self.func is None:
            raise ValueError(
                f'CronJob {self.name!r} has no function to enqueue: it was read from Redis, for monitoring only'
            )
        queue = Queue(self.queue_name, connection=connection)
        # The explicit form, because the function's keywords may have names of options.
        said = {'args': self.args, 'kwargs': self.kwargs, **self.job_options}
        options, args, kwargs = parse(self.func, (), said)
        job = queue.create_job(self.func, args, kwargs, **options.job_arguments())
        job.enqueued_at = now()
        return job, job.to_submission()

    @property
    def job_history_key(self) -> str:
        """The Redis key of the ids of the jobs that were enqueued under its name."""
        return keys.cron_job_history(self.name)

    def get_job_ids(self, connection: Redis, start: int = 0, end: int = -1) -> list[str]:
        """The ids of the jobs that were enqueued under its name, newest first; `start` and `end` are inclusive."""
        return get_cron_job_ids(self.name, connection, start, end)

    # ---- as stored ----

    def to_dict(self) -> dict[str, Any]:
        """What monitoring shows. Arguments and metadata are JSON, or a placeholder where JSON cannot express them."""
        shown = {
            'func_name': self.func_name,
            'name': self.name,
            'queue_name': self.queue_name,
            'args': safe_json_dumps(self.args) if self.args else None,
            'kwargs': safe_json_dumps(self.kwargs) if self.kwargs else None,
            'interval': self.interval,
            'cron': self.cron,
            'latest_enqueue_time': utcformat(self.latest_enqueue_time) if self.latest_enqueue_time else None,
            'next_enqueue_time': utcformat(self.next_enqueue_time) if self.next_enqueue_time else None,
            **self.job_options,
        }
        if 'meta' in self.job_options:
            shown['meta'] = safe_json_dumps(self.job_options['meta'])
        if 'webhooks' in self.job_options:
            shown['webhooks'] = json.dumps([webhook.to_dict() for webhook in self.job_options['webhooks']])
        return shown

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CronJob:
        """The reverse of `to_dict`, but for the function."""
        args = _from_json(data.get('args'))
        webhooks = _from_json(data.get('webhooks'))
        job = cls(
            data['queue_name'],
            func_name=data['func_name'],
            args=tuple(args) if isinstance(args, list) else args,
            kwargs=_from_json(data.get('kwargs')),
            interval=data.get('interval'),
            cron=data.get('cron'),
            job_timeout=data.get('job_timeout'),
            result_ttl=data.get('result_ttl', DEFAULT_RESULT_TTL),
            ttl=data.get('ttl'),
            failure_ttl=data.get('failure_ttl'),
            meta=_from_json(data.get('meta')),
            webhooks=[Webhook.from_dict(item) for item in webhooks] if isinstance(webhooks, list) else None,
            name=data.get('name', ''),
        )
        if data.get('latest_enqueue_time'):
            job.latest_enqueue_time = utcparse(data['latest_enqueue_time'])
        if data.get('next_enqueue_time'):
            job.next_enqueue_time = utcparse(data['next_enqueue_time'])
        return job

    @property
    def _digest(self) -> str:
        """The same in every process that registers the same job."""
        identity = [self.name, self.func_name, self.queue_name, self.interval, self.cron]
        call = [safe_json_dumps(self.args), safe_json_dumps(self.kwargs)]
        return hashlib.sha1(json.dumps(identity + call).encode()).hexdigest()[:20]


def _checked_webhooks(webhooks: Any) -> list[Webhook] | None:
    if not webhooks:
        return None
    if not isinstance(webhooks, Sequence) or not all(isinstance(webhook, Webhook) for webhook in webhooks):
        raise TypeError(f'webhooks must be a sequence of Webhook instances, not {webhooks!r}')
    return list(webhooks)


def _from_json(value: Any) -> Any:
    return json.loads(value) if value and value != NOT_JSON_SERIALIZABLE else value


def _next_cron_time(cron: str, after: datetime) -> datetime:
    """The first time that a cron string names after a moment, by the clock on the wall of this process.

    Where clocks go back, a time that comes twice counts once, the first time. Where they go forward, a time that does
    not exist is as much later as the clocks jump.
    """
    # Not everybody who schedules has cron strings.
    from croniter import croniter

    times = croniter(cron, after.astimezone().replace(tzinfo=None))
    while True:
        local = times.get_next(datetime).replace(fold=0)
        moment = datetime.fromtimestamp(local.timestamp(), UTC)
        # The first occurrence of a time that comes twice may be over.
        if moment > after:
            return moment


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
        _job_data_registry.clear()
        self.log.info('Loading cron configuration from %s', config_path)
        try:
            _load_config(config_path)
            count = sum(self._register_from_config(data) for data in _job_data_registry)
        finally:
            _job_data_registry.clear()
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


# ---- configuration files ----

#: What `register` was called with since a scheduler took it last.
_job_data_registry: list[dict[str, Any]] = []


def register(
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
) -> dict[str, Any]:
    """For configuration files: have the scheduler that loads the file add a cron job. Arguments as `CronJob`."""
    data = dict(locals())
    _job_data_registry.append(data)
    return data


def create_cron(connection: Redis | None = None) -> CronScheduler:
    """A scheduler with all the cron jobs that were registered so far, which no other one gets."""
    scheduler = CronScheduler(connection=connection)
    taken = _job_data_registry[:]
    _job_data_registry.clear()
    for data in taken:
        scheduler.register(**data)
    return scheduler


def _load_config(config_path: str) -> None:
    if os.path.isabs(config_path):
        _load_file(validate_absolute_path(config_path))
        return
    module_name = normalize_config_path(config_path)
    try:
        # Again if it was imported before: importing it is what registers the jobs.
        if module_name in sys.modules:
            importlib.reload(sys.modules[module_name])
        else:
            importlib.import_module(module_name)
    except ImportError as error:
        raise ImportError(
            f"Failed to import configuration module '{module_name}' (from '{config_path}'): {error}"
        ) from error


def _load_file(path: str) -> None:
    module_name = f'greenq_cron_config_{os.path.basename(path).replace(".", "_")}'
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Failed to load configuration file '{path}': give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ImportError(f"Failed to load configuration file '{path}': {type(error).__name__}: {error}") from error
