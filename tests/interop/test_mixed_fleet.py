"""Two workers of RQ and two of greenq on one queue, of which one each dies: no job is lost, none is in two places."""

from __future__ import annotations

import base64
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import redis
import rq
from rq.registry import StartedJobRegistry

import greenq
from tests.helpers import wait_until
from tests.interop import fleet_jobs
from tests.interop.fleet import (
    FleetWorker,
    Ledger,
    fields,
    fleet,
    held_jobs,
    places,
    result_types,
    started_jobs,
)

pytestmark = pytest.mark.faults

JOBS = 10_000
SECONDS = 0.03
CHUNK = 500
#: Every so many jobs one raises.
FAILING = 100

#: RQ's numbers of the types of a result.
SUCCESSFUL, FAILED = 1, 2

FLEET = {
    'rq-1': ['rq'],
    'rq-2': ['rq'],
    'gevent': ['greenq', '-w', 'greenq.GeventWorker', '--concurrency', '50'],
    'fork': ['greenq', '-w', 'greenq.Worker'],
}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The file in which the jobs of all workers are entered."""
    path = tmp_path / 'ledger'
    monkeypatch.setenv(fleet_jobs.LEDGER_VARIABLE, str(path))
    return Ledger(path)


def job_id(number: int) -> str:
    return f'job-{number}'


def enqueue(connection: redis.Redis, total: int) -> None:
    """Jobs of both packages' producers, in turns."""
    for begin in range(0, total, CHUNK):
        package: Any = (rq, greenq)[begin // CHUNK % 2]
        queue = package.Queue(connection=connection)
        queue.enqueue_many(
            [
                queue.prepare_data(fleet_jobs.run, (number, SECONDS, number % FAILING == 0), job_id=job_id(number))
                for number in range(begin, begin + CHUNK)
            ]
        )


def kill_at_work(connection: redis.Redis, worker: FleetWorker) -> set[str]:
    """Kills a worker while it runs something; returns the jobs that it may have begun and not ended."""

    def in_its_hands() -> set[str]:
        return started_jobs(connection, worker.name) | held_jobs(connection, worker.name)

    def is_caught() -> bool:
        worker.freeze()
        if started_jobs(connection, worker.name):
            return True
        worker.thaw()
        return False

    wait_until(is_caught, 20, description=f'{worker.name} is caught at work')
    held = in_its_hands()
    worker.kill()
    # The server has carried out by now what the worker had sent just before.
    return held | in_its_hands()


def clean_up_after_rq(connection: redis.Redis) -> None:
    """What the maintenance of the living does in time: RQ's entries expire after 90 s, parked ids a minute later."""
    StartedJobRegistry('default', connection=connection).cleanup(timestamp=time.time() + 3600)
    queue = greenq.Queue(connection=connection)
    for waiting in queue.intermediate_queue.get_job_ids():
        connection.set(queue.intermediate_queue.get_first_seen_key(waiting), time.time() - 61)
    queue.intermediate_queue.cleanup(None, queue)


def count_waiting(connection: redis.Redis) -> int:
    """How many jobs wait for a worker, in the queue or handed to one of greenq's that has not claimed them yet."""
    client: Any = connection
    parked = sum(client.llen(key) for key in client.scan_iter('rq:greenq:parked:*'))
    return int(client.llen('rq:queue:default') + parked)


def is_settled(connection: redis.Redis, dead: str) -> bool:
    """Whether nothing waits or runs, but what a dead worker of RQ left; no other of RQ's may be alive."""
    client: Any = connection
    running = {entry.decode().rpartition(':')[0] for entry in client.zrange('rq:wip:default', 0, -1)}
    not_begun = {id.decode() for id in client.lrange('rq:queue:default:intermediate', 0, -1)}
    return count_waiting(connection) == 0 and running <= started_jobs(connection, dead) | not_begun


@pytest.mark.parametrize(('victim', 'killed_after'), [('gevent', 8000), ('fork', 5000)])
def test_a_mixed_fleet_loses_no_job(
    connection: redis.Redis,
    server_url: str,
    tmp_path: Path,
    ledger: Ledger,
    victim: str,
    killed_after: int,
) -> None:
    """The later the gevent worker dies, the less is left to the forking ones, which run some sixty jobs a second."""
    with fleet(connection, server_url, tmp_path, FLEET) as workers:
        enqueue(connection, JOBS)
        wait_until(lambda: ledger.size >= 2 * killed_after, 60, description='the fleet is midway')
        of_rq = kill_at_work(connection, workers['rq-1'])
        of_greenq = kill_at_work(connection, workers[victim])
        wait_until(lambda: count_waiting(connection) == 0, 80, 0.1, 'the queue is empty')
        # What RQ has in its hands without a trace of whose hands they are is then left by the dead.
        workers['rq-2'].end()
        wait_until(lambda: is_settled(connection, 'rq-1'), 60, 0.1, 'nothing waits and nothing runs')
        clean_up_after_rq(connection)
        wait_until(lambda: is_over(connection), 20, 0.1, 'what the dead left has ended')
    check_places(connection)
    abandoned = check_outcomes(connection)
    assert abandoned <= (of_rq if victim == 'gevent' else of_rq | of_greenq)
    doubled = check_ledger(ledger, abandoned)
    assert doubled <= of_rq | of_greenq, 'only what a worker had in hand when it died may run twice'
    print(f'{len(abandoned)} jobs failed with their worker, {len(doubled)} ran twice')


def is_over(connection: redis.Redis) -> bool:
    """Whether every job is in a registry of those that have ended."""
    return {place for where in places(connection).values() for place in where} <= {'finished', 'failed'}


def check_places(connection: redis.Redis) -> None:
    """Every job is in one place, that which its status names."""
    ids = [job_id(number) for number in range(JOBS)]
    found = places(connection)
    assert set(found) == set(ids), 'none is lost, and none is made up'
    assert {id: where for id, where in found.items() if len(where) != 1} == {}, 'none is in two places'
    statuses = fields(connection, ids, 'status')
    assert {id: (statuses[id], found[id]) for id in ids if statuses[id] != found[id]} == {}


def check_outcomes(connection: redis.Redis) -> set[str]:
    """Every job ended once, as it was to; returns those that failed because their worker died."""
    client: Any = connection
    failed = {id.decode() for id in client.zrange('rq:failed:default', 0, -1)}
    to_fail = {job_id(number) for number in range(0, JOBS, FAILING)}
    abandoned = {id for id in failed if 'AbandonedJobError' in last_line(client, id)}
    assert failed - abandoned == to_fail - abandoned
    types = result_types(connection, [job_id(number) for number in range(JOBS)])
    wrong = {id: found for id, found in types.items() if found != [FAILED if id in failed else SUCCESSFUL]}
    assert wrong == {}, 'each has one result'
    return abandoned


def check_ledger(ledger: Ledger, abandoned: set[str]) -> set[str]:
    """Every job ran to its end, but those whose worker died; returns those that began more than once."""
    began, ended = ledger.count('start'), ledger.count('end')
    assert {job_id(number) for number in range(JOBS) if not ended[number]} <= abandoned
    assert max(began.values()) <= 2
    return {job_id(number) for number, times in began.items() if times > 1}


def last_line(client: Any, id: str) -> str:
    """The last line of the exception of a job's last result."""
    ((_, entry),) = client.xrevrange(f'rq:results:{id}', count=1)
    text = zlib.decompress(base64.b64decode(entry[b'exc_string'])).decode()
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize('options', [FLEET['gevent'], FLEET['fork']], ids=['gevent', 'fork'])
def test_what_a_dead_rq_worker_had_taken_and_not_begun_runs(
    connection: redis.Redis, server_url: str, tmp_path: Path, ledger: Ledger, options: list[str]
) -> None:
    """RQ would fail it; greenq's cleaning returns it to its queue."""
    client: Any = connection
    intermediate = 'rq:queue:default:intermediate'
    with fleet(connection, server_url, tmp_path, {'rq-1': ['rq']}) as workers:
        wait_until(lambda: client.hget('rq:worker:rq-1', 'state') == b'idle' and waits(client), 20)
        # The server hands the job to the frozen worker, whose connection still waits for one.
        workers['rq-1'].freeze()
        job = rq.Queue(connection=connection).enqueue(fleet_jobs.run, 1, 0, False)
        wait_until(lambda: client.lrange(intermediate, 0, -1) == [job.id.encode()])
        workers['rq-1'].kill()
    assert places(connection) == {job.id: ['intermediate']}
    with fleet(connection, server_url, tmp_path, {'green': [*options, '--maintenance-interval', '1']}):
        first_seen = f'{intermediate}:first_seen:{job.id}'
        wait_until(lambda: client.exists(first_seen), 20, description='the cleaning has seen it')
        assert places(connection) == {job.id: ['intermediate']}, 'its worker may yet begin it'
        client.set(first_seen, time.time() - 61)
        wait_until(lambda: places(connection) == {job.id: ['finished']}, 20, description='it ran')
    assert ledger.count('start') == ledger.count('end') == {1: 1}
    assert result_types(connection, [job.id]) == {job.id: [SUCCESSFUL]}
    assert not client.exists(first_seen)


def waits(client: Any) -> bool:
    """Whether some client waits for a job of RQ's queue."""
    return any(found['cmd'] in ('blmove', 'brpoplpush', 'blpop') for found in client.client_list())
