"""Runs a number of workers as processes, restarts those that die, and stops them all: RQ's `WorkerPool`.

The pool's own process runs no job and needs no gevent: each worker is a fresh interpreter, patched first if need be.
"""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from greenq import bootstrap
from greenq.child_process import STOP_SIGNALS
from greenq.connections import put_together, resolve_connection, taken_apart
from greenq.custody import Custody
from greenq.defaults import (
    CONCURRENT_ARGUMENTS,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_WORKER_TTL,
)
from greenq.exceptions import ConfigurationError
from greenq.fresh_process import SETUP_FAILED, FreshProcess, leave_note
from greenq.job import Job
from greenq.logutils import setup_loghandlers
from greenq.pulse import Pulse
from greenq.queue import Queue
from greenq.serializers import DefaultSerializer
from greenq.supervisor import Process, Supervisor, WorkerData
from greenq.utils import import_attribute, parse_names
from greenq.worker import BaseWorker, Worker

if TYPE_CHECKING:
    from redis import Redis


class WorkerPool(Supervisor):
    """Keeps `num_workers` workers running for the given queues.

    `worker_class` may be a dotted path: `'greenq.GeventWorker'` keeps gevent out of this process. `worker_options` are
    further arguments of that class, such as `concurrency` and `grace`. All classes, handlers and the serializer must be
    importable from a module, because the workers are interpreters of their own.
    """

    title = 'Worker pool'
    replaces_done = True

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
        self.connection = resolve_connection(connection)
        custody = Custody(lambda: self.connection, DEFAULT_WORKER_TTL)
        super().__init__(num_workers, custody, logging.getLogger('greenq.worker_pool'))
        self.worker_class = worker_class
        self.serializer = serializer
        self.job_class = job_class
        self.queue_class = queue_class
        self.exception_handlers = exception_handlers
        self.worker_options = worker_options
        self._queue_names: list[str] = parse_names(queues)
        self._connection_class, self._pool_class, self._pool_kwargs = taken_apart(self.connection)
        self._burst = True
        self._sleep: float = 0
        self._logging = _Logging()
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
        setup_loghandlers(logging_level, date_format, log_format, name='greenq.worker_pool', may_wait=False)
        self.log.info('Worker pool %s: starting %d workers, pid %d', self.name, self.num_workers, os.getpid())
        self._logging.level = logging_level or 'INFO'
        self.supervise(respawn=not burst)
        if self._setup_error:
            raise ConfigurationError(self._setup_error)

    def _start_all(self) -> None:
        self.start_workers(burst=self._burst, _sleep=self._sleep, logging_level=self._logging.level)

    def _start_another(self) -> None:
        self.start_worker(burst=self._burst, _sleep=self._sleep, logging_level=self._logging.level)

    def start_workers(self, burst: bool = True, _sleep: float = 0, logging_level: str = 'INFO') -> None:
        """Starts `num_workers` workers."""
        for count in range(1, self.num_workers + 1):
            self.start_worker(count, burst=burst, _sleep=_sleep, logging_level=logging_level)

    def start_worker(
        self, count: int | None = None, burst: bool = True, _sleep: float = 0, logging_level: str = 'INFO'
    ) -> None:
        """Starts one worker; `count` is ignored."""
        self._burst, self._sleep, self._logging.level = burst, _sleep, logging_level
        super()._start_another()

    def _new_process(self, name: str) -> Process:
        return self.get_worker_process(name, self._burst, self._sleep, self._logging.level)

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
            pulse=Pulse.shared(),
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

    def handle_dead_worker(self, worker_data: WorkerData) -> None:
        """Called once for each worker that has ended."""
        if worker_data.process.exitcode == SETUP_FAILED and self._setup_error is None:
            self._setup_error = _note(worker_data.process).get('error')
            if self._setup_error:
                self.request_stop()
        super().handle_dead_worker(worker_data)

    def _grace_of(self, worker_data: WorkerData) -> float | None:
        return _note(worker_data.process).get('grace')


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
    if not found.accepts_concurrency:
        _decline_pulse()
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


def _decline_pulse() -> None:
    """It gives no signs of life, and what its jobs start must not take the page for their own."""
    pulse = Pulse.inherited()
    if pulse is not None:
        pulse.close()


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
    given = [name for name in CONCURRENT_ARGUMENTS if name in options]
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
