"""The oracle itself: it must find what is wrong, or a green fault suite says nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import jobs
from tests.faults.ledger import Ledger
from tests.faults.oracle import Promises, check_at_any_time, judge


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    ledger = Ledger(tmp_path / 'ledger')
    monkeypatch.setenv(jobs.LEDGER_VARIABLE, str(ledger.path))
    return ledger


@pytest.fixture
def redis_with_job(connection: Any, ledger: Ledger) -> Any:
    """Redis as it is when the job `a` ended well."""
    connection.sadd('rq:queues', 'rq:queue:default')
    jobs.nap('a')
    connection.hset('rq:job:a', mapping={'status': 'finished', 'origin': 'default'})
    connection.zadd('rq:finished:default', {'a': time.time() + 60})
    connection.xadd('rq:results:a', {'type': 1})
    return connection


def broken(client: Any, ledger: Ledger, promises: Promises | None = None) -> list[str]:
    return judge(client, ledger, promises or Promises(ends={'a': 'finished'})).broken


def test_a_job_that_ended_well_is_in_order(redis_with_job: Any, ledger: Ledger) -> None:
    findings = judge(redis_with_job, ledger, Promises(ends={'a': 'finished'}))
    assert findings.broken == []
    assert (findings.jobs, findings.lost, findings.stuck, findings.duplicates) == (1, 0, 0, 0)


def test_a_lost_job_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    promises = Promises(ends={'a': 'finished', 'b': 'finished'})
    assert broken(redis_with_job, ledger, promises) == ['b is lost']
    promises.may_be_lost.add('b')
    assert broken(redis_with_job, ledger, promises) == []


@pytest.mark.parametrize('place', ['queue', 'wip', 'parked'])
def test_a_stuck_job_is_found(redis_with_job: Any, ledger: Ledger, place: str) -> None:
    client = redis_with_job
    client.zrem('rq:finished:default', 'a')
    client.hset('rq:job:a', 'status', 'started' if place == 'wip' else 'queued')
    if place == 'queue':
        client.rpush('rq:queue:default', 'a')
    elif place == 'wip':
        client.zadd('rq:wip:default', {'a:execution': 1})
    else:
        client.rpush('rq:greenq:parked:somebody', 'a')
    findings = judge(client, ledger, Promises(ends={'a': 'finished'}))
    assert findings.stuck == 1
    assert 'stuck' in findings.broken[0]


def test_a_job_in_two_places_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    redis_with_job.rpush('rq:queue:default', 'a')
    assert 'a is in 2 places: queued, finished' in broken(redis_with_job, ledger)
    assert check_at_any_time(redis_with_job, Promises(ends={'a': 'finished'})) != []


def test_a_second_run_is_found_and_needs_a_reason(redis_with_job: Any, ledger: Ledger) -> None:
    jobs.nap('a')
    assert broken(redis_with_job, ledger) == ['a ran 2 times without a reason']
    findings = judge(redis_with_job, ledger, Promises(ends={'a': 'finished'}, may_repeat={'a'}))
    assert (findings.broken, findings.duplicates) == ([], 1)


def test_a_failure_that_was_not_promised_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    client = redis_with_job
    client.zrem('rq:finished:default', 'a')
    client.zadd('rq:failed:default', {'a': 1})
    client.hset('rq:job:a', 'status', 'failed')
    findings = judge(client, ledger, Promises(ends={'a': 'finished'}))
    assert (findings.failed, findings.broken) == (1, ['a is failed, not finished'])


def test_a_status_that_does_not_go_with_the_place_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    redis_with_job.hset('rq:job:a', 'status', 'started')
    assert broken(redis_with_job, ledger) == ['a is finished, but its status is started']


def test_a_second_result_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    redis_with_job.xadd('rq:results:a', {'type': 1})
    assert broken(redis_with_job, ledger) == ['a has 2 results']


def test_a_finished_job_that_never_ran_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    ledger.path.write_text('')
    assert broken(redis_with_job, ledger) == ['a is finished, but never came to its end']


def test_a_job_that_nobody_enqueued_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    assert broken(redis_with_job, ledger, Promises()) == ["a is ['finished'], but nobody enqueued it"]
    assert broken(redis_with_job, ledger, Promises(uncertain={'a'})) == []


def test_a_bad_job_that_was_to_be_dropped_and_is_not_is_found(redis_with_job: Any, ledger: Ledger) -> None:
    assert 'should have been dropped' in broken(redis_with_job, ledger, Promises(ends={'a': 'dropped'}))[0]
