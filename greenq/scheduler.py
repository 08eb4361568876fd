"""Enqueues scheduled jobs when they are due: one scheduler per queue, chosen by a lock that others take over.

Runs in a process of its own, as in RQ, or in a thread of a worker, which under gevent is a greenlet.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import RedisError

from greenq.connections import resolve_connection, worker_connection
from greenq.defaults import BEAT_SECONDS, DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, LEASE_SECONDS
from greenq.exceptions import SchedulerNotFound
from greenq.logutils import setup_loghandlers
from greenq.registry import ScheduledJobRegistry
from greenq.serializers import Serializer, resolve_serializer
from greenq.store import keys, scheduling
from greenq.store.scheduling import Lock
from greenq.utils import decode_redis_hash, ensure_job_list, now, parse_names, utcformat, utcparse

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from redis import Redis
    from redis.client import Pipeline

    from greenq.queue import Queue

log = logging.getLogger('greenq.scheduler')

#: Seconds that locks and record outlive the last beat, besides the interval; as in RQ.
EXTRA_TTL_SECONDS = 60
#: Seconds between two looks at locks that others hold.
LOCK_CHECK_SECONDS = 5
#: Seconds that `stop` waits for the thread, which may be in the middle of a command.
STOP_SECONDS = 15
#: A command that gets no answer for this long (s) has failed.
COMMAND_SECONDS = 10
#: Scheduled jobs moved by one script call: about a millisecond of the server's time.
CHUNK = 100


class SchedulerStatus(str, Enum):
    """What a scheduler does: it sleeps, it moves jobs, or it does not run."""

    STARTED = 'started'
    WORKING = 'working'
    STOPPED = 'stopped'


class RQScheduler:
    """Enqueues the scheduled jobs of those queues whose lock it holds; looks every `interval` seconds.

    The lock's value is the scheduler's name, and every move checks it on the server: a scheduler that was stalled
    while another one took over moves nothing.
    """

    Status = SchedulerStatus

    def __init__(
        self,
        queues: str | Queue | Iterable[str | Queue],
        connection: Redis | None = None,
        interval: int = 1,
        logging_level: str | int | None = logging.INFO,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        serializer: Serializer | str | None = None,
        name: str | None = None,
    ) -> None:
        self._queue_names = set(parse_names(ensure_job_list(queues)))
        self._acquired_locks: set[str] = set()
        self._scheduled_job_registries: list[ScheduledJobRegistry] = []
        self.lock_acquisition_time: datetime | None = None
        self._given_connection = resolve_connection(connection)
        self._connection: Redis | None = None
        self.serializer = resolve_serializer(serializer)
        self.name = name or uuid4().hex
        self.hostname = socket.gethostname()
        self.created_at = now()
        self.pid = 0
        self.last_heartbeat: datetime | None = None
        self.interval = interval
        self._beaten_at = float('-inf')
        self._stop_requested = False
        self._status = SchedulerStatus.STOPPED
        self._process: BaseProcess | SchedulerThread | None = None
        self.log = log
        if logging_level is not None:
            setup_loghandlers(logging_level, date_format, log_format, name=log.name)

    @property
    def connection(self) -> Redis:
        """The scheduler's own client, which is made when it is first needed, so not before a fork."""
        if self._connection is None:
            self._connection = worker_connection(
                self._given_connection, max_connections=2, socket_timeout=COMMAND_SECONDS, blocking=True
            )
        return self._connection

    @property
    def acquired_locks(self) -> set[str]:
        """The names of the queues whose lock it holds, as far as it knows."""
        return self._acquired_locks

    @property
    def status(self) -> SchedulerStatus:
        """What it does now."""
        return self._status

    @property
    def key(self) -> str:
        """The Redis key of its record."""
        return keys.scheduler(self.name)

    @classmethod
    def get_locking_key(cls, name: str) -> str:
        """The Redis key of the lock of a queue."""
        return keys.scheduler_lock(name)

    @property
    def _ttl(self) -> int:
        return self.interval + EXTRA_TTL_SECONDS

    # ---- locks ----

    @property
    def should_reacquire_locks(self) -> bool:
        """Whether it lacks a lock and has not tried to get it for some seconds."""
        if self._queue_names == self._acquired_locks:
            return False
        if self.lock_acquisition_time is None:
            return True
        # Either way, because clocks are also set back.
        return abs((datetime.now() - self.lock_acquisition_time).total_seconds()) > LOCK_CHECK_SECONDS

    def acquire_locks(self, auto_start: bool = False) -> set[str]:
        """Take the locks of all its queues that are free, keep those it has; returns the names of these queues.

        `auto_start` starts the scheduler's process if it got one and none runs.
        """
        outcomes = self._hold(self._queue_names)
        for name, outcome in outcomes.items():
            if outcome is Lock.ACQUIRED:
                self.log.info('Scheduler %s: acquired the lock of queue %s', self.name, name)
        self._acquired_locks = {name for name, outcome in outcomes.items() if outcome is not Lock.TAKEN_BY_ANOTHER}
        self._scheduled_job_registries = []
        self.lock_acquisition_time = datetime.now()
        if auto_start and self._acquired_locks and not (self._process and self._process.is_alive()):
            self.start()
        return set(self._acquired_locks)

    def _hold(self, queue_names: Iterable[str], record: Mapping[str, str] | None = None) -> dict[str, Lock]:
        return scheduling.hold_locks(
            self.connection,
            self.name,
            sorted(queue_names),
            ttl=self._ttl,
            lease=self.interval + LEASE_SECONDS,
            record=record,
        )

    def release_locks(self) -> None:
        """Give back the locks it holds; those that another scheduler has taken over stay."""
        scheduling.release_locks(self.connection, self.name, sorted(self._acquired_locks))
        self._acquired_locks = set()

    def heartbeat(self) -> None:
        """Extend locks and record; a lock that expired is taken again, one that was taken over is dropped."""
        self.last_heartbeat = now()
        self._beaten_at = time.monotonic()
        outcomes = self._hold(self._acquired_locks, self.to_dict())
        for name, outcome in outcomes.items():
            if outcome is Lock.ACQUIRED:
                self.log.warning('Scheduler %s: the lock of queue %s had expired; took it again', self.name, name)
        self._drop_locks({name for name, outcome in outcomes.items() if outcome is Lock.TAKEN_BY_ANOTHER})

    def _drop_locks(self, queue_names: set[str]) -> None:
        if queue_names:
            self.log.warning(
                'Scheduler %s: another scheduler took over queue(s) %s', self.name, ', '.join(sorted(queue_names))
            )
            self._acquired_locks -= queue_names
            self._scheduled_job_registries = []

    # ---- moving jobs ----

    def prepare_registries(self, queue_names: Iterable[str] | None = None) -> None:
        """Choose the queues to look at: those whose lock it holds, unless names are given."""
        self._scheduled_job_registries = [
            ScheduledJobRegistry(name, connection=self._given_connection, serializer=self.serializer)
            for name in queue_names or self._acquired_locks
        ]

    def enqueue_scheduled_jobs(self) -> int:
        """Move all jobs that are due, by Redis' clock, into their queues; returns how many that were."""
        if not self._scheduled_job_registries and self._acquired_locks:
            self.prepare_registries()
        self._status = SchedulerStatus.WORKING
        try:
            return self._move_due_jobs()
        finally:
            self._status = SchedulerStatus.STARTED

    def _move_due_jobs(self) -> int:
        """In turns, a chunk of each queue, so that a long queue does not hold up the others."""
        moved = 0
        beaten_at = time.monotonic()
        left = [registry.name for registry in self._scheduled_job_registries]
        while left and not self._stop_requested:
            for name in left[:]:
                count, is_more_due = self._move_chunk(name)
                moved += count
                if not is_more_due:
                    left.remove(name)
            if time.monotonic() - beaten_at > BEAT_SECONDS:
                self.heartbeat()
                beaten_at = time.monotonic()
        return moved

    def _move_chunk(self, queue_name: str) -> tuple[int, bool]:
        # Whoever chose queues by name, with `prepare_registries`, has not asked for their locks.
        scheduler = self.name if queue_name in self._acquired_locks else ''
        promotion = scheduling.promote_scheduled(self.connection, queue_name, scheduler, limit=CHUNK)
        if not promotion.is_holder:
            self._drop_locks({queue_name})
            return 0, False
        if promotion.job_ids:
            self.log.debug('Scheduler %s: %d job(s) are due in queue %s', self.name, len(promotion.job_ids), queue_name)
        return len(promotion.job_ids), promotion.is_more_due

    # ---- record ----

    def to_dict(self) -> dict[str, str]:
        """Its record, as stored."""
        return {
            'name': self.name,
            'hostname': self.hostname,
            'pid': str(self.pid or os.getpid()),
            'queues': ','.join(sorted(self._queue_names)),
            'created_at': utcformat(self.created_at),
            'last_heartbeat': utcformat(self.last_heartbeat or now()),
        }

    def restore(self, raw_data: Mapping[Any, Any]) -> None:
        """Take over a record as Redis returns it."""
        stored = decode_redis_hash(raw_data, decode_values=True)
        self.name = stored['name']
        self.hostname = stored['hostname']
        self.pid = int(stored['pid'])
        self._queue_names = set(stored['queues'].split(',')) if stored.get('queues') else set()
        self.created_at = utcparse(stored['created_at'])
        beat = stored.get('last_heartbeat')
        self.last_heartbeat = utcparse(beat) if beat else None

    def save(self, pipeline: Pipeline | None = None) -> None:
        """Write its record, which lasts until a minute after the next beat is missed."""
        scheduling.hold_locks(
            self.connection if pipeline is None else pipeline,
            self.name,
            (),
            ttl=self._ttl,
            lease=self.interval + LEASE_SECONDS,
            record=self.to_dict(),
        )

    def register_birth(self) -> None:
        """Write its record for the first time, or again after a restart."""
        self.pid = os.getpid()
        self.last_heartbeat = now()
        self.save()

    def register_death(self) -> bool:
        """Delete its record; returns whether there was one."""
        return bool(self.connection.delete(self.key))

    @classmethod
    def fetch(cls, name: str, connection: Redis | None = None) -> RQScheduler:
        """The running scheduler of a name, to look at. SchedulerNotFound if there is none."""
        scheduler = cls((), connection=connection, name=name, logging_level=None)
        raw = scheduler._given_connection.hgetall(scheduler.key)
        if not raw:
            raise SchedulerNotFound(f"Scheduler with name '{name}' not found: it has ended, or never was")
        scheduler.restore(raw)
        return scheduler

    # ---- running ----

    def run_once(self) -> int:
        """Take what locks are free, move what is due, give the locks back; returns how many jobs were moved."""
        self.acquire_locks()
        if not self._acquired_locks:
            return 0
        try:
            self.register_birth()
            return self.enqueue_scheduled_jobs()
        finally:
            self.stop()

    def start(self) -> BaseProcess:
        """Start `work` in a child process. Not for a process patched by gevent: see `run_in_thread`."""
        from multiprocessing import get_context

        self._status = SchedulerStatus.STARTED
        # The child must not use the parent's sockets.
        self._connection = None
        process = get_context('fork').Process(target=run, args=(self,), name='Scheduler')
        self._process = process
        process.start()
        return process

    def run_in_thread(self) -> SchedulerThread:
        """Start the scheduler in a thread of this process, which `stop` ends."""
        self._stop_requested = False
        thread = SchedulerThread(self)
        self._process = thread
        thread.start()
        return thread

    def work(self) -> None:
        """Run in the calling process until SIGINT or SIGTERM."""
        self._install_signal_handlers()
        self.register_birth()
        try:
            while not self._stop_requested:
                self.run_step()
                time.sleep(self.interval)
        finally:
            self.stop()

    def run_step(self) -> None:
        """What is to be done every `interval` seconds. Trouble with Redis is logged: the next step tries again."""
        try:
            if self.should_reacquire_locks:
                self.acquire_locks()
                self._beaten_at = float('-inf')
            if not self._acquired_locks:
                return
            if time.monotonic() - self._beaten_at >= BEAT_SECONDS:
                self.heartbeat()
            self.enqueue_scheduled_jobs()
        except RedisError as error:
            self.log.warning('Scheduler %s: Redis: %s; trying again', self.name, error)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGTERM, self.request_stop)

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Have it end after the present chunk. Only sets a flag, since signal handlers call it."""
        self._stop_requested = True

    def stop(self) -> None:
        """Give back the locks and delete the record. If it runs in a thread, the thread does that and ends."""
        runner = self._process
        if isinstance(runner, SchedulerThread) and runner is not threading.current_thread():
            runner.stop()
            return
        if self._status is not SchedulerStatus.STOPPED:
            self.log.info('Scheduler %s: stopping', self.name)
        try:
            self.release_locks()
            self.register_death()
        except RedisError as error:
            self.log.warning('Scheduler %s: cannot give its locks back, they will expire: %s', self.name, error)
        self._status = SchedulerStatus.STOPPED


class SchedulerThread(threading.Thread):
    """Runs a scheduler next to a worker. In a process that gevent has patched this is a greenlet."""

    def __init__(self, scheduler: RQScheduler) -> None:
        super().__init__(name='Scheduler', daemon=True)
        self._scheduler = scheduler
        self._ended = threading.Event()

    @property
    def pid(self) -> int | None:
        """None: there is no process to send signals to."""
        return None

    def run(self) -> None:
        scheduler = self._scheduler
        scheduler.pid = os.getpid()
        scheduler._status = SchedulerStatus.STARTED
        try:
            while not self._ended.is_set():
                self._run_step()
                self._ended.wait(scheduler.interval)
        finally:
            scheduler.stop()
            scheduler.connection.close()

    def _run_step(self) -> None:
        try:
            self._scheduler.run_step()
        except Exception:
            # Its worker would go on without it and nobody would notice.
            log.exception('Scheduler %s: failed; trying again', self._scheduler.name)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, and wait for that."""
        self._scheduler.request_stop()
        self._ended.set()
        self.join(timeout)
        if self.is_alive():
            log.warning('Scheduler %s: did not end within %s s', self._scheduler.name, timeout)


def run(scheduler: RQScheduler) -> None:
    """What the child process of `RQScheduler.start` does."""
    queues = ', '.join(sorted(scheduler._queue_names))
    scheduler.log.info('Scheduler %s: started for %s with PID %d', scheduler.name, queues, os.getpid())
    try:
        scheduler.work()
    except BaseException:
        scheduler.log.exception('Scheduler %s with PID %d failed', scheduler.name, os.getpid())
        raise
    scheduler.log.info('Scheduler %s with PID %d has stopped', scheduler.name, os.getpid())
