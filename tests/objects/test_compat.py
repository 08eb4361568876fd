"""greenq.compat: greenq under the name rq, RQ's module paths, and names that are gone. Each test has a process of its
own, because what was imported stays imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.helpers import ROOT


def run_python(script: str, *args: str) -> str:
    """Run a script to its end; returns what it printed, after it has ended with status 0."""
    result = subprocess.run(
        [sys.executable, '-W', 'error', '-c', script, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


INSTALLED = 'from greenq.compat import install_as_rq\ninstall_as_rq()\n'


# ---- the name rq ----


def test_modules_and_classes_are_the_same_by_either_name() -> None:
    run_python(
        INSTALLED
        + """
import rq, rq.job, rq.worker.worker_classes, rq.cli.cli as cli
from rq import Queue, Worker as TheWorker
from rq.worker import Worker
import greenq, greenq.job, greenq.cli.cli
assert rq.job is greenq.job and cli is greenq.cli.cli
assert Worker is TheWorker is greenq.Worker is rq.worker.worker_classes.Worker
assert Queue is greenq.Queue and rq.Queue is Queue
assert greenq.job.__name__ == 'greenq.job' and greenq.job.__spec__.name == 'greenq.job'
install_as_rq()
import pickle
assert pickle.loads(pickle.dumps(Queue)) is Queue
"""
    )


def test_the_version_is_rqs_under_rqs_name_only() -> None:
    output = run_python(
        INSTALLED + 'import rq, rq.version, greenq, greenq.version\nfrom rq import VERSION\n'
        'print(rq.__version__, VERSION, rq.version.VERSION)\nprint(greenq.__version__ == greenq.version.VERSION)'
    )
    assert output == '3.0.0 3.0.0 3.0.0\nTrue\n'


def test_what_greenq_lacks_cannot_be_imported_as_rq_either() -> None:
    output = run_python(
        INSTALLED
        + """
for line in 'import rq.nonsense', 'import rq.job.nonsense', 'from rq import nonsense', 'from rq.job import nonsense':
    try:
        exec(line)
    except ImportError as error:
        print(type(error).__name__)
"""
    )
    assert output.split() == ['ModuleNotFoundError', 'ModuleNotFoundError', 'ImportError', 'ImportError']


def test_an_rq_that_was_imported_before_is_in_the_way() -> None:
    pytest.importorskip('rq')
    run_python(
        """
import rq
from greenq.compat import install_as_rq, is_installed
from greenq.exceptions import ConfigurationError
try:
    install_as_rq()
except ConfigurationError as error:
    assert 'rq, rq.callbacks, ' in str(error) and 'before anything that imports rq' in str(error), error
else:
    raise AssertionError('not refused')
assert not is_installed()
"""
    )


def test_it_can_be_undone() -> None:
    pytest.importorskip('rq')
    run_python(
        INSTALLED
        + """
import rq.job, greenq.job
from greenq.compat import uninstall
assert rq.job is greenq.job
uninstall()
uninstall()
import rq.job
assert rq.job is not greenq.job and rq.job.__name__ == 'rq.job'
"""
    )


def test_workers_of_a_pool_have_the_name_too(connection: redis.Redis, server_url: str) -> None:
    run_python(
        INSTALLED
        + """
import sys, redis
from rq import Queue
from rq.worker_pool import WorkerPool
client = redis.Redis.from_url(sys.argv[1])
job = Queue(connection=client).enqueue('rq.utils.now')
WorkerPool(['default'], client).start(burst=True)
assert job.get_status(refresh=True) == 'finished', job.latest_result()
""",
        server_url,
    )


# ---- libraries made for RQ ----


SENTRY = """
import sys, redis, sentry_sdk
from sentry_sdk.integrations.rq import RqIntegration
events = []
keep = lambda event, hint: events.append(event)
sentry_sdk.init(
    'http://public@localhost/1', integrations=[RqIntegration()],
    before_send=keep, before_send_transaction=keep, traces_sample_rate=1.0,
)
from rq import Queue, SimpleWorker
client = redis.Redis.from_url(sys.argv[1])
queue = Queue(connection=client)
with sentry_sdk.start_transaction(name='web'):
    job = queue.enqueue('tests.cli.sample.fail')
SimpleWorker([queue], connection=client).work(burst=True)
assert job.get_status() == 'failed'
raised = [event for event in events if event.get('exception')]
assert len(raised) == 1, events
assert raised[0]['extra']['rq-job']['job_id'] == job.id
web, ran = [event for event in events if event.get('type') == 'transaction']
assert ran['transaction'] == 'tests.cli.sample.fail'
assert web['contexts']['trace']['trace_id'] == ran['contexts']['trace']['trace_id']
"""

SCHEDULER = """
import sys, redis
from datetime import datetime, timedelta
from rq_scheduler import Scheduler
from rq import Queue, SimpleWorker
client = redis.Redis.from_url(sys.argv[1])
scheduler = Scheduler(connection=client)
job = scheduler.enqueue_at(datetime(2020, 1, 1), 'tests.cli.sample.echo')
scheduler.enqueue_in(timedelta(hours=1), 'tests.cli.sample.echo')
scheduler.run(burst=True)
queue = Queue(connection=client)
assert queue.job_ids == [job.id]
SimpleWorker([queue], connection=client).work(burst=True)
assert job.get_status() == 'finished'
client.delete(*client.keys('rq:scheduler*'))
"""

DASHBOARD = """
import sys, redis
from flask import Flask
import rq_dashboard
from rq import Queue, SimpleWorker
client = redis.Redis.from_url(sys.argv[1])
queue = Queue(connection=client)
good, bad = queue.enqueue('tests.cli.sample.echo'), queue.enqueue('tests.cli.sample.fail')
SimpleWorker([queue], connection=client).work(burst=True)
app = Flask('dashboard')
app.config.from_object('rq_dashboard.default_settings')
app.config['RQ_DASHBOARD_REDIS_URL'] = sys.argv[1]
rq_dashboard.web.setup_rq_connection(app)
app.register_blueprint(rq_dashboard.blueprint, url_prefix='/rq')
web = app.test_client()
for page in 'queues', 'workers', 'jobs/default/finished/8/asc/1', 'jobs/default/failed/8/asc/1', 'job/' + bad.id:
    answer = web.get(f'/rq/0/data/{page}.json')
    assert answer.status_code == 200, (page, answer.data)
assert web.post(f'/rq/job/{bad.id}/requeue').status_code == 200
assert queue.job_ids == [bad.id]
"""

DJANGO = """
import os, sys
sys.path.insert(0, sys.argv[2])
os.environ['DJANGO_SETTINGS_MODULE'] = 'django_settings'
import django
django.setup()
import django_rq, greenq
from django.core.management import call_command
queue = django_rq.get_queue('default')
assert isinstance(queue, greenq.Queue)
for command in 'rqworker', 'rqworker-pool':
    job = django_rq.enqueue('django_settings.is_ready')
    call_command(command, '--burst', verbosity=0)
    assert job.return_value(refresh=True) is True, (command, job.latest_result())
"""

DJANGO_SETTINGS = """
INSTALLED_APPS = ['django_rq']
RQ_QUEUES = {{'default': {{'URL': {url!r}}}}}
SECRET_KEY = 'x'
DATABASES = {{}}

def is_ready():
    from django.apps import apps
    return apps.is_installed('django_rq')
"""


@pytest.mark.parametrize(
    ('package', 'script'),
    [
        ('sentry_sdk', SENTRY),
        ('rq_scheduler', SCHEDULER),
        ('rq_dashboard', DASHBOARD),
        ('django_rq', DJANGO),
    ],
)
def test_a_library_made_for_rq_runs_on_greenq(
    connection: redis.Redis, server_url: str, tmp_path: Path, package: str, script: str
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    (tmp_path / 'django_settings.py').write_text(DJANGO_SETTINGS.format(url=server_url))
    run_python('import warnings\nwarnings.simplefilter("default")\n' + INSTALLED + script, server_url, str(tmp_path))


# ---- RQ's surface ----

# What greenq leaves out: RQ's inner workings, which are done otherwise here.
LEFT_OUT = {
    'rq.cli.helpers': {
        'ParsingMode', 'get_scale', 'pad', 'pass_cli_config', 'refresh', 'setup_loghandlers_from_args',
        'show_both', 'show_queues', 'show_workers', 'state_symbol',
    },
    'rq.executions': {'cleanup_execution', 'prepare_execution'},
    'rq.job_lifecycle': {'record_job_failure'},
    'rq.logutils': {'colorizer'},
    'rq.local': {'Local', 'LocalManager', 'LocalProxy', 'release_local'},
    'rq.queue': {'EnqueueArgs'},
    'rq.worker.base': {'setprocname'},
    'rq.scripts': {
        'acquire_or_refresh_lock', 'get_unique_enqueue_script', 'get_unique_schedule_script', 'release_lock',
        'save_unique_job', 'schedule_unique_job',
    },
}  # fmt: skip

SURFACE = """
import importlib, inspect, pkgutil, rq
for module_name in ['rq', *(module.name for module in pkgutil.walk_packages(rq.__path__, 'rq.'))]:
    if module_name.endswith('__main__'):
        continue
    theirs = importlib.import_module(module_name)
    ours = importlib.import_module('greenq' + module_name.removeprefix('rq'))
    for name, value in vars(theirs).items():
        is_theirs = getattr(value, '__module__', None) == module_name or name in getattr(theirs, '__all__', ())
        if is_theirs and not name.startswith('_') and not hasattr(ours, name):
            print(module_name, name)
"""


def test_every_module_of_rq_is_here_with_its_public_names() -> None:
    pytest.importorskip('rq')
    missing: dict[str, set[str]] = {}
    for line in run_python(SURFACE).splitlines():
        module, name = line.split()
        missing.setdefault(module, set()).add(name)
    assert missing == LEFT_OUT


@pytest.mark.parametrize(
    ('line', 'advice'),
    [
        ('from greenq import Connection', "Queue('default', connection=redis)"),
        ('from greenq import use_connection', 'set REDIS_URL'),
        ('from greenq import get_failed_queue', 'queue.failed_job_registry'),
        ('from greenq.connections import push_connection', 'set REDIS_URL'),
        ('import greenq; greenq.connections.pop_connection()', 'set REDIS_URL'),
        ('from greenq.queue import FailedQueue', 'queue.failed_job_registry'),
    ],
)
def test_names_that_are_gone_say_what_to_write_instead(line: str, advice: str) -> None:
    with pytest.raises(ImportError, match='is gone from RQ') as caught:
        exec(line, {})
    assert advice in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('line', 'advice'),
    [
        ('from rq.handlers import move_to_failed_queue', 'queue.failed_job_registry'),
        ('from rq.contrib.sentry import register_sentry', '--sentry-dsn'),
    ],
)
def test_modules_that_are_gone_say_what_to_write_instead(line: str, advice: str) -> None:
    script = f"""
import greenq.compat
greenq.compat.install_as_rq()
try:
    {line}
except ImportError as error:
    print(error)
"""
    assert advice in run_python(script)


def test_other_missing_names_are_attribute_errors() -> None:
    import greenq.connections

    assert not hasattr(greenq, 'nonsense')
    assert not hasattr(greenq.connections, 'nonsense')
