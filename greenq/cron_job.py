"""Cron jobs: a function, what it is called with, and when; how one is enqueued, kept as a record, and remembered."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenq.defaults import DEFAULT_CRON_JOB_HISTORY_LIMIT, DEFAULT_CRON_JOB_HISTORY_TTL, DEFAULT_RESULT_TTL
from greenq.job_options import parse
from greenq.queue import Queue
from greenq.store import keys, scheduling
from greenq.utils import NOT_JSON_SERIALIZABLE, as_text, now, safe_json_dumps, utcformat, utcparse
from greenq.webhook import Webhook

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Job
    from greenq.store.transitions import Submission

log = logging.getLogger('greenq.cron')

#: For how long (s) a tick is made up for that nobody enqueued in time, because no scheduler ran.
CATCH_UP_SECONDS = 3600


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
