"""What a worker is made of: its settings, and the parts, each made when it is first needed."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from greenq.connections import resolve_connection, worker_connection
from greenq.defaults import (
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
)
from greenq.executions import Execution
from greenq.job import Job
from greenq.queue import Queue
from greenq.serializers import resolve_serializer
from greenq.store import transitions
from greenq.store.states import checked_on_lost
from greenq.store.transitions import Claimed
from greenq.utils import (
    ensure_job_list,
    get_connection_from_queues,
    get_version,
    import_job_class,
    import_queue_class,
)
from greenq.worker.fetcher import Fetcher
from greenq.worker.finisher import Finisher
from greenq.worker.heartbeat import LIFETIME_SECONDS
from greenq.worker.record import WorkerRecord, WorkerStatus
from greenq.worker.signals import SignalHandlers, WakePipe
from greenq.worker.waiter import BLOCK_SECONDS, Waiter

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger('greenq.worker')
# What was configured for RQ's logger applies.
log.parent = logging.getLogger('rq.worker')
if log.level == logging.NOTSET:
    log.setLevel(logging.INFO)

#: A command that gets no answer for this long (s) has failed; Redis answers in milliseconds or is in trouble.
COMMAND_SECONDS = 10


class DequeueStrategy(str, Enum):
    """Which queue comes first: the first given, each in turn, or any."""

    DEFAULT = 'default'
    ROUND_ROBIN = 'round_robin'
    RANDOM = 'random'


class Wiring(WorkerRecord):
    """A worker's settings and parts; it does nothing with them."""

    #: Whether results' lifetimes and whole descriptions are logged.
    log_result_lifespan = True
    log_job_description = True

    #: Whether the class only works in a process that was monkey-patched before anything else.
    needs_monkey_patching = False
    #: Whether RQ's record of an execution is written when its job is claimed, not once it has run for a second.
    records_at_claim = True
    #: Whether the class takes `concurrency` and `grace`.
    accepts_concurrency = False
    #: What the process is to end with: `os.EX_TEMPFAIL` if its supervisor is to start another in its place.
    exit_status = 0
    #: What becomes of a job that the worker loses, unless the job says otherwise: `fail` (or retry, if it may) as in
    #: RQ, or `requeue`. A mapping says it for queues, by their names, and by None for all others.
    on_lost: str | Mapping[str | None, str] = 'fail'

    def __init__(
        self,
        queues: str | Queue | Sequence[str] | Sequence[Queue],
        name: str | None = None,
        default_result_ttl: int = DEFAULT_RESULT_TTL,
        connection: 'Redis | None' = None,
        exception_handlers: Any = None,
        maintenance_interval: int = DEFAULT_MAINTENANCE_TASK_INTERVAL,
        default_worker_ttl: int | None = None,
        worker_ttl: int | None = None,
        job_class: type[Job] | str | None = None,
        queue_class: type[Queue] | str | None = None,
        log_job_description: bool = True,
        job_monitoring_interval: int = DEFAULT_JOB_MONITORING_INTERVAL,
        disable_default_exception_handler: bool = False,
        prepare_for_work: bool = True,
        serializer: Any = None,
        work_horse_killed_handler: Callable[..., None] | None = None,
        on_lost: str | Mapping[str | None, str] | None = None,
    ):
        self._init_record()
        self.default_result_ttl = default_result_ttl
        self.worker_ttl = worker_ttl or default_worker_ttl or DEFAULT_WORKER_TTL
        self.job_monitoring_interval = job_monitoring_interval
        self.maintenance_interval = maintenance_interval
        self.connection = resolve_connection(connection or get_connection_from_queues(queues))
        if job_class:
            self.job_class = import_job_class(job_class) if isinstance(job_class, str) else job_class
        if queue_class:
            self.queue_class = import_queue_class(queue_class) if isinstance(queue_class, str) else queue_class
        self._serializer_arg = serializer
        self.serializer = resolve_serializer(serializer)
        self.name = name or os.urandom(16).hex()
        self.queues = [self._queue(item) if isinstance(item, str) else item for item in ensure_job_list(queues)]
        self.validate_queues()
        self._ordered_queues = self.queues[:]
        self._queues_by_name = {queue.name: queue for queue in self.queues}
        self._dequeue_strategy: DequeueStrategy | str | None = DequeueStrategy.DEFAULT
        self._exc_handlers: list[Callable[..., Any]] = []
        self._work_horse_killed_handler = work_horse_killed_handler
        self.disable_default_exception_handler = disable_default_exception_handler
        self.log_job_description = log_job_description
        self.on_lost = _rules(on_lost or {}, self.on_lost)
        self.log = log
        self.scheduler: Any = None
        self.last_cleaned_at: Any = None
        self.redis_server_version: tuple[int, int, int] | None = None
        self._token = transitions.new_token()
        self._is_horse = False
        self._horse_pid = 0
        self._stop_requested = False
        self._force_stop_requested = False
        self._stop_noted = False
        self._is_quiet = False
        self._stopped_job_id: str | None = None
        self._own_clients: list[Any] = []
        self._signal_handlers = SignalHandlers()
        if prepare_for_work:
            self._describe_process()
            self._set_ip_address(self.connection)
        for handler in ensure_job_list(exception_handlers) if exception_handlers is not None else []:
            self.push_exc_handler(handler)

    # Wiring: each part is made when it is first needed, so that a record read from Redis has none

    def _new_client(self, max_connections: int = 1, socket_timeout: float | None = COMMAND_SECONDS) -> Any:
        client = worker_connection(
            self.connection,
            max_connections=max_connections,
            socket_timeout=socket_timeout,
            blocking=True,
            connection_class=self._connection_class(),
        )
        self._own_clients.append(client)
        return client

    def _connection_class(self) -> Any:
        return self.connection.connection_pool.connection_class

    def _close_clients(self) -> None:
        """Not left to the garbage collector, for those who make many workers in one process."""
        while self._own_clients:
            self._own_clients.pop().close()

    @cached_property
    def _client(self) -> Any:
        """For the worker's own commands, none of which may be repeated blindly."""
        return self._new_client()

    @cached_property
    def _beat_client(self) -> Any:
        """Of its own, so that a beat never waits for another command."""
        return self._new_client()

    def _renew_parts(self) -> None:
        """Forgets all parts and requests, so that a worker can work again after it has stopped."""
        for name in [name for kind in type(self).__mro__ for name, value in vars(kind).items() if _is_part(value)]:
            self.__dict__.pop(name, None)
        self._token = transitions.new_token()
        self._stop_requested = self._force_stop_requested = self._stop_noted = self._is_quiet = False
        self._shutdown_requested_date = None

    @cached_property
    def _wake(self) -> WakePipe:
        return WakePipe()

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(self._client, self.name, LIFETIME_SECONDS, self.records_at_claim)

    @cached_property
    def _waiter(self) -> Waiter:
        pool = self._new_client(len(self.queues) + 1, socket_timeout=BLOCK_SECONDS * 2).connection_pool
        return Waiter(pool, self._client, self.name, self.queue_names(), self._wake, **self._waiter_options())

    def _waiter_options(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _finisher(self) -> Finisher:
        return Finisher(self._client, self.name, self._idle_state)

    def push_exc_handler(self, handler_func: Callable[..., Any]) -> None:
        """Adds an exception handler; the last added is called last."""
        self._exc_handlers.append(handler_func)

    def pop_exc_handler(self) -> Callable[..., Any]:
        """Removes the exception handler that was added last."""
        return self._exc_handlers.pop()

    def _idle_state(self) -> str:
        return '' if self.executions else WorkerStatus.IDLE.value

    def _set_ip_address(self, connection: 'Redis') -> None:
        """Names the connection after the worker and learns its address; servers may forbid either."""
        client: Any = connection
        try:
            client.client_setname(self.name)
            self.ip_address = str(client.client_info()['addr'])
        except (RedisError, KeyError):
            self.ip_address = 'unknown'

    def validate_queues(self) -> None:
        """TypeError if a queue is none of this worker's queue class."""
        for queue in self.queues:
            if not isinstance(queue, self.queue_class):
                raise TypeError(f'{queue} is not of type {self.queue_class} or string types')

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Version of the server, read once."""
        if self.redis_server_version is None:
            self.redis_server_version = get_version(self.connection)
        return self.redis_server_version

    def _queue_named(self, name: str) -> Queue:
        queue = self._queues_by_name.get(name)
        if queue is None:
            queue = self._queues_by_name[name] = self._queue(name)
        return queue

    def _fails_if_lost(self, job: Job, queue_name: str) -> bool:
        """Whether a job that is cut off while it runs is to fail, not to run again: the job's word comes first."""
        if job.on_lost:
            return job.on_lost == 'fail'
        if isinstance(self.on_lost, str):
            return self.on_lost == 'fail'
        return self.on_lost.get(queue_name, self.on_lost.get(None)) == 'fail'

    def _new_execution(self, claimed: Claimed) -> Execution:
        execution = Execution(claimed.execution_id, claimed.job_id, self.connection, worker_name=self.name)
        execution.queue_name = claimed.queue
        self.executions[execution.id] = execution
        return execution

    @property
    def horse_pid(self) -> int:
        """Process that runs the job, 0 if there is none."""
        return self._horse_pid

    @property
    def is_horse(self) -> bool:
        """Whether this is the process that runs the job, not the worker."""
        return self._is_horse

    def procline(self, message: str) -> None:
        """Sets the process title, where the package setproctitle is installed."""
        if _set_process_title is not None:
            _set_process_title(f'rq:worker:{self.name}: {message}')


def _rules(
    wanted: str | Mapping[str | None, str], default: str | Mapping[str | None, str]
) -> str | Mapping[str | None, str]:
    """What was asked for, checked; for queues of which nothing was said, the class's own rule."""
    if isinstance(wanted, str):
        return checked_on_lost(wanted)
    rules = {queue: checked_on_lost(rule) for queue, rule in wanted.items()}
    if not rules:
        return default
    return {**({None: default} if isinstance(default, str) else default), **rules}


def _find_process_title_setter() -> Callable[[str], None] | None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    setter: Callable[[str], None] = setproctitle
    return setter


_set_process_title = _find_process_title_setter()


def _is_part(value: object) -> bool:
    return isinstance(value, cached_property)
