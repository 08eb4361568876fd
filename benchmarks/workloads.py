"""The workloads: each measures one contender once and returns figures by name. `benchmarks.plan` decides which run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.backlog import Backlog
from benchmarks.contenders import Contender, Installed
from benchmarks.servers import Cost, Server
from benchmarks.session import Drain, Session

Figures = dict[str, float]

NAP_SECONDS = 0.05
#: Slots in the workloads that are not about slots; the default of greenq's gevent worker and what peers' documents use.
PLAIN_SLOTS = 100
NAP_SLOTS = (PLAIN_SLOTS, 500, 1000, 5000)
HTTP_SLOTS = 200
PROCESS_SLOTS = 500
IN_FLIGHT = (1000, 10_000)
BACKLOGS = {'1k': 1_000, '100k': 100_000, '1m': 1_000_000}


class Scale(NamedTuple):
    """How much is measured."""

    #: What a drain should take (s), by a contender's pace; for peers two thirds of it.
    seconds: float = 1.5
    #: Enqueued one by one; at a time.
    enqueued: int = 2_000
    enqueued_bulk: int = 20_000
    #: Samples of latency per round; peers two thirds.
    samples: int = 120
    #: How long (s) an idle worker is watched; peers half as long.
    idle_seconds: float = 24.0
    #: Jobs timed at each length of the queue.
    backlog_jobs: int = 60_000
    backlogs: Sequence[str] = ('1k', '100k', '1m')


QUICK = Scale(0.3, 200, 2_000, 20, 2.0, 2_000, ('1k', '100k'))


# ---- with a worker of PLAIN_SLOTS ----


def noop(session: Session, scale: Scale) -> Figures:
    """Jobs that do nothing."""
    count = max(int(session.contender.pace * _seconds(session.contender, scale)), 20)
    return _drain_figures('noop', count, session.drain('noop', count))


def latency(session: Session, scale: Scale) -> list[float]:
    """Milliseconds from the call that enqueues to the start of the job, on an idle worker."""
    session.records.reset()
    asked = session.producer.ask(
        'each_when_idle', 'noop', scale.samples * 2 // 3 if session.contender.is_peer else scale.samples
    )
    began = {record.number: record.began for record in session.records.read()}
    return [(began[number] - moment) * 1000 for number, moment in enumerate(asked)]


def redis_cost(session: Session, scale: Scale) -> Figures:
    """What an idle worker costs Redis per second, and what one job on it does, without its enqueueing."""
    server, watched = session.server, scale.idle_seconds / (4 if session.contender.is_peer else 1)
    time.sleep(session.contender.calms_within)
    before = server.cost()
    time.sleep(watched)
    idle = (server.cost() - before).per(watched)
    single = _single_cost(session, idle)
    figures = {'idle.commands_per_second': idle.commands, 'idle.round_trips_per_second': idle.round_trips}
    if min(single) > 0:
        # Otherwise lost in its polling.
        figures |= {'single.commands': single.commands, 'single.round_trips': single.round_trips}
    return figures


def _single_cost(session: Session, idle: Cost, samples: int = 9) -> Cost:
    server, producer = session.server, session.producer
    session.records.reset()
    session.worker.pause()
    before = server.cost()
    producer.ask('one_by_one', 'noop', samples)
    enqueueing = (server.cost() - before).per(samples)
    session.worker.resume()
    session.wait(samples)
    costs = []
    for number in range(samples):
        time.sleep(0.15)
        before, began = server.cost(), time.monotonic()
        producer.ask('each_when_idle', 'noop', 1, first=samples + number)
        time.sleep(0.1)
        passed = time.monotonic() - began
        costs.append(server.cost() - before - idle.per(1 / passed) - enqueueing)
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


# ---- with a worker of so many slots ----


def naps(session: Session, scale: Scale) -> Figures:
    """Jobs that wait 50 ms; whole waves, so that the ideal is exact."""
    slots = session.slots
    wanted = min(session.contender.pace, slots / NAP_SECONDS) * _seconds(session.contender, scale)
    count = int(wanted) // slots * slots or (slots if slots <= 1000 else int(wanted))
    drain = session.drain('nap', count, (NAP_SECONDS,))
    name = 'naps_fixed' if session.contender.fixed_slots else f'naps_{slots}'
    return _drain_figures(name, count, drain) | {
        f'{name}.percent_of_ideal': 100 * (count / drain.seconds) * NAP_SECONDS / slots
    }


def http(session: Session, scale: Scale, url: str) -> Figures:
    """Jobs that call an HTTP server which answers after 50 ms: all with requests, coroutines also with aiohttp."""
    figures = _http('http', 'fetch', session, scale, url)
    return figures | (_http('http_async', 'fetch_async', session, scale, url) if session.contender.is_asyncio else {})


def _http(name: str, job: str, session: Session, scale: Scale, url: str) -> Figures:
    session.run(job, 1 if session.contender.forks else 20, (url,))
    ideal = session.slots / NAP_SECONDS
    # The client library alone takes half a millisecond.
    count = max(int(min(session.contender.pace, 2000, ideal) * _seconds(session.contender, scale)), session.slots, 10)
    return _drain_figures(name, count, session.drain(job, count, (url,)))


def _seconds(contender: Contender, scale: Scale) -> float:
    return scale.seconds * (2 / 3 if contender.is_peer else 1)


def _drain_figures(name: str, count: int, drain: Drain) -> Figures:
    return {
        f'{name}.jobs_per_second': count / drain.seconds,
        f'{name}.worker_us': drain.worker_us,
        f'{name}.server_us': drain.server.cpu_seconds * 1e6,
        f'{name}.commands': drain.server.commands,
        f'{name}.round_trips': drain.server.round_trips,
        f'{name}.doubled': drain.doubled,
    }


# ---- with sessions of their own ----


def enqueue(installed: Installed, server: Server, scale: Scale) -> Iterator[Figures]:
    """A producer alone: one job after the other, and many at a time."""
    with Session(installed, server) as session:
        producer = session.producer
        producer.ask('fill', 'noop', 20)
        before = server.cost()
        seconds = producer.ask('one_by_one', 'noop', scale.enqueued)
        cost = (server.cost() - before).per(scale.enqueued)
        yield {
            'enqueue.one_per_second': scale.enqueued / seconds,
            'enqueue.one_commands': cost.commands,
            'enqueue.one_round_trips': cost.round_trips,
        }
        bulk = scale.enqueued_bulk // (4 if installed.contender.is_peer else 1)
        if (seconds := producer.ask('bulk', 'noop', bulk)) is not None:
            yield {'enqueue.bulk_per_second': bulk / seconds}


def memory(installed: Installed, server: Server, scale: Scale) -> Iterator[Figures]:
    """An idle worker, and one with many jobs in flight."""
    contender = installed.contender
    with Session(installed, server, PLAIN_SLOTS) as session:
        time.sleep(1.0)
        idle = session.worker.memory()
        yield {'memory.idle_mib': idle.total, 'memory.idle_largest_mib': idle.largest}
    server.clear()
    is_short = contender.is_peer or contender.fixed_slots or scale is QUICK
    for wanted in IN_FLIGHT[:1] if is_short else IN_FLIGHT:
        with Session(installed, server, wanted) as session:
            held = session.hold(session.slots)
            base = 0.0 if contender.fixed_slots else idle.total
            yield {
                f'memory.{wanted}_mib': held.total,
                f'memory.{wanted}_largest_mib': held.largest,
                f'memory.{wanted}_kib_per_job': (held.total - base) * 1024 / session.slots,
            }
        server.clear()


def backlog(installed: Installed, server: Server, scale: Scale) -> Iterator[Figures]:
    """The rate of no-op jobs when so many more wait behind those that are timed."""
    with Session(installed, server) as session:
        filler = Backlog(session)
        # The first time is for the server, whose memory and tables have to grow.
        for number, name in enumerate((scale.backlogs[0], *scale.backlogs)):
            filler.fill(BACKLOGS[name] + scale.backlog_jobs)
            session.records.reset()
            session.start_worker(PLAIN_SLOTS)
            session.wait(scale.backlog_jobs, patience=60)
            session.end_worker()
            # Its start is not to be timed.
            ended = sorted(record.ended for record in session.records.read())[: scale.backlog_jobs]
            timed = ended[len(ended) // 5 :]
            if number:
                yield {f'backlog_{name}.jobs_per_second': (len(timed) - 1) / (timed[-1] - timed[0])}


def processes(installed: Installed, server: Server, scale: Scale) -> Iterator[Figures]:
    """One process, then two with as many slots each."""
    for count in (1, 2):
        with Session(installed, server, PROCESS_SLOTS, processes=count) as session:
            noops = int(installed.contender.pace * scale.seconds) * count
            naps_count = int(PROCESS_SLOTS / NAP_SECONDS * scale.seconds) * count
            yield {f'processes_{count}.noops_per_second': noops / session.drain('noop', noops).seconds}
            drain = session.drain('nap', naps_count, (NAP_SECONDS,))
            yield {f'processes_{count}.naps_per_second': naps_count / drain.seconds}
        server.clear()


def has_backlog(contender: Contender) -> bool:
    """Whether `backlog` and `processes` can measure it, and are worth the time."""
    return contender.has_rq_layout and not contender.fixed_slots
