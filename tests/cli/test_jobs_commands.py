"""`greenq enqueue`, `requeue` and `empty`, as a user types them."""

import subprocess
from collections.abc import Callable

import pytest
import redis
from click.testing import CliRunner

from greenq import Queue
from greenq.cli import main
from greenq.job import Job, JobStatus
from tests.helpers import run_cli


def error_of(result: 'subprocess.CompletedProcess[str]') -> str:
    """The single line in which a command said what was wrong."""
    assert result.returncode != 0, result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith('Error: ')
    return lines[0]


def invoke(*args: str) -> str:
    """Run a command in this process; its output, after it has ended with status 0."""
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    return result.output


# ---- enqueue ----


def test_enqueue_stores_the_call_and_prints_it(connection: redis.Redis) -> None:
    result = run_cli('enqueue', 'tests.cli.sample.echo', 'a', 'k:=[1]', '--job-id', 'one', '-q', 'low')
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Enqueued tests.cli.sample.echo('a', k=[1]) with job-id 'one'.\n"
    assert Queue('low', connection=connection).job_ids == ['one']
    job = Job.fetch('one', connection=connection)
    assert (job.func_name, list(job.args), job.kwargs) == ('tests.cli.sample.echo', ['a'], {'k': [1]})
    assert job.description == "tests.cli.sample.echo('a', k=[1])"


def test_enqueue_passes_every_option_on(connection: redis.Redis) -> None:
    invoke('enqueue', 'tests.cli.sample.echo', '--job-id', 'first')
    options = '--timeout 2m --result-ttl 10 --ttl 1h --failure-ttl 1d --description Hello --retry-max 3'
    intervals = '--retry-interval 10 --retry-interval 20 --at-front --job-id second --quiet'
    assert invoke('enqueue', 'tests.cli.sample.echo', *options.split(), *intervals.split()) == ''
    job = Job.fetch('second', connection=connection)
    assert (job.timeout, job.result_ttl, job.ttl, job.failure_ttl) == (120, 10, 3600, 86400)
    assert (job.description, job.retries_left, job.retry_intervals) == ('Hello', 3, [10, 20])
    assert Queue(connection=connection).job_ids == ['second', 'first']


def test_enqueue_waits_for_other_jobs(connection: redis.Redis) -> None:
    invoke('enqueue', 'tests.cli.sample.echo', '--job-id', 'parent')
    invoke('enqueue', 'tests.cli.sample.echo', '--job-id', 'child', '--depends-on', 'parent')
    assert Job.fetch('child', connection=connection).get_status() == JobStatus.DEFERRED
    assert Queue(connection=connection).job_ids == ['parent']


@pytest.mark.parametrize('option', [('--schedule-in', '10m'), ('--schedule-at', '2100-01-01T00:00:00')])
def test_enqueue_can_schedule(connection: redis.Redis, option: tuple[str, str]) -> None:
    invoke('enqueue', 'tests.cli.sample.echo', *option, '--job-id', 'later')
    queue = Queue(connection=connection)
    assert queue.job_ids == []
    assert queue.scheduled_job_registry.get_job_ids() == ['later']
    assert Job.fetch('later', connection=connection).get_status() == JobStatus.SCHEDULED


def test_enqueue_writes_with_the_chosen_serializer(connection: redis.Redis) -> None:
    invoke('enqueue', '-S', 'json', 'tests.cli.sample.echo', 'a', '--job-id', 'one')
    job = Job.fetch('one', connection=connection, serializer='json')
    assert list(job.args) == ['a']


@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (['tests.cli.sample.echo', '--timeout', 'soon'], "'soon'"),
        (['tests.cli.sample.echo', '--timeout', '0'], 'tests.cli.sample.echo()'),
        (['tests.cli.sample.echo', '--ttl', '-5'], 'tests.cli.sample.echo()'),
        (['tests.cli.sample.echo', '--schedule-in', 'soon'], "'soon'"),
        (['not a function'], "'not a function'"),
        (['-S', 'json', 'tests.cli.sample.echo', '%{1}'], 'echo({1})'),
        (['-S', 'no.such', 'tests.cli.sample.echo'], "'no.such'"),
        (['--job-id', 'a b', 'tests.cli.sample.echo'], 'a b'),
        (['-j', 'no.Job', 'tests.cli.sample.echo'], "'no.Job'"),
        (['--queue-class', 'tests.cli.sample.echo', 'tests.cli.sample.echo'], "'tests.cli.sample.echo'"),
    ],
)
def test_enqueue_refuses_in_one_line_and_stores_nothing(connection: redis.Redis, args: list[str], named: str) -> None:
    result = CliRunner().invoke(main, ['enqueue', *args])
    assert result.exit_code == 1
    assert result.output.startswith('Error: ')
    assert result.output.count('\n') == 1
    assert named in result.output
    assert list(connection.scan_iter()) == []


# ---- requeue ----


@pytest.fixture
def failed(connection: redis.Redis) -> Callable[..., Queue]:
    """Makes failed jobs with the given ids, in the queue `default`."""

    def make(*job_ids: str) -> Queue:
        queue = Queue(connection=connection, is_async=False)
        for job_id in job_ids:
            queue.enqueue('tests.cli.sample.fail', job_id=job_id)
        assert sorted(queue.failed_job_registry.get_job_ids()) == sorted(job_ids)
        return Queue(connection=connection)

    return make


def test_requeue_takes_ids(failed: Callable[..., Queue]) -> None:
    queue = failed('a', 'b')
    assert 'Requeueing 1 jobs' in invoke('requeue', '--queue', 'default', 'a')
    assert queue.job_ids == ['a']
    assert queue.failed_job_registry.get_job_ids() == ['b']


def test_requeue_all_goes_on_past_an_id_whose_job_is_gone(
    connection: redis.Redis, failed: Callable[..., Queue]
) -> None:
    queue = failed('a', 'b', 'c')
    connection.delete(Job.key_for('b'))
    result = run_cli('requeue', '--queue', 'default', '--all')
    assert result.returncode == 0, result.stderr
    assert 'Requeueing 3 jobs from failed queue' in result.stdout
    assert 'Unable to requeue 1 jobs' in result.stderr
    assert result.stderr.rstrip().endswith(': b')
    assert sorted(queue.job_ids) == ['a', 'c']


def test_requeue_reports_an_id_that_is_not_failed(failed: Callable[..., Queue]) -> None:
    queue = failed('a')
    result = run_cli('requeue', '--queue', 'default', 'nobody', 'a')
    assert result.returncode == 1
    assert 'nobody' in result.stderr
    assert 'Traceback' not in result.stderr
    assert queue.job_ids == ['a']


def test_requeue_and_empty_have_nothing_to_do(connection: redis.Redis) -> None:
    assert invoke('requeue', '--queue', 'default', '--all') == 'Nothing to do\n'
    assert invoke('empty') == 'Nothing to do\n'
    assert invoke('empty', '--all') == 'Nothing to do\n'


# ---- empty ----


def test_empty_deletes_the_jobs_of_the_named_queues(connection: redis.Redis) -> None:
    high, low = Queue('high', connection=connection), Queue('low', connection=connection)
    job = high.enqueue('tests.cli.sample.echo')
    high.enqueue('tests.cli.sample.echo')
    low.enqueue('tests.cli.sample.echo')
    assert invoke('empty', 'high') == '2 jobs removed from high queue\n'
    assert not Job.exists(job.id, connection=connection)
    assert (high.count, low.count) == (0, 1)
    assert '1 jobs removed from low queue' in invoke('empty', '--all')
    assert low.count == 0


# ---- trouble with the server ----


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('redis://user:secret@localhost:1/3', 'redis://localhost:1/3: connection refused'),
        ('unix:///no/such.sock', 'unix:///no/such.sock?db=0: no such file or directory'),
    ],
)
def test_no_server_is_one_line_without_the_password(url: str, shown: str) -> None:
    error = error_of(run_cli('enqueue', 'tests.cli.sample.echo', '-u', url))
    assert f'Cannot reach Redis at {shown}' in error
    assert '--url' in error
    assert 'secret' not in error


def test_a_wrong_url_is_one_line_without_the_password() -> None:
    error = error_of(run_cli('info', env={'GREENQ_REDIS_URL': 'http://user:secret@host'}))
    assert 'is not a Redis URL' in error
    assert 'secret' not in error


def test_a_command_that_redis_refuses_is_one_line(connection: redis.Redis) -> None:
    connection.set('rq:queues', 'no set')
    error = error_of(run_cli('info'))
    assert 'WRONGTYPE' in error
