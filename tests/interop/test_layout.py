"""What each package writes for the same calls, compared key by key.

Left out everywhere: greenq's own keys below `rq:greenq:` and hash fields `greenq_*`, which RQ ignores. Every other
difference is listed in `DIFFERENCES`, with its reason; one that is listed and does not occur fails as well.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from tests.interop import jobs
from tests.interop.dump import dump
from tests.interop.packages import GREENQ, RQ, WORKER, Package

Dump = dict[str, dict[str, Any]]


def plain(connection: redis.Redis, package: Package) -> None:
    queue = package.queue(connection)
    queue.enqueue(jobs.add, 1, job_id='a')
    queue.enqueue(jobs.add, 2, b=3, job_id='b', at_front=True)


def with_every_option(connection: redis.Redis, package: Package) -> None:
    package.queue(connection).enqueue(
        jobs.add,
        1,
        b=2,
        job_id='a',
        meta={'x': 1},
        description='adds',
        result_ttl=100,
        ttl=200,
        failure_ttl=300,
        job_timeout=50,
        retry=package.top.Retry(max=2, interval=[1, 2]),
        repeat=package.top.Repeat(times=2, interval=[3, 4]),
        on_success=package.top.Callback(jobs.note_success),
        on_failure=package.top.Callback(jobs.note_failure, timeout=5),
    )


def many(connection: redis.Redis, package: Package) -> None:
    queue = package.queue(connection)
    queue.enqueue_many([queue.prepare_data(jobs.add, (number,), job_id=f'job{number}') for number in range(3)])


def scheduled(connection: redis.Redis, package: Package) -> None:
    package.queue(connection).enqueue_in(timedelta(hours=1), jobs.add, 1, job_id='a')


def deferred(connection: redis.Redis, package: Package) -> None:
    queue = package.queue(connection)
    queue.enqueue(jobs.add, 1, job_id='parent')
    dependency = package.Dependency(jobs=['parent'], allow_failure=True, enqueue_at_front=True)
    queue.enqueue(jobs.add, 2, job_id='child', depends_on=dependency, ttl=77)


def held_back(connection: redis.Redis, package: Package) -> None:
    limit = package.top.RateLimit(key='narrow', concurrency=1)
    for job_id in 'ab':
        package.queue(connection).enqueue(jobs.add, 1, job_id=job_id, rate_limit=limit)


def let_through(connection: redis.Redis, package: Package) -> None:
    held_back(connection, package)
    package.run(connection, max_jobs=1)


def running(connection: redis.Redis, package: Package) -> Dump:
    seen: list[Dump] = []
    jobs.observers[:] = [lambda: seen.append(dump(connection))]
    package.queue(connection).enqueue(jobs.look_around, job_id='a', ttl=1000)
    package.run(connection)
    return seen[0]


def finished(connection: redis.Redis, package: Package, **options: Any) -> None:
    package.queue(connection).enqueue(jobs.add, 1, job_id='a', **options)
    package.run(connection)


def finished_for_ever(connection: redis.Redis, package: Package) -> None:
    finished(connection, package, result_ttl=-1)


def finished_and_forgotten(connection: redis.Redis, package: Package) -> None:
    finished(connection, package, result_ttl=0)


def repeated(connection: redis.Redis, package: Package) -> None:
    finished(connection, package, repeat=package.top.Repeat(times=2, interval=[50, 60]))


def with_dependent_released(connection: redis.Redis, package: Package) -> None:
    queue = package.queue(connection)
    queue.enqueue(jobs.add, 1, job_id='parent')
    queue.enqueue(jobs.add, 2, job_id='child', depends_on='parent')
    package.run(connection, max_jobs=1)


def with_dependent_finished(connection: redis.Redis, package: Package) -> None:
    with_dependent_released(connection, package)
    package.run(connection)


def failed(connection: redis.Redis, package: Package, **options: Any) -> None:
    package.queue(connection).enqueue(jobs.divide, job_id='a', **options)
    package.run(connection, max_jobs=1)


def failed_with_ttl(connection: redis.Redis, package: Package) -> None:
    failed(connection, package, failure_ttl=300)


def failed_for_ever(connection: redis.Redis, package: Package) -> None:
    failed(connection, package, failure_ttl=-1)


def retried(connection: redis.Redis, package: Package) -> None:
    failed(connection, package, retry=package.top.Retry(max=2))


def retried_later(connection: redis.Redis, package: Package) -> None:
    failed(connection, package, retry=package.top.Retry(max=2, interval=100))


def retry_returned(connection: redis.Redis, package: Package) -> None:
    jobs.retry_class[:] = [package.top.Retry]
    package.queue(connection).enqueue(jobs.ask_again, job_id='a')
    package.run(connection, max_jobs=1)


def canceled(connection: redis.Redis, package: Package) -> None:
    package.queue(connection).enqueue(jobs.add, 1, job_id='a').cancel()


def canceled_and_requeued(connection: redis.Redis, package: Package) -> None:
    canceled(connection, package)
    package.queue(connection).canceled_job_registry.requeue('a')


def failed_and_requeued(connection: redis.Redis, package: Package) -> None:
    failed(connection, package, failure_ttl=300)
    package.queue(connection).failed_job_registry.requeue('a')


def deleted(connection: redis.Redis, package: Package) -> None:
    package.queue(connection).enqueue(jobs.add, 1, job_id='a').delete()


def emptied(connection: redis.Redis, package: Package) -> None:
    plain(connection, package)
    package.queue(connection).empty()


def worker_born(connection: redis.Redis, package: Package) -> None:
    package.SimpleWorker(['default', 'low'], name=WORKER, connection=connection).register_birth()


def worker_dead(connection: redis.Redis, package: Package) -> None:
    worker = package.SimpleWorker(['default'], name=WORKER, connection=connection)
    worker.register_birth()
    worker.register_death()


SCENARIOS: list[Callable[[redis.Redis, Package], Any]] = [
    plain,
    with_every_option,
    many,
    scheduled,
    deferred,
    held_back,
    let_through,
    running,
    finished,
    finished_for_ever,
    finished_and_forgotten,
    repeated,
    with_dependent_released,
    with_dependent_finished,
    failed,
    failed_with_ttl,
    failed_for_ever,
    retried,
    retried_later,
    retry_returned,
    canceled,
    canceled_and_requeued,
    failed_and_requeued,
    deleted,
    emptied,
    worker_born,
    worker_dead,
]

#: scenario -> {what differs: why}
DIFFERENCES: dict[str, dict[str, str]] = {
    'running': {
        'rq:execution:a:EXECUTION ttl': 'greenq beats while a simple worker runs a job; RQ waits for its timeout',
        'rq:executions:a ttl': 'likewise',
        'rq:executions:a content': 'likewise',
        'rq:wip:default content': 'likewise',
        'rq:worker:worker-1 ttl': 'likewise',
    },
    'failed': {'rq:results:a ttl': 'with RQ the result outlives its job for ever'},
    'repeated': {
        'rq:finished:default': 'with RQ a job that waits for its repeat is in two registries',
        'rq:job:a result': 'RQ writes a field that only older versions read',
    },
    'retry_returned': {
        'rq:job:a result': 'RQ writes a field that only older versions read',
        'rq:results:a ttl': 'with RQ the result outlives its job for ever',
    },
    'canceled_and_requeued': {'rq:job:a exc_info': 'RQ writes a field that only older versions read'},
    'failed_and_requeued': {
        'rq:job:a exc_info': 'RQ writes a field that only older versions read',
        'rq:job:a last_heartbeat': 'RQ keeps that of the last run',
        'rq:job:a ttl': 'with RQ a job that waits for long is deleted unseen when its failure would have expired',
    },
}


def differences(left: Dump, right: Dump) -> set[str]:
    """What differs: keys that only one has, `key ttl`, `key field` of a hash, `key content` of others."""
    found = left.keys() ^ right.keys()
    for key in left.keys() & right.keys():
        one, other = left[key], right[key]
        found |= {f'{key} {part}' for part in ('type', 'ttl') if one[part] != other[part]}
        if one['type'] == other['type'] == 'hash':
            fields = one['content'].keys() | other['content'].keys()
            missing = object()
            found |= {
                f'{key} {field}'
                for field in fields
                if one['content'].get(field, missing) != other['content'].get(field, missing)
            }
        elif one['content'] != other['content']:
            found.add(f'{key} content')
    return set(found)


@pytest.mark.parametrize('scenario', SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_both_write_the_same(connection: redis.Redis, scenario: Callable[[redis.Redis, Package], Any]) -> None:
    dumps = []
    for package in (RQ, GREENQ):
        connection.flushall()
        seen = scenario(connection, package)
        dumps.append(seen or dump(connection))
    of_rq, of_greenq = dumps
    expected = set(DIFFERENCES.get(scenario.__name__, {}))
    found = differences(of_rq, of_greenq)
    keys = {name.partition(' ')[0] for name in found ^ expected}
    assert found == expected, [(key, of_rq.get(key), of_greenq.get(key)) for key in sorted(keys)]


def test_every_difference_belongs_to_a_scenario() -> None:
    assert set(DIFFERENCES) <= {scenario.__name__ for scenario in SCENARIOS}
