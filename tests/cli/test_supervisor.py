"""`greenq worker -w gevent` as a supervisor with workers: what dies, hangs or ends is replaced, and no job is lost."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from greenq import Queue, get_current_job
from greenq.connections import default_url
from greenq.job import Job
from tests.helpers import ROOT, WorkerProcess, command_environment, run_cli, wait_until, worker_process

# ---- jobs ----


def note(name: str) -> None:
    job = get_current_job()
    assert job is not None
    with redis.Redis.from_url(default_url()) as client:
        client.rpush(f'rq:test:{name}', f'{job.id} {os.getpid()}')


def nap(seconds: float) -> int:
    note('begun')
    time.sleep(seconds)
    note('ended')
    return os.getpid()


def die(status: int) -> None:
    note('begun')
    os._exit(status)


def crash() -> None:
    note('begun')
    ctypes.string_at(0)


def hold_interpreter(seconds: float) -> int:
    """One call of C code that lets no other Python code run and that no signal cuts short."""
    note('begun')
    began_at = time.perf_counter()
    sum(range(10_000_000))
    sum(range(int(10_000_000 * seconds / (time.perf_counter() - began_at))))
    return os.getpid()


# ---- helpers ----


@contextmanager
def supervised(*args: str, end_timeout: float = 10) -> Iterator[WorkerProcess]:
    with worker_process('-w', 'gevent', *args, end_timeout=end_timeout) as worker:
        yield worker


def children(worker: WorkerProcess) -> list[psutil.Process]:
    return list(psutil.Process(worker.pid).children())


def notes(connection: Any, name: str = 'begun') -> list[tuple[str, int]]:
    """(job id, pid) of all that was noted so far."""
    lines = [line.decode().split() for line in connection.lrange(f'rq:test:{name}', 0, -1)]
    return [(job_id, int(pid)) for job_id, pid in lines]


def begun(connection: Any, job: Job) -> list[int]:
    """The processes in which a job began, in order."""
    return [pid for job_id, pid in notes(connection) if job_id == job.id]


def has_ended(job: Job) -> bool:
    return job.get_status(refresh=True) in ('finished', 'failed')


def stop(worker: WorkerProcess, timeout: float = 10) -> None:
    worker.process.terminate()
    assert worker.wait(timeout) == 0, worker.output


# ---- deaths ----


def test_a_killed_worker_is_replaced_and_its_jobs_run_again_at_once(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(nap, 0.7, retry=None) for _ in range(30)]
    with supervised() as worker:
        wait_until(lambda: len(notes(connection)) == 30)
        (child,) = children(worker)
        child.kill()
        killed_at = time.monotonic()
        wait_until(lambda: len(notes(connection)) == 60)
        recovered_in = time.monotonic() - killed_at
        wait_until(lambda: all(map(has_ended, jobs)))
        stop(worker)
    assert {job.get_status() for job in jobs} == {'finished'}
    assert len(notes(connection, 'ended')) == 30, 'each ended once'
    assert recovered_in < 5, 'with slack for a loaded machine; the fault suite reports the real times'


@pytest.mark.slow
@pytest.mark.parametrize('culprit', [crash, die])
def test_who_kills_the_worker_is_failed_and_the_neighbours_finish(connection: redis.Redis, culprit: Any) -> None:
    queue = Queue(connection=connection)
    guilty = queue.enqueue(culprit, *([3] if culprit is die else []))
    innocent = [queue.enqueue(nap, 0.3) for _ in range(20)]
    with supervised() as worker:
        wait_until(lambda: all(map(has_ended, [guilty, *innocent])), timeout=30)
        stop(worker)
    assert guilty.get_status() == 'failed'
    assert len(begun(connection, guilty)) == 3
    assert {job.get_status() for job in innocent} == {'finished'}
    assert re.search(r'killed by SIGSEGV|ended with status 3', guilty.latest_result().exc_string or '')  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_job_in_c_code_past_its_deadline_fails_and_the_neighbours_finish(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    hog = queue.enqueue(hold_interpreter, 60, job_timeout=1)
    with supervised() as worker:
        neighbour = queue.enqueue(nap, 0.2)
        wait_until(lambda: begun(connection, hog))
        began_at = time.monotonic()
        wait_until(lambda: all(map(has_ended, [hog, neighbour])), timeout=20)
        took = time.monotonic() - began_at
        stop(worker)
    assert hog.get_status() == 'failed'
    assert 'JobTimeoutException' in (hog.latest_result().exc_string or '')  # type: ignore[union-attr]
    assert len(begun(connection, hog)) == 1, 'a deadline is no interruption'
    assert neighbour.get_status() == 'finished'
    assert took < 1 + 5 + 3, 'a second, the grace of five, and a new worker'


@pytest.mark.slow
def test_a_worker_that_hangs_within_the_deadline_keeps_its_jobs(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    with supervised() as worker, supervised() as other:
        hog = queue.enqueue(hold_interpreter, 22, job_timeout=60)
        wait_until(lambda: has_ended(hog), timeout=40)
        stop(worker)
        stop(other)
    assert hog.get_status() == 'finished'
    assert begun(connection, hog) == [hog.return_value()], 'nobody took it although its lease is 15 seconds'


@pytest.mark.slow
def test_a_worker_without_its_supervisor_leaves_once_its_jobs_are_done(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue(nap, 1.5)
    with supervised() as worker:
        wait_until(lambda: begun(connection, job))
        (child,) = children(worker)
        worker.process.kill()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, timeout=10)
    assert job.get_status(refresh=True) == 'finished'
    assert begun(connection, job) == [child.pid]


# ---- stops ----


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_passed_on(connection: redis.Redis, signum: int) -> None:
    job = Queue(connection=connection).enqueue(nap, 1)
    with supervised() as worker:
        wait_until(lambda: begun(connection, job))
        family = children(worker)
        worker.process.send_signal(signum)
        assert worker.wait(10) == 0
        assert not any(child.is_running() for child in family)
    assert job.get_status(refresh=True) == 'finished'
    assert connection.keys('rq:greenq:*') == []


def test_a_second_stop_is_passed_on_and_what_runs_goes_back(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue(nap, 30)
    with supervised() as worker:
        wait_until(lambda: begun(connection, job))
        worker.process.terminate()
        time.sleep(1.2)  # closer together they count as one
        assert worker.process.poll() is None
        worker.process.terminate()
        assert worker.wait(6) == 0
        print(worker.output)
    assert job.get_status(refresh=True) == 'queued'
    assert connection.lrange('rq:queue:default', 0, -1) == [job.id.encode()]


def test_a_quiet_worker_takes_no_more_jobs_and_ends_those_it_has(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(nap, 0.5)
    with supervised() as worker:
        wait_until(lambda: begun(connection, job))
        worker.process.send_signal(signal.SIGTSTP)
        wait_until(lambda: 'takes no more jobs' in worker.output)
        wait_until(lambda: has_ended(job))
        later = queue.enqueue(nap, 0)
        with supervised('--burst') as other:
            assert other.wait(20) == 0
        assert begun(connection, later) == [later.return_value(refresh=True)]
        assert later.return_value() not in [child.pid for child in children(worker)]
        stop(worker)


# ---- ends and replacements ----


def test_several_processes_share_the_name_with_a_number(connection: redis.Redis) -> None:
    with supervised('--processes', '3', '--name', 'many') as worker:
        names = {b'rq:worker:many', b'rq:worker:many.2', b'rq:worker:many.3'}
        wait_until(lambda: connection.smembers('rq:workers') == names)
        assert len(children(worker)) == 3
        stop(worker)


def test_max_jobs_replaces_the_worker(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    with supervised('--max-jobs', '2') as worker:
        jobs = [queue.enqueue(nap, 0) for _ in range(5)]
        wait_until(lambda: all(map(has_ended, jobs)), timeout=30)
        stop(worker)
    assert {job.get_status() for job in jobs} == {'finished'}
    assert len({pid for _, pid in notes(connection)}) == 3


@pytest.mark.slow
def test_replacements_do_not_pile_up(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(nap, 1.5) for _ in range(6)]
    most = 0
    with supervised('--max-jobs', '1') as worker:
        while not all(map(has_ended, jobs)):
            most = max(most, len(children(worker)))
            time.sleep(0.05)
        stop(worker)
    assert {job.get_status() for job in jobs} == {'finished'}
    assert most == 2, 'one that lets its job finish, and the next'


def test_max_jobs_ends_a_burst(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    for _ in range(3):
        queue.enqueue(nap, 0)
    result = run_cli('worker', '-w', 'gevent', '--burst', '--max-jobs', '2')
    assert result.returncode == 0, result.stderr
    assert queue.count == 1


@pytest.mark.slow
def test_a_worker_that_grows_too_old_is_replaced_without_a_gap(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    with supervised('--max-age', '1') as worker:
        slow = queue.enqueue(nap, 4)
        wait_until(lambda: begun(connection, slow))
        (first,) = children(worker)
        wait_until(
            lambda: len(children(worker)) == 2, timeout=8, description='the next one comes before the first goes'
        )
        quick = queue.enqueue(nap, 0)
        wait_until(lambda: has_ended(quick))
        assert quick.return_value() != first.pid
        assert slow.get_status(refresh=True) == 'started'
        wait_until(lambda: has_ended(slow), timeout=20)
        assert slow.return_value() == first.pid
        stop(worker)


@pytest.mark.parametrize(
    ('option', 'value', 'complaint'),
    [
        ('--exception-handler', 'no.such.handler', 'Cannot import exception handler'),
        ('--logging-level', 'LOUD', "Unknown logging level 'LOUD'"),
        ('--log-format', '%(loud', "Invalid --log-format '%(loud'"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_once(
    connection: redis.Redis, option: str, value: str, complaint: str
) -> None:
    result = run_cli('worker', '-w', 'gevent', option, value)
    assert result.returncode == 1
    assert result.stderr.count(complaint) == 1
    assert 'Traceback' not in result.stderr


def test_it_finds_redis_by_the_settings(connection: redis.Redis, server_url: str, tmp_path: Path) -> None:
    """It has forgotten the command line, and reads it again when a worker has died."""
    settings = tmp_path / 'settings.py'
    settings.write_text(f'REDIS_URL = {server_url!r}\nNAME = "by-settings"\n')
    job = Queue(connection=connection).enqueue(time.sleep, 1)
    command = [sys.executable, '-m', 'greenq', 'worker', '-w', 'gevent', '-c', str(settings)]
    process = subprocess.Popen(command, cwd=ROOT, env=command_environment({'GREENQ_REDIS_URL': None}))
    try:
        wait_until(lambda: job.get_status() == 'started')
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        wait_until(lambda: Job.fetch(job.id, connection=connection).interruptions, timeout=5)
        (interruption,) = Job.fetch(job.id, connection=connection).interruptions
        assert interruption.worker_name == 'by-settings'
        wait_until(lambda: has_ended(job))
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_it_is_small() -> None:
    """A supervisor lives as long as its workers; what its memory is made of is what it has imported."""
    others = "{'click', 'gevent', 'redis', 'logging.config', 'subprocess', 'tempfile'}"
    code = f'import sys, greenq.bootstrap, greenq.supervision; print({others} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'set()'


def test_no_supervisor_runs_the_worker_in_the_process(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue(nap, 0)
    with supervised('--no-supervisor') as worker:
        wait_until(lambda: has_ended(job))
        assert job.return_value() == worker.pid
        stop(worker)


def test_several_processes_need_a_concurrent_worker(connection: redis.Redis) -> None:
    result = run_cli('worker', '-w', 'fork', '--processes', '2')
    assert result.returncode == 1
    assert 'greenq worker-pool -n 2' in result.stderr
