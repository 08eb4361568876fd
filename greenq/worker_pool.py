"""Runs a number of workers as processes, restarts those that die, and stops them all: RQ's `WorkerPool`.

The pool's own process runs no job and needs no gevent: each worker is a fresh interpreter, patched first if need be.
"""

from __future__ import annotations

import logging
import logging.config
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

from redis.exceptions import RedisError

from greenq import bootstrap
from greenq.connections import put_together, resolve_connection, taken_apart
from greenq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from greenq.exceptions import ConfigurationError
from greenq.fresh_process import SETUP_FAILED, STOP_SIGNALS, FreshProcess, leave_note, stop_signals_blocked
from greenq.job import Job
from greenq.logutils import setup_loghandlers
from greenq.queue import Queue
from greenq.serializers import DefaultSerializer
from greenq.store import transitions
from greenq.utils import import_attribute, parse_names
from greenq.worker import BaseWorker, Worker
from greenq.worker.signals import SAME_REQUEST_SECONDS, SignalHandlers, WakePipe

if TYPE_CHECKING:
    from types import FrameType

    from redis import Redis

#: A worker that lived this long (s) was well; one that dies sooner makes the pool wait before it starts the next.
STEADY_SECONDS = 10
#: The longest such wait (s).
MAX_DELAY_SECONDS = 30
#: What a worker may take (s), beyond its grace, to leave after a stop; then it is killed.
LEAVE_SECONDS = 2
#: How often (s) the pool looks at its workers when no signal tells of an end.
LOOK_SECONDS = 1.0


class Process(Protocol):
    """What a pool asks of a worker's process; those of multiprocessing have it too."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def start(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...
    def kill(self) -> None: ...


class WorkerData(NamedTuple):
    """A worker of the pool."""

    name: str
    pid: int
    process: Process
    started_at: float = 0.0


class WorkerPool:
    """Keeps `num_workers` workers running for the given queues.

    `worker_class` may be a dotted path: `'greenq.GeventWorker'` keeps gevent out of this process. `worker_options` are
    further arguments of that class, such as `concurrency` and `grace`. All classes, handlers and the serializer must be
    importable from a module, because the workers are interpreters of their own.
    """

    class Status(Enum):
        """What the pool is doing; STOPPED from the moment it is told to stop."""

        IDLE = 1
        STARTED = 2
        STOPPED = 3

    def __init__(
        self,
        queues: Iterable[str | Queue],
        connection: Redis,
        num_workers: int = 1,
        worker_class: type[BaseWorker] | str = Worker,
        serializer: Any = DefaultSerializer,
        job_class: type[Job] = Job,
        queue_class: type[Queue] = Queue,
        exception_handlers: Any = None,
        **worker_options: Any,
    ):
        self.name = uuid4().hex
        self.num_workers = num_workers
        self.connection = resolve_connection(connection)
        self.worker_class = worker_class
        self.serializer = serializer
        self.job_class = job_class
        self.queue_class = queue_class
        self.exception_handlers = exception_handlers
        self.worker_options = worker_options
        self.log = logging.getLogger('greenq.worker_pool')
        self.status = self.Status.IDLE
        #: The workers that run, by their names.
        self.worker_dict: dict[str, WorkerData] = {}
        self._queue_names: list[str] = parse_names(queues)
        self._connection_class, self._pool_class, self._pool_kwargs = taken_apart(self.connection)
        self._burst = True
        self._sleep: float = 0
        self._logging = _Logging()
        self._wake: WakePipe | None = None
        self._restarts = _Restarts()
        self._stop = _Stop()
        self._setup_error: str | None = None

    @property
    def queues(self) -> list[Queue]:
        """The queues that the workers serve."""
        return [self.queue_class(name, connection=self.connection) for name in self._queue_names]

    @property
    def number_of_active_workers(self) -> int:
        """How many workers there are, as of the last look."""
        return len(self.worker_dict)

    # ---- running ----

    def start(
        self,
        burst: bool = False,
        logging_level: str | None = 'INFO',
        *,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        logging_config: dict[str, Any] | None = None,
    ) -> None:
        """Runs the workers until a signal asks for a stop; with `burst`, until the queues are empty.

        The first SIGINT or SIGTERM is passed on as a warm shutdown, a later one as a cold one. `logging_config` is a
        dictionary for `logging.config.dictConfig` in each worker. ConfigurationError if workers cannot be set up.
        """
        self._burst = burst
        self._logging = _Logging(date_format, log_format, logging_config)
        setup_loghandlers(logging_level, date_format, log_format, name='greenq.worker_pool')
        self.log.info('Worker pool %s: starting %d workers, pid %d', self.name, self.num_workers, os.getpid())
        self.status = self.Status.STARTED
        self._stop = _Stop()
        self._wake = wake = WakePipe()
        handlers = SignalHandlers()
        handlers.install({signal.SIGCHLD: lambda signum, frame: wake.wake()})
        handlers.install({signal.SIGINT: self.request_stop, signal.SIGTERM: self.request_stop})
        try:
            self.start_workers(burst=burst, _sleep=self._sleep, logging_level=logging_level or 'INFO')
            self._watch(wake, respawn=not burst)
        finally:
            handlers.restore()
            self._wake = None
            wake.close()
        self.log.info('Worker pool %s: all workers have ended', self.name)
        if self._setup_error:
            raise ConfigurationError(self._setup_error)

    def _watch(self, wake: WakePipe, respawn: bool) -> None:
        while True:
            wake.drain()
            self.check_workers(respawn=respawn)
            self._pass_on_stop()
            if not self.worker_dict and (self.status == self.Status.STOPPED or not respawn):
                return
            select.select([wake], [], [], LOOK_SECONDS)

    def start_workers(self, burst: bool = True, _sleep: float = 0, logging_level: str = 'INFO') -> None:
        """Starts `num_workers` workers."""
        for count in range(1, self.num_workers + 1):
            self.start_worker(count, burst=burst, _sleep=_sleep, logging_level=logging_level)

    def start_worker(
        self, count: int | None = None, burst: bool = True, _sleep: float = 0, logging_level: str = 'INFO'
    ) -> None:
        """Starts one worker; `count` is ignored."""
        self._burst, self._sleep, self._logging.level = burst, _sleep, logging_level
        name = uuid4().hex
        process = self.get_worker_process(name, burst=burst, _sleep=_sleep, logging_level=logging_level)
        # A stop that came between the two would miss this worker.
        with stop_signals_blocked():
            process.start()
            assert process.pid is not None
            self.worker_dict[name] = WorkerData(name, process.pid, process, time.monotonic())
        self.log.debug('Worker pool %s: started worker %s with pid %d', self.name, name, process.pid)

    def get_worker_process(self, name: str, burst: bool, _sleep: float = 0, logging_level: str = 'INFO') -> Process:
        """A process for one worker, not started yet. Subclasses may return any object that looks like one."""
        self._refuse_main_module()
        return FreshProcess(
            _set_up_worker,
            (name, self._queue_names, self._connection_class, self._pool_class, self._pool_kwargs),
            {
                'worker_class': self.worker_class,
                'serializer': self.serializer,
                'job_class': self.job_class,
                'queue_class': self.queue_class,
                'exception_handlers': self.exception_handlers,
                'burst': burst,
                'logging_level': logging_level,
                'log': self._logging,
                'worker_options': self.worker_options,
                '_sleep': _sleep,
            },
            name=f'Worker {name} (WorkerPool {self.name})',
            patched=_is_known_to_need_patching(self.worker_class),
        )

    def _refuse_main_module(self) -> None:
        handlers = self.exception_handlers
        several = handlers if isinstance(handlers, (list, tuple)) else [handlers]
        for given in (self.worker_class, self.job_class, self.queue_class, self.serializer, *several):
            if getattr(given, '__module__', None) == '__main__':
                raise ConfigurationError(
                    f'WorkerPool cannot use {given!r}: its workers are interpreters of their own, which cannot import '
                    f'what is defined in __main__; move it to a module.'
                )

    # ---- looking after workers ----

    def check_workers(self, respawn: bool = True) -> None:
        """Forgets dead workers and, with `respawn`, starts others in their place, later if they die too fast."""
        self.reap_workers()
        if not respawn or not self._restarts.are_due:
            return
        for _ in range(self.num_workers - len(self.worker_dict)):
            if self.status == self.Status.STOPPED:
                return
            self.start_worker(burst=self._burst, _sleep=self._sleep, logging_level=self._logging.level)

    def reap_workers(self) -> None:
        """Forgets the workers that have ended."""
        for worker_data in list(self.worker_dict.values()):
            if not worker_data.process.is_alive():
                self.handle_dead_worker(worker_data)

    def all_workers_have_stopped(self) -> bool:
        """Whether no worker is left."""
        self.reap_workers()
        return not self.worker_dict

    def handle_dead_worker(self, worker_data: WorkerData) -> None:
        """Called once for each worker that has ended."""
        self.worker_dict.pop(worker_data.name, None)
        exitcode = worker_data.process.exitcode
        self.log.info('Worker pool %s: worker %s ended with status %s', self.name, worker_data.name, exitcode)
        self._restarts.note_death(worker_data.started_at)
        if exitcode == SETUP_FAILED and self._setup_error is None:
            self._setup_error = _note(worker_data.process).get('error')
            if self._setup_error:
                self.request_stop()
        elif exitcode:
            self._give_up_lease(worker_data.name)

    def _give_up_lease(self, worker_name: str) -> None:
        """Whoever looks next, a new worker at once, takes over the jobs of one that died without a word."""
        try:
            transitions.extend(self.connection, worker_name, lease_ms=0)
        except RedisError as error:
            self.log.warning('Worker pool %s: the lease of %s ends by itself: %s', self.name, worker_name, error)

    # ---- stopping ----

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Stops the pool: warm the first time, cold when asked again after a second. A handler of signals.

        Under `start` it sets a flag only, else it tells the workers itself.
        """
        self.status = self.Status.STOPPED
        self._stop.request()
        if self._wake is not None:
            self._wake.wake()
        else:
            self._pass_on_stop()

    def _pass_on_stop(self) -> None:
        if self._stop.take_request():
            self.log.info('Worker pool %s: shutting down', self.name)
            self.stop_workers()
        if self._stop.since is None:
            return
        waited = time.monotonic() - self._stop.since
        for worker_data in self.worker_dict.values():
            grace = 0 if self._stop.is_cold else _note(worker_data.process).get('grace')
            if grace is not None and waited > grace + LEAVE_SECONDS:
                self.log.warning('Worker pool %s: worker %s does not leave, killing it', self.name, worker_data.name)
                worker_data.process.kill()

    def stop_workers(self) -> None:
        """Asks all workers to shut down; does not wait for them."""
        for worker_data in list(self.worker_dict.values()):
            self.stop_worker(worker_data)

    def stop_worker(self, worker_data: WorkerData, sig: signal.Signals = signal.SIGINT) -> None:
        """Sends a signal to a worker; one that has ended is fine."""
        if worker_data.process.is_alive():
            try:
                os.kill(worker_data.pid, sig)
            except ProcessLookupError:
                self.log.debug('Worker pool %s: worker %s has ended already', self.name, worker_data.name)


class _Logging:
    """How workers log."""

    def __init__(
        self,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        config: dict[str, Any] | None = None,
    ):
        self.level = 'INFO'
        self.date_format = date_format
        self.log_format = log_format
        self.config = config


class _Restarts:
    """When dead workers may be replaced: at once, unless the replacements die young as well."""

    def __init__(self) -> None:
        self._young_deaths = 0
        self._counted_at = 0.0
        self._due_at = 0.0

    @property
    def are_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def note_death(self, started_at: float) -> None:
        present = time.monotonic()
        if present - started_at >= STEADY_SECONDS:
            self._young_deaths = 0
        elif started_at >= self._counted_at:
            # Once for all that were started together.
            self._young_deaths += 1
            self._counted_at = present
            if self._young_deaths > 1:
                self._due_at = present + min(2.0 ** (self._young_deaths - 2), MAX_DELAY_SECONDS)


class _Stop:
    """The wish to stop, as signals express it."""

    def __init__(self) -> None:
        #: When the present kind of stop began; monotonic.
        self.since: float | None = None
        self.is_cold = False
        self._is_new = False

    def request(self) -> None:
        present = time.monotonic()
        if self.since is None:
            self.since, self._is_new = present, True
        elif not self.is_cold and present - self.since >= SAME_REQUEST_SECONDS:
            self.since, self.is_cold, self._is_new = present, True, True

    def take_request(self) -> bool:
        """Whether there is a request that was not passed on."""
        is_new, self._is_new = self._is_new, False
        return is_new


def _note(process: Process) -> dict[str, Any]:
    note: dict[str, Any] = process.note() if isinstance(process, FreshProcess) else {}
    return note


def _is_known_to_need_patching(worker_class: type[BaseWorker] | str) -> bool:
    """Without importing it. A class that needs it and is not known to makes its process start over."""
    if isinstance(worker_class, str):
        return worker_class in bootstrap.GEVENT_WORKER_NAMES
    return worker_class.needs_monkey_patching


# ---- in the worker's process ----


def run_worker(
    worker_name: str,
    queue_names: Iterable[str],
    connection_class: type[Redis],
    connection_pool_class: type[Any],
    connection_pool_kwargs: dict[str, Any],
    worker_class: type[BaseWorker] = Worker,
    serializer: Any = DefaultSerializer,
    job_class: type[Job] = Job,
    queue_class: type[Queue] = Queue,
    exception_handlers: Any = None,
    burst: bool = True,
    logging_level: str = 'INFO',
    _sleep: float = 0,
) -> None:
    """Makes a worker and runs it in this process. Connection arguments as from `parse_connection`."""
    worker = _build_worker(
        worker_name,
        queue_names,
        put_together(connection_class, connection_pool_class, connection_pool_kwargs),
        worker_class=worker_class,
        serializer=serializer,
        job_class=job_class,
        queue_class=queue_class,
        exception_handlers=exception_handlers,
    )
    time.sleep(_sleep)
    worker.work(burst=burst, logging_level=logging_level, with_scheduler=True)


def _set_up_worker(
    worker_name: str,
    queue_names: Iterable[str],
    client_class: type[Redis],
    connection_class: type[Any],
    connection_kwargs: dict[str, Any],
    *,
    worker_class: type[BaseWorker] | str,
    burst: bool,
    logging_level: str,
    log: _Logging,
    worker_options: dict[str, Any],
    _sleep: float,
    **classes: Any,
) -> Callable[[], Any]:
    """What a `FreshProcess` of the pool is given."""
    if log.config:
        logging.config.dictConfig(log.config)
    found = _loaded(worker_class)
    _check_options(found, worker_options)
    connection = put_together(client_class, connection_class, connection_kwargs)
    worker = _build_worker(worker_name, queue_names, connection, worker_class=found, **classes, **worker_options)
    leave_note(grace=getattr(worker, 'grace', None))

    def work() -> None:
        # A stop that comes before the worker has handlers of its own must not find it half registered.
        for number in STOP_SIGNALS:
            signal.signal(number, worker.request_stop)
        time.sleep(_sleep)
        worker.work(
            burst=burst,
            logging_level=logging_level,
            date_format=log.date_format,
            log_format=log.log_format,
            with_scheduler=True,
        )

    return work


def _loaded(worker_class: type[BaseWorker] | str) -> type[BaseWorker]:
    """The class; does not return, but starts the process over, where it needs one that is patched from the start."""
    found = _import_class(worker_class) if isinstance(worker_class, str) else worker_class
    if not isinstance(found, type) or not issubclass(found, BaseWorker):
        raise ConfigurationError(
            f'{worker_class!r} is not a worker class: it does not inherit from greenq.worker.BaseWorker. '
            f'Name a class that does.'
        )
    if found.needs_monkey_patching and not bootstrap.is_patched_first():
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        os.lseek(0, 0, os.SEEK_SET)
        bootstrap.restart_patched()
    return found


def _import_class(name: str) -> Any:
    try:
        return import_attribute(name)
    except Exception as error:
        raise ConfigurationError(
            f'Cannot import worker class {name!r}: {error}. Give a dotted path that can be imported from here.'
        ) from error


def _check_options(worker_class: type[BaseWorker], options: dict[str, Any]) -> None:
    given = [name for name in ('concurrency', 'grace') if name in options]
    if given and not worker_class.accepts_concurrency:
        raise ConfigurationError(
            f'{" and ".join(given)} cannot be used with {worker_class.__name__}, which does not run jobs concurrently. '
            f'Use greenq.GeventWorker, or leave it out.'
        )


def _build_worker(
    name: str,
    queue_names: Iterable[str],
    connection: Redis,
    *,
    worker_class: type[BaseWorker],
    serializer: Any,
    job_class: type[Job],
    queue_class: type[Queue],
    exception_handlers: Any,
    **worker_options: Any,
) -> BaseWorker:
    return worker_class(
        [queue_class(queue_name, connection=connection) for queue_name in queue_names],
        name=name,
        connection=connection,
        serializer=serializer,
        job_class=job_class,
        queue_class=queue_class,
        exception_handlers=exception_handlers,
        **worker_options,
    )
