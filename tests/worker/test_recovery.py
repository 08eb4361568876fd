"""What dead workers held: recovered by whoever is alive, once, at the front of its queue, and without using a retry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError

from greenq import Callback, Queue, Retry
from greenq.defaults import IDLE_BEAT_SECONDS, LEASE_SECONDS, REAP_SECONDS
from greenq.job import Job, JobStatus
from greenq.store import keys, membership, transitions
from greenq.store.membership import Recovered
from greenq.worker import SimpleWorker
from greenq.worker.maintenance import Maintenance, recover_lost
from tests.helpers import wait_until
from tests.worker import jobs
from tests.worker.runner import Runner, Runners


def _reaper(connection: redis.Redis, name: str, settle: Callable[[Recovered], None] | None = None) -> Maintenance:
    def unexpected(item: Recovered) -> None:
        raise AssertionError(f'{item} is not to be adopted')

    return Maintenance(connection, name, settle or unexpected, lambda: None)


def _hold(connection: redis.Redis, count: int, on_lost: str = 'requeue') -> list[Job]:
    """Has a worker hold so many jobs, and then end its lease."""
    queue = Queue(connection=connection)
    held = [queue.enqueue(jobs.nothing) for _ in range(count)]
    membership.join(
        connection, 'dead', 't', ['default'], {'birth': '', 'queues': 'default'}, lease_ms=15_000, worker_ttl=420,
        on_lost=on_lost,
    )  # fmt: skip
    ids = [f'{number:032x}' for number in range(count)]
    while ids:
        claimed = transitions.claim(connection, 'dead', ['default'], ids, lifetime=180)
        assert claimed
        ids = ids[len(claimed) :]
    return held


def _end_lease(connection: Any, name: str = 'dead') -> None:
    connection.zadd(keys.leases(), {name: 0})


def _kill(runner: Runner, connection: redis.Redis) -> None:
    runner.kill()
    _end_lease(connection, runner.worker_name)


def test_a_lease_that_runs_is_respected(connection: redis.Redis) -> None:
    [job] = _hold(connection, 1)
    assert _reaper(connection, 'me').recover_lost() == 0
    assert job.get_status() == JobStatus.STARTED


def test_ten_reapers_recover_each_job_once(connection: redis.Redis, server_url: str) -> None:
    held = _hold(connection, 250)
    _end_lease(connection)
    counts: list[int] = []

    def reap(name: str) -> None:
        with redis.Redis.from_url(server_url) as own_client:
            barrier.wait()
            counts.append(_reaper(own_client, name).recover_lost())

    barrier = threading.Barrier(10)
    threads = [threading.Thread(target=reap, args=(f'reaper {number}',)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sum(counts) == 250
    queued = Queue(connection=connection).job_ids
    assert len(queued) == 250
    assert set(queued) == {job.id for job in held}
    assert not connection.exists(keys.held('dead'), keys.member('dead'), keys.worker('dead'))
    assert connection.zscore(keys.leases(), 'dead') is None


def test_what_a_worker_asked_to_have_failed_is_adopted_by_one(connection: redis.Redis) -> None:
    held = _hold(connection, 3, on_lost='fail')
    _end_lease(connection)
    adopted: list[Recovered] = []
    _reaper(connection, 'one', adopted.append).recover_lost()
    _reaper(connection, 'other', adopted.append).recover_lost()
    assert sorted(item.job_id for item in adopted) == sorted(job.id for job in held)


class _Unreliable(redis.Redis):
    """Loses the reply of the next call of a script."""

    loses_reply = True

    def execute_command(self, *args: Any, **options: Any) -> Any:
        reply = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if self.loses_reply and args[0] in ('EVAL', 'EVALSHA'):
            self.loses_reply = False
            raise ConnectionError('the reply is lost')
        return reply


def test_what_was_adopted_by_a_call_whose_reply_was_lost_is_not_forgotten(
    connection: redis.Redis, server_url: str
) -> None:
    held = _hold(connection, 3, on_lost='fail')
    _end_lease(connection)
    adopted: list[str] = []
    with _Unreliable.from_url(server_url) as client:
        reaper = Maintenance(
            client, 'me', lambda item: adopted.append(item.job_id), lambda: None, lambda: {f'{0:032x}'}
        )
        with pytest.raises(ConnectionError):
            reaper.recover_lost()
        assert adopted == []
        reaper.recover_lost()
        reaper.recover_lost()
    assert sorted(adopted) == sorted(job.id for job in held[1:]), 'all but the one that the worker knows to run'


def test_what_cannot_be_settled_now_is_settled_later(connection: redis.Redis) -> None:
    held = _hold(connection, 3, on_lost='fail')
    _end_lease(connection)
    tried: list[str] = []

    def settle(item: Recovered) -> None:
        tried.append(item.job_id)
        if len(tried) in (2, 3):
            raise ConnectionError('Redis is away')

    reaper = _reaper(connection, 'me', settle)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            reaper.tick()
    reaper.tick()
    reaper.tick()
    assert len(tried) == 5 and tried[1] == tried[2] == tried[3]
    assert set(tried) == {job.id for job in held}


def test_a_successor_adopts_any_number(connection: redis.Redis) -> None:
    held = _hold(connection, 250, on_lost='fail')
    adopted: list[str] = []
    reaper = _reaper(connection, 'dead', lambda item: adopted.append(item.job_id))
    reaper.recover_predecessor()
    assert sorted(adopted) == sorted(job.id for job in held)


def test_what_was_parked_returns_to_the_front(connection: redis.Redis) -> None:
    _hold(connection, 1)
    queue = Queue(connection=connection)
    parked, later = queue.enqueue(jobs.nothing), queue.enqueue(jobs.nothing)
    connection.lmove(queue.key, keys.parked('dead'))
    _end_lease(connection)
    _reaper(connection, 'me').recover_lost()
    ids = queue.job_ids
    assert ids.index(parked.id) < ids.index(later.id)
    assert len(ids) == 3


def test_the_third_interruption_in_a_row_is_poison(runners: Runners, connection: Any) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(jobs.nothing, on_failure=Callback(jobs.on_failure), retry=Retry(max=5))
    for number in range(3):
        assert job.get_status() == JobStatus.QUEUED
        membership.join(
            connection, f'dead {number}', 't', ['default'], {'birth': ''}, lease_ms=1, worker_ttl=420
        )  # fmt: skip
        transitions.claim(connection, f'dead {number}', ['default'], [f'{number:032x}'], lifetime=180)
        _end_lease(connection, f'dead {number}')
        _reaper(connection, 'me').recover_lost()
    assert job.get_status() == JobStatus.FAILED
    assert 'PoisonJobError: interrupted 3 times in a row' in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert job.id in queue.failed_job_registry
    job.refresh()
    assert job.retries_left == 5


# ---- what a supervisor reports of a dead child ----

CRASHED = 'its worker was killed by SIGSEGV'


def _die(connection: redis.Redis, verdict: str, culprit: int = 0) -> None:
    """A supervisor does what it does for a dead child; `culprit` is the number of an execution that `_hold` made."""
    membership.report_death(connection, 'dead', culprit=f'{culprit:032x}', verdict=verdict, cause=CRASHED)
    recover_lost(connection, '', lost_worker='dead')


def test_a_supervisor_gives_back_a_dead_childs_jobs_at_once(connection: redis.Redis) -> None:
    held = _hold(connection, 250)
    _die(connection, 'suspect')
    culprit, *innocent = held
    queue = Queue(connection=connection)
    assert len(queue.job_ids) == 250 and queue.job_ids[-1] == culprit.id
    for job in held:
        job.refresh()
    assert [item.is_innocent for item in culprit.interruptions] == [False]
    assert {item.is_innocent for job in innocent for item in job.interruptions} == {True}
    assert not connection.exists(keys.held('dead'), keys.leases())


def test_an_overdue_job_fails_by_its_deadline(runners: Runners, connection: Any) -> None:
    overdue, innocent = _hold(connection, 2)
    connection.hset(overdue.key, 'failure_callback_name', 'tests.worker.jobs.on_failure')
    _die(connection, 'overdue')
    assert overdue.get_status() == JobStatus.STARTED and innocent.get_status() == JobStatus.QUEUED

    runners('simple').run()

    assert overdue.get_status() == JobStatus.FAILED and innocent.get_status() == JobStatus.FINISHED
    reason = f'Task exceeded maximum timeout value (180 seconds): {CRASHED}'
    assert jobs.noted(connection) == [f'failure {overdue.id} JobTimeoutException {reason}']
    assert 'due to JobTimeoutException, at ' in (text := _reason(overdue)) and text.endswith(reason)


def test_an_overdue_job_is_retried_if_it_may(runners: Runners, connection: Any) -> None:
    (overdue,) = _hold(connection, 1)
    connection.hset(overdue.key, 'retries_left', 1)
    _die(connection, 'overdue')

    runners('simple').run()

    overdue.refresh()
    assert (overdue.get_status(), overdue.retries_left) == (JobStatus.FINISHED, 0)


def test_a_lost_job_that_is_to_fail_names_the_cause(runners: Runners, connection: Any) -> None:
    (job,) = _hold(connection, 1, on_lost='fail')
    _die(connection, 'suspect')
    assert job.get_status() == JobStatus.STARTED
    runners('fork').run()
    assert job.get_status() == JobStatus.FAILED
    assert _reason(job).endswith(f'Job {job.id} was cut off: {CRASHED}')


@pytest.mark.parametrize('damage', ['callback', 'data', 'timeout'])
def test_an_adopted_job_is_failed_whatever_is_wrong_with_it(runners: Runners, connection: Any, damage: str) -> None:
    (job,) = _hold(connection, 1)
    if damage == 'callback':
        connection.hset(job.key, 'failure_callback_name', 'no.such.function')
    elif damage == 'data':
        connection.hdel(job.key, 'data')
    else:
        connection.hset(job.key, 'timeout', 'soon')
    _die(connection, 'overdue')

    runners('simple').run()

    assert connection.hget(job.key, 'status') == b'failed'
    assert job.id in Queue(connection=connection).failed_job_registry
    assert not connection.zcard(keys.registry('started', 'default'))


def test_a_successor_of_the_same_name_goes_by_the_report(runners: Runners, connection: Any) -> None:
    overdue, innocent = _hold(connection, 2)
    membership.report_death(connection, 'dead', culprit=f'{0:032x}', verdict='overdue', cause=CRASHED)
    runners('gevent').run(name='dead')
    assert overdue.get_status() == JobStatus.FAILED and innocent.get_status() == JobStatus.FINISHED


def _reason(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


# ---- rules: by job, by queue, by worker ----


def test_a_worker_has_a_rule_for_each_queue(runners: Runners, connection: redis.Redis) -> None:
    victim = runners.new('gevent')
    victim.begin(['default', 'mail'], on_lost={'mail': 'fail'})
    default, mail = Queue(connection=connection), Queue('mail', connection=connection)
    returned, lost = default.enqueue(jobs.wait_at_gate), mail.enqueue(jobs.wait_at_gate)
    spared = mail.enqueue(jobs.wait_at_gate, on_lost='requeue')
    jobs.wait_for_notes(connection, 3)
    _kill(victim, connection)

    jobs.open_gate(connection, 2)
    runners('simple').run(['default', 'mail'])

    assert returned.get_status() == spared.get_status() == JobStatus.FINISHED
    assert lost.get_status() == JobStatus.FAILED


def test_rules_are_checked_and_completed_by_the_class(connection: redis.Redis) -> None:
    assert SimpleWorker('default', connection=connection).on_lost == 'fail'
    assert SimpleWorker('default', connection=connection, on_lost='requeue').on_lost == 'requeue'
    worker = SimpleWorker('default', connection=connection, on_lost={'mail': 'requeue'})
    assert worker.on_lost == {None: 'fail', 'mail': 'requeue'}
    wrong: Any
    for wrong in ('drop', {'mail': 'drop'}):
        with pytest.raises(ValueError, match=r"on_lost 'drop' is not allowed\. Use `requeue` or `fail`"):
            SimpleWorker('default', connection=connection, on_lost=wrong)


def test_what_is_to_fail_when_its_worker_is_lost_fails_by_a_shutdown_too(
    runners: Runners, connection: redis.Redis
) -> None:
    queue = Queue(connection=connection)
    runner = runners('gevent')
    runner.begin(grace=0.1)
    failing = queue.enqueue(jobs.noted_nap, 60, on_lost='fail', on_failure=Callback(jobs.on_failure))
    retried = queue.enqueue(jobs.noted_nap, 60, on_lost='fail', retry=Retry(max=1))
    returned = queue.enqueue(jobs.noted_nap, 60)
    jobs.wait_for_notes(connection, 3)
    runner.signal()
    assert runner.end().error is None

    assert failing.get_status() == JobStatus.FAILED
    assert _reason(failing).endswith('was cut off: interrupted by the shutdown of its worker')
    assert [note for note in jobs.noted(connection) if note.startswith('failure')]
    retried.refresh()
    assert (retried.get_status(), retried.retries_left, retried.interruptions) == (JobStatus.QUEUED, 0, [])
    returned.refresh()
    assert [(item.cause, item.is_innocent) for item in returned.interruptions] == [('shutdown', False)]
    assert queue.job_ids == [returned.id, retried.id]
    assert not connection.exists(keys.held(runner.worker_name))


# ---- the killed ----


def test_a_killed_worker(runners: Runners, connection: redis.Redis) -> None:
    """Killed in the middle of its jobs: they are at the front again, with all their retries, and run elsewhere."""
    queue = Queue(connection=connection)
    victim = runners.new('gevent')
    victim.begin(concurrency=2)
    interrupted = [queue.enqueue(jobs.wait_at_gate, retry=Retry(max=1), job_id=f'interrupted-{i}') for i in range(2)]
    jobs.wait_for_notes(connection, 2)
    queue.enqueue(jobs.nothing, job_id='behind')

    _kill(victim, connection)
    _reaper(connection, 'me').recover_lost()

    assert sorted(queue.job_ids[:2]) == ['interrupted-0', 'interrupted-1'] and queue.job_ids[2:] == ['behind']
    jobs.open_gate(connection, 2)
    runners('gevent').run()
    for job in interrupted:
        job.refresh()
        assert job.get_status() == JobStatus.FINISHED
        assert job.retries_left == 1
    assert len(jobs.noted(connection, 'started')) == 4


def test_a_killed_fork_worker_leaves_a_failure_as_in_rq(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('fork')
    victim.begin()
    job = queue.enqueue(jobs.wait_at_gate, on_failure=Callback(jobs.on_failure))
    jobs.wait_for_notes(connection, 1)

    _kill(victim, connection)
    runners('fork').run()

    assert job.get_status() == JobStatus.FAILED
    assert 'AbandonedJobError' in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert jobs.noted(connection) == [f'failure {job.id} AbandonedJobError Worker died while running job {job.id}']
    # The horse outlives its worker; it gets no second say.
    jobs.open_gate(connection)
    jobs.wait_for_notes(connection, 1, 'ended')
    assert job.get_status() == JobStatus.FAILED and len(job.results()) == 1


def test_a_killed_fork_worker_that_requeues(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('fork')
    victim.begin(on_lost='requeue')
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)

    _kill(victim, connection)
    _reaper(connection, 'me').recover_lost()

    assert job.get_status() == JobStatus.QUEUED
    jobs.open_gate(connection, 2)
    runners('fork').run()
    assert job.get_status() == JobStatus.FINISHED
    wait_until(lambda: len(jobs.noted(connection, 'ended')) == 2)
    assert len(job.results()) == 1, 'the horse that outlived its worker gets no second say'


def test_a_successor_of_the_same_name_recovers_what_it_held(runners: Runners, connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    victim = runners.new('gevent')
    name = victim.begin()
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    _kill(victim, connection)
    jobs.open_gate(connection)

    runners('gevent').run(name=name)

    assert job.get_status() == JobStatus.FINISHED


def test_a_killed_horse(runners: Runners, connection: redis.Redis) -> None:
    """A child that is killed from outside fails its job at once; its worker goes on."""
    queue = Queue(connection=connection)
    killed, following = queue.enqueue(jobs.kill_me), queue.enqueue(jobs.nothing)

    runners('fork').run(work_horse_killed_handler='tests.worker.jobs.horse_killed')

    assert killed.get_status() == JobStatus.FAILED
    assert 'Work-horse terminated unexpectedly; waitpid returned 9 (signal 9)' in str(
        killed.latest_result().exc_string  # type: ignore[union-attr]
    )
    assert jobs.noted(connection) == [f'killed {killed.id} 9']
    assert following.get_status() == JobStatus.FINISHED


@pytest.mark.slow
def test_a_killed_worker_is_noticed_by_a_running_one(runners: Runners, connection: redis.Redis) -> None:
    """With nobody's help, within a lease and a look."""
    queue = Queue(connection=connection)
    victim, survivor = runners.new('gevent'), runners('gevent')
    victim.begin()
    job = queue.enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    survivor.begin()

    victim.kill()

    started = time.monotonic()
    jobs.open_gate(connection)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, timeout=30)
    assert time.monotonic() - started < LEASE_SECONDS + IDLE_BEAT_SECONDS + 3
    survivor.stop()


@pytest.mark.slow
def test_what_redis_has_forgotten_the_end_of_runs_again(runners: Runners, connection: Any) -> None:
    """As after a failover to a replica that had not got the last writes: the worker goes on, and beats."""
    runner = runners('gevent')
    runner.begin()
    job = Queue(connection=connection).enqueue(jobs.wait_at_gate)
    jobs.wait_for_notes(connection, 1)
    composite = connection.smembers(keys.held(runner.worker_name)).pop()
    hash_before = connection.hgetall(keys.job(job.id))
    jobs.open_gate(connection)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)

    with connection.pipeline() as rollback:
        rollback.hset(keys.job(job.id), mapping=hash_before)
        rollback.zrem(keys.registry('finished', 'default'), job.id)
        rollback.zadd(keys.registry('started', 'default'), {composite: time.time() + 180})
        rollback.sadd(keys.held(runner.worker_name), composite)
        rollback.execute()
    jobs.open_gate(connection)

    wait_until(lambda: job.get_status() == JobStatus.FINISHED, timeout=4 * REAP_SECONDS)
    assert len(jobs.noted(connection, 'started')) == 2
    assert not connection.exists(keys.held(runner.worker_name))
    runner.stop()
