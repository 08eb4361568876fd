"""`greenq worker`, `suspend` and `resume`: the right class, patched in time, with the options that were given."""

import gzip
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from greenq import Queue
from greenq.cli import main
from greenq.connections import default_url
from greenq.job import Job
from tests.helpers import ROOT, command_environment, run_cli, wait_until

WORKER_VARIABLES: dict[str, str | None] = {'GREENQ_WORKER_CLASS': None, 'RQ_WORKER_CLASS': None}


def run_worker(*args: str, env: dict[str, str | None] | None = None) -> str:
    """Run a worker until its queues are empty. Returns what it wrote, after it has ended with status 0."""
    result = run_cli('worker', '--burst', *args, env={**WORKER_VARIABLES, **(env or {})})
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert 'Warning' not in output
    return output


def refusal(*args: str) -> str:
    """The single line in which `greenq worker` refuses to start."""
    result = CliRunner().invoke(main, ['worker', '--burst', *args])
    assert result.exit_code == 1, result.output
    assert result.output.count('\n') == 1, result.output
    return result.output


# ---- which class, and is it patched ----


@pytest.mark.parametrize(
    ('args', 'env', 'patched'),
    [
        ([], {}, False),
        (['-w', 'simple'], {}, False),
        (['-w', 'rq.SimpleWorker'], {}, False),
        (['-w', 'gevent'], {}, True),
        (['--worker-class=greenq.GeventWorker'], {}, True),
        (['-vw', 'gevent'], {}, True),
        ([], {'RQ_WORKER_CLASS': 'gevent'}, True),
        (['-w', 'simple'], {'RQ_WORKER_CLASS': 'gevent'}, False),
    ],
)
def test_the_class_decides_whether_the_process_is_patched(
    connection: redis.Redis, args: list[str], env: dict[str, str | None], patched: bool
) -> None:
    job = Queue(connection=connection).enqueue('tests.cli.sample.is_patched')
    run_worker(*args, env=env)
    assert job.return_value(refresh=True) is patched


OWN_CLASS = """
from gevent import monkey
{patch}
import ssl, redis
from greenq import GeventWorker

class Own(GeventWorker):
    pass

def where():
    import sys, os
    assert 'GREENQ_PATCH' not in os.environ
    return [os.path.realpath(path or '.') for path in sys.path]
"""


@pytest.mark.parametrize(
    ('patch', 'start'),
    [('', ['-m', 'greenq']), ('monkey.patch_all()', ['-c', 'from greenq.bootstrap import main; main()'])],
)
def test_an_own_subclass_runs_patched_wherever_it_lies(
    connection: redis.Redis, tmp_path: Path, patch: str, start: list[str]
) -> None:
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib' / 'own_worker.py').write_text(OWN_CLASS.format(patch=patch))
    root = str(Path(__file__).parents[2])
    queue = Queue(connection=connection)
    patched = queue.enqueue('tests.cli.sample.is_patched')
    where = queue.enqueue('own_worker.where')
    command = [sys.executable, *start, 'worker', '-b', '-P', 'lib', '-P', '.', '-P', root, '-w', 'own_worker.Own']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert 'Warning' not in output
    assert patched.return_value(refresh=True) is True
    assert {str(tmp_path / 'lib'), str(tmp_path), root} <= set(where.return_value(refresh=True) or [])


def test_a_settings_file_may_name_the_class(connection: redis.Redis, tmp_path: Path) -> None:
    settings = tmp_path / 'settings.py'
    settings.write_text("WORKER_CLASS = 'gevent'\nQUEUES = ['mine']\nNAME = 'named-by-settings'\n")
    job = Queue('mine', connection=connection).enqueue('tests.cli.sample.is_patched')
    output = run_worker('-c', str(settings))
    assert job.return_value(refresh=True) is True
    assert 'named-by-settings' in output


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('no.such.Worker', "Cannot import worker class 'no.such.Worker'"),
        ('tests.cli.sample.NoWorker', "Cannot import worker class 'tests.cli.sample.NoWorker'"),
        ('tests.cli.sample.echo', "'tests.cli.sample.echo' is not a worker class"),
        ('tests.cli.sample.not_a_class', "'tests.cli.sample.not_a_class' is not a worker class"),
        ('decimal.Decimal', "'decimal.Decimal' is not a worker class"),
    ],
)
def test_a_wrong_class_is_refused(connection: redis.Redis, name: str, message: str) -> None:
    assert refusal('-w', name).startswith(f'Error: {message}')


def test_a_gevent_worker_in_an_unpatched_process_refuses_in_one_line(connection: redis.Redis) -> None:
    assert 'patch' in refusal('-w', 'gevent')


def test_an_embedded_server_is_shared_by_commands(tmp_path: Path) -> None:
    url = f'embedded://{tmp_path / "data"}'
    assert run_cli('enqueue', '-u', url, 'tests.cli.sample.is_patched', '--job-id', 'one').returncode == 0
    assert '1 queues, 1 jobs total' in run_cli('info', '-u', url).stdout
    run_worker('-u', url, '-w', 'simple')
    assert '0 executing, 1 finished' in run_cli('info', '-u', url).stdout


# ---- options ----


def test_queues_name_pid_and_handlers(connection: redis.Redis, tmp_path: Path) -> None:
    low = Queue('low', connection=connection).enqueue('tests.cli.sample.fail')
    Queue('other', connection=connection).enqueue('tests.cli.sample.echo')
    pid = tmp_path / 'pid'
    handlers = ['--exception-handler', 'tests.cli.sample.mark'] * 2
    run_worker('-w', 'simple', '-n', 'chosen', '--pid', str(pid), *handlers, 'low')
    assert int(pid.read_text()) > 1
    assert connection.hget('rq:worker:chosen', 'failed_job_count') == b'1'
    assert Job.fetch(low.id, connection=connection).meta == {'marked': 2}
    assert Queue('other', connection=connection).count == 1


def test_max_jobs_and_result_ttl(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue('tests.cli.sample.current_job_id') for _ in range(3)]
    run_worker('-w', 'simple', '--max-jobs', '2', '--results-ttl', '77')
    assert queue.count == 1
    assert jobs[0].return_value(refresh=True) == jobs[0].id
    assert 0 < connection.ttl(jobs[0].key) <= 77


def test_concurrency_and_grace_are_for_workers_that_have_them(connection: redis.Redis) -> None:
    job = Queue(connection=connection).enqueue('tests.cli.sample.echo')
    run_worker('-w', 'gevent', '--concurrency', '3', '--grace', '0.5')
    assert job.get_status(refresh=True) == 'finished'
    message = refusal('-w', 'fork', '--concurrency', '3', '--grace', '2')
    assert '--concurrency and --grace cannot be used with fork' in message


@pytest.mark.parametrize('strategy', ['default', 'random', 'round_robin'])
def test_dequeue_strategies(connection: redis.Redis, strategy: str) -> None:
    result = CliRunner().invoke(main, ['worker', '-b', '-w', 'simple', '-ds', strategy, 'a', 'b'])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['-ds', 'wrong'], "'wrong' is unknown"),
        (['-v', '-q'], '--verbose and --quiet'),
        (['--logging_level', 'loud'], "Unknown logging level 'loud'"),
        (['--logging-level', 'loud'], "Unknown logging level 'loud'"),
        (['--log-format', '%(x'], "Invalid --log-format '%(x'"),
        (['--exception-handler', 'no.such'], "Cannot import exception handler 'no.such'"),
        (['--exception-handler', 'tests.cli.sample.not_a_class'], "'tests.cli.sample.not_a_class' is not callable"),
        (['--pid', '/no/such/folder/pid'], "'/no/such/folder/pid'"),
        (['-S', 'no.such'], "Cannot use serializer 'no.such'"),
        (['-c', 'no_such_settings'], "'no_such_settings'"),
        (['-u', 'redis://localhost:1'], 'Cannot reach Redis at redis://localhost:1/0: connection refused'),
        (['--sentry-dsn', 'nonsense://x'], "Invalid SENTRY_DSN 'nonsense://"),
    ],
)
def test_what_makes_no_sense_is_refused(connection: redis.Redis, args: list[str], message: str) -> None:
    assert message in refusal('-w', 'simple', *args)


def test_a_second_worker_of_the_same_name_is_refused(connection: redis.Redis) -> None:
    connection.hset('rq:worker:twin', mapping={'birth': '2024-05-06T07:08:09.000010Z', 'queues': 'default'})
    assert 'twin' in refusal('-w', 'simple', '--name', 'twin')


def test_logging_can_be_configured_by_settings(connection: redis.Redis, tmp_path: Path) -> None:
    settings = tmp_path / 'settings.py'
    settings.write_text(
        "DICT_CONFIG = {'version': 1, 'disable_existing_loggers': False,"
        "'formatters': {'f': {'format': 'MINE %(message)s'}},"
        "'handlers': {'h': {'class': 'logging.StreamHandler', 'formatter': 'f'}},"
        "'root': {'handlers': ['h'], 'level': 'INFO'}}\n"
    )
    assert 'MINE ' in run_worker('-w', 'simple', '-c', str(settings))
    settings.write_text("DICT_CONFIG = {'version': 1, 'handlers': {'h': {'class': 'no.Such'}}}\n")
    assert 'Cannot use DICT_CONFIG' in refusal('-w', 'simple', '-c', str(settings))


# ---- sentry ----


def test_a_dsn_without_sentry_says_what_to_install(connection: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'sentry_sdk', None)
    message = refusal('-w', 'simple', '--sentry-dsn', 'sync+http://public:secret@example.com/1')
    assert "pip install 'greenq[sentry]'" in message
    assert 'secret' not in message


class _Inbox(HTTPServer):
    """Takes what Sentry's client sends."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _InboxHandler)
        self.received: list[bytes] = []


class _InboxHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers['Content-Length']))
        packed = self.headers.get('Content-Encoding') == 'gzip'
        assert isinstance(self.server, _Inbox)
        self.server.received.append(gzip.decompress(body) if packed else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def inbox() -> Iterator[_Inbox]:
    with _Inbox() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize('worker_class', ['simple', 'fork', 'gevent'])
def test_exceptions_of_jobs_are_reported(
    connection: redis.Redis, tmp_path: Path, inbox: _Inbox, worker_class: str
) -> None:
    pytest.importorskip('sentry_sdk')
    settings = tmp_path / 'settings.py'
    settings.write_text(f"SENTRY_DSN = 'sync+http://public@127.0.0.1:{inbox.server_port}/1'\n")
    job = Queue(connection=connection).enqueue('tests.cli.sample.fail')
    run_worker('-w', worker_class, '-c', str(settings))
    report = b''.join(inbox.received)
    assert b'as asked' in report
    assert job.id.encode() in report
    assert job.get_status(refresh=True) == 'failed'


# ---- suspend and resume ----


def test_a_suspended_server_starts_no_worker(connection: redis.Redis) -> None:
    invoke = CliRunner().invoke
    assert invoke(main, ['suspend']).exit_code == 0
    result = run_cli('worker', '-b', '-w', 'simple')
    assert result.returncode == 1
    assert 'currently suspended' in result.stdout + result.stderr
    assert invoke(main, ['resume']).exit_code == 0
    run_worker('-w', 'simple')


def test_a_suspension_can_end_by_itself(connection: redis.Redis) -> None:
    result = run_cli('suspend', '--duration', '600')
    assert 'Suspending workers for 600 seconds' in result.stdout
    assert 0 < connection.ttl('rq:suspended') <= 600


@pytest.mark.parametrize('duration', ['0', '-1'])
def test_a_duration_must_be_positive(connection: redis.Redis, duration: str) -> None:
    result = CliRunner().invoke(main, ['suspend', '--duration', duration])
    assert result.exit_code == 1
    assert 'Duration must be an integer greater than 1' in result.output
    assert not connection.exists('rq:suspended')


# ---- the log ----


def _unread_worker(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', 'greenq', 'worker', '--url', default_url(), '-w', 'gevent', *args],
        cwd=ROOT,
        env=command_environment(WORKER_VARIABLES),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _enqueue_many(queue: Queue) -> list[Job]:
    """Jobs about which a worker says far more than the 64 KiB that a pipe takes."""
    return queue.enqueue_many(Queue.prepare_data('tests.cli.sample.echo', ('x' * 50,)) for _ in range(1000))


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--no-supervisor']])
def test_a_worker_whose_log_nobody_reads_ends_when_told_to(connection: redis.Redis, options: list[str]) -> None:
    queue = Queue(connection=connection)
    jobs = _enqueue_many(queue)
    process = _unread_worker(*options)
    try:
        wait_until(lambda: connection.zcard(queue.finished_job_registry.key) == len(jobs), timeout=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def test_jobs_do_not_wait_for_whoever_reads_the_log(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    jobs = _enqueue_many(queue)
    process = _unread_worker()
    try:
        wait_until(lambda: connection.zcard(queue.finished_job_registry.key) == len(jobs), timeout=30)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert output.count('Job OK') == len(jobs) and 'dropped' not in output
    assert process.returncode == 0
