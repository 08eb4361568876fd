"""One round of a row: a server, workers, jobs and a seeded chance of its own, so that rounds can run side by side."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import jobs
from tests.faults.ledger import Ledger, count_ended, jobs_of, read_executions, read_places
from tests.faults.network import Network
from tests.faults.oracle import Findings, Promises, check_at_any_time, judge
from tests.faults.servers import TROUBLE, Server
from tests.faults.workers import GREENQ, Library, Worker, environment

#: How long (s) a round waits for what is to come; what has not come by then is stuck.
PATIENCE_SECONDS = 60.0
#: The same once something did not come: the round is broken, and need not take for ever.
GIVEN_UP_SECONDS = 5.0
#: A result outlives its round.
RESULT_TTL = 86_400


class Trial:
    """What a row works with. It promises what `enqueue` accepts to the oracle, and cleans up as a context."""

    def __init__(self, library: Library, rng: random.Random, folder: Path, is_long: bool = False) -> None:
        self.library = library
        self.rng = rng
        self.folder = folder
        self.is_long = is_long
        self.promises = Promises()
        self.findings = Findings()
        self.ledger = Ledger(folder / 'ledger')
        self._stack = ExitStack()
        self._servers: list[Server] = []
        self._numbers = 0
        self._names = 0
        self._lock = threading.Lock()
        self._has_given_up = False
        #: When each job was accepted; monotonic.
        self.accepted_at: dict[str, float] = {}

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def is_greenq(self) -> bool:
        return self.library is GREENQ

    def pick(self, quick: int, long: int) -> int:
        """A size: small in a quick round."""
        return long if self.is_long else quick

    # ---- the stage ----

    def start_server(self, *options: str) -> Server:
        server = Server(self.folder / f'server-{len(self._servers)}', *options)
        self._servers.append(server)
        self._stack.callback(server.stop)
        server.start()
        return server

    @property
    def server(self) -> Server:
        """The server that counts; a row without special wishes gets one."""
        return self._servers[0] if self._servers else self.start_server()

    def serve_from(self, server: Server) -> None:
        """From now on another server counts."""
        self._servers.remove(server)
        self._servers.insert(0, server)

    @property
    def client(self) -> Any:
        """A plain client of the server."""
        client = self.server.client()
        self._stack.callback(client.close)
        return client

    def start_network(self) -> Network:
        return self._stack.enter_context(Network(self.server.port, self.rng))

    def start_worker(
        self,
        *options: str,
        url: str | None = None,
        name: str | None = None,
        slots: int = 20,
        grace: float | None = None,
        processes: int = 1,
        clock_shift: float = 0.0,
        wait: bool = True,
    ) -> Worker:
        """Starts a worker; without a word it is ready when this returns."""
        with self._lock:
            self._names += 1
            name = name or f'w{self._names}'
            log = self.folder / f'{name}.{self._names}.log'
        words = self.library.options(slots, grace, processes)
        command = self.library.command(url or self.server.url, name, *words, *options)
        worker = Worker(name, command, log, environment(self.ledger.path, clock_shift))
        self._stack.callback(worker.end)
        if wait:
            self.wait_until_ready(worker)
        return worker

    def start_process(self, name: str, command: Sequence[str]) -> Worker:
        """Starts some other process that can be harmed like a worker."""
        process = Worker(name, command, self.folder / f'{name}.log', environment(self.ledger.path))
        self._stack.callback(process.end)
        return process

    def wait_until_ready(self, worker: Worker) -> None:
        client = self.client
        self.must_come(
            lambda: _is_up(client, worker.name) or not worker.is_alive, f'worker {worker.name} is ready', fatal=True
        )
        if not worker.is_alive:
            raise RuntimeError(f'worker {worker.name} ended with status {worker.status}:\n{worker.output[-2000:]}')

    # ---- jobs ----

    def new_id(self) -> str:
        with self._lock:
            self._numbers += 1
            return f'j{self._numbers}'

    def queue(self, name: str = 'default', client: Any = None) -> Any:
        return self.library.api.Queue(name, connection=client or self.client)

    def enqueue(
        self,
        func: Callable[..., Any] | str,
        arguments: Iterable[Sequence[Any]],
        *,
        end: str = 'finished',
        queue: Any = None,
        **options: Any,
    ) -> list[str]:
        """Enqueues a job for each tuple of arguments; its id comes before them. Returns the ids, which are promised."""
        queue = self.queue() if queue is None else queue
        options.setdefault('result_ttl', RESULT_TTL)
        items = [(self.new_id(), tuple(each)) for each in arguments]
        # By its name, so that this process need not be able to import it.
        name = func if isinstance(func, str) else f'{func.__module__}.{func.__name__}'
        data = [queue.prepare_data(name, (id, *each), job_id=id, **options) for id, each in items]
        ids = [id for id, _ in items]
        self._promise(ids, end, lambda: [queue.enqueue_many(data[at : at + 500]) for at in range(0, len(data), 500)])
        return ids

    def naps(self, count: int, low: float, high: float, **options: Any) -> list[str]:
        """Jobs that take a random time (s)."""
        return self.enqueue(jobs.nap, [(round(self.rng.uniform(low, high), 3),) for _ in range(count)], **options)

    def schedule(
        self, func: Callable[..., Any], delays: Iterable[float], arguments: tuple[Any, ...] = (), client: Any = None
    ) -> list[str]:
        """Schedules a job in each of so many seconds; returns their ids, which are promised."""
        queue = self.queue(client=client)
        name = f'{func.__module__}.{func.__name__}'
        ids = []
        for delay in delays:
            id = self.new_id()
            options = {'job_id': id, 'args': (id, *arguments), 'result_ttl': RESULT_TTL}
            self._promise([id], 'finished', partial(queue.enqueue_in, timedelta(seconds=delay), name, **options))
            ids.append(id)
        return ids

    def _promise(self, ids: list[str], end: str, send: Callable[[], Any]) -> None:
        try:
            send()
        except BaseException:
            self.promises.uncertain.update(ids)
            raise
        present = time.monotonic()
        with self._lock:
            self.promises.ends.update(dict.fromkeys(ids, end))
            self.accepted_at.update(dict.fromkeys(ids, present))

    def try_to_enqueue(self, seconds: float = 0.0, queue: Any = None) -> bool:
        """Whether a nap was accepted; if not, it may be there all the same."""
        try:
            self.enqueue(jobs.nap, [(seconds,)], queue=queue)
        except TROUBLE:
            return False
        return True

    # ---- waiting and finding ----

    def must_come(
        self, predicate: Callable[[], Any], what: str, limit: float = PATIENCE_SECONDS, *, fatal: bool = False
    ) -> float:
        """Waits for a fact; returns the seconds it took. One that does not come breaks the round, or ends it."""
        began = time.monotonic()
        if self._has_given_up:
            limit = min(limit, GIVEN_UP_SECONDS)
        while not _is_true(predicate):
            if time.monotonic() - began > limit:
                self._has_given_up = True
                if fatal:
                    raise TimeoutError(f'not within {limit:g} s: {what}')
                self.require(False, f'not within {limit:g} s: {what}')
                break
            time.sleep(0.02)
        return time.monotonic() - began

    def require(self, holds: object, what: str) -> None:
        """Notes a promise that does not hold; the round goes on."""
        if not holds:
            self.findings.broken.append(what)

    def wait_for_starts(self, count: int) -> None:
        """Until so many runs began."""
        self.must_come(lambda: self.ledger.starts() >= count, f'{count} runs begin', fatal=True)

    def pause(self, low: float, high: float) -> None:
        """Lets a random time (s) go by: the fault may strike at any moment of it."""
        time.sleep(self.rng.uniform(low, high))

    def note_interrupted(self, *queues: str) -> set[str]:
        """Call it when the fault has struck: what runs now may run again. Returns the executions of the moment."""
        executions = read_executions(self.client, queues or ('default',))
        began = self.ledger.started()
        ended = {id for id, where in read_places(self.client).items() if where in (['finished'], ['failed'])}
        self.promises.may_repeat |= (jobs_of(executions) | began) - ended
        return executions

    def check_places(self) -> None:
        """What holds at every moment holds now."""
        self.findings.broken += check_at_any_time(self.client, self.promises)

    def wait_until_recovered(
        self, executions: set[str], limit: float, since: float, queues: tuple[str, ...] = ('default',)
    ) -> None:
        """Until none of some executions is in a started registry any more: its job waits again, or has ended."""
        client = self.client
        patience = max(PATIENCE_SECONDS - (time.monotonic() - since), 1.0)
        self.must_come(
            lambda: not executions & read_executions(client, queues), 'all that was interrupted is given back', patience
        )
        self.note_recovery(time.monotonic() - since, limit)

    def note_recovery(self, seconds: float, limit: float) -> None:
        self.findings.note_recovery(seconds)
        self.require(seconds <= limit, f'recovery took {seconds:.1f} s, more than {limit:g} s')

    def settle(self, patience: float = PATIENCE_SECONDS) -> None:
        """Waits until all that was promised has ended, in vain if some of it is lost or stuck."""
        client = self.client
        # Jobs that may be lost need not be there; those that are must end like the others.
        expected = sum(end != 'dropped' for end in self.promises.ends.values()) - len(self.promises.may_be_lost)
        until = time.monotonic() + (GIVEN_UP_SECONDS if self._has_given_up else patience)
        while not _is_true(lambda: count_ended(client) >= expected and self._nothing_waits(client)):
            if time.monotonic() > until:
                self._has_given_up = True
                return
            time.sleep(0.05)

    def _nothing_waits(self, client: Any) -> bool:
        places = read_places(client)
        return all(where[0] in ('finished', 'failed') for id, where in places.items() if id in self.promises.ends)

    def judge(self) -> Findings:
        """The findings of the round."""
        verdict = judge(self.client, self.ledger, self.promises)
        verdict.rounds = 0
        self.findings.add(verdict)
        self.findings.rounds = 1
        return self.findings


def _is_up(client: Any, name: str) -> bool:
    """Whether a worker is registered and listens to commands."""
    return bool(client.exists(f'rq:worker:{name}')) and dict(client.pubsub_numsub(f'rq:pubsub:{name}')) == {
        f'rq:pubsub:{name}'.encode(): 1
    }


def _is_true(predicate: Callable[[], Any]) -> bool:
    """Whether a fact is there; while the server is away, none is."""
    try:
        return bool(predicate())
    except TROUBLE:
        return False
