"""Redis Cluster: three real nodes, and all of greenq's keys on one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from greenq.cluster import has_hash_tag
from tests.connections.commands import running_worker, tell_story
from tests.connections.servers import Cluster, cluster, needs_server
from tests.helpers import run_cli

pytestmark = [needs_server, pytest.mark.slow]

ENVIRONMENT = {'RQ_KEY_PREFIX': '{app}'}
STORIES = 'tests.connections.cluster_stories'
IN_CLUSTER = ('--connection-class', 'redis.cluster.RedisCluster')


@pytest.fixture(scope='module')
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp('cluster')) as group:
        yield group


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if 'nodes' in request.fixturenames:
        for node in request.getfixturevalue('nodes').nodes:
            with node.client() as client:
                client.flushall()


@pytest.mark.parametrize('worker_class', ['greenq.GeventWorker', 'greenq.Worker', 'greenq.SpawnWorker'])
def test_every_feature_works_in_a_cluster(nodes: Cluster, worker_class: str) -> None:
    arguments = ('-u', nodes.url, *IN_CLUSTER, '-w', worker_class, '--with-scheduler')
    with running_worker(*arguments, env=ENVIRONMENT):
        tell_story(STORIES, 'features', nodes.url, ENVIRONMENT)


def test_a_pool_of_workers_runs_in_a_cluster(nodes: Cluster) -> None:
    arguments = ('worker-pool', '-b', '-n', '2', '-u', nodes.url, *IN_CLUSTER, '-w', 'greenq.GeventWorker')
    enqueued = run_cli(
        'enqueue', '-u', nodes.url, *IN_CLUSTER, 'tests.connections.jobs.add', ':1', ':2', env=ENVIRONMENT
    )
    assert enqueued.returncode == 0, enqueued.stderr
    done = run_cli(*arguments, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert 'Job OK' in done.stdout + done.stderr


def test_queues_and_workers_can_be_listed(nodes: Cluster) -> None:
    tell_story(STORIES, 'survey', nodes.url, ENVIRONMENT)


def test_all_objects_share_one_client(nodes: Cluster) -> None:
    tell_story(STORIES, 'one_client', nodes.url, ENVIRONMENT)


@pytest.mark.parametrize('worker_class', ['greenq.GeventWorker', 'greenq.Worker'])
def test_a_slot_may_move_under_worker_and_producer(nodes: Cluster, worker_class: str) -> None:
    with running_worker('-u', nodes.url, *IN_CLUSTER, '-w', worker_class, 'moved', env=ENVIRONMENT):
        tell_story(STORIES, 'move', nodes.url, ENVIRONMENT)


def test_a_replica_takes_over_and_the_worker_goes_on(tmp_path: Path) -> None:
    with ExitStack() as stack:
        group = stack.enter_context(cluster(tmp_path, replicated='{app}'))
        stack.enter_context(
            running_worker('-u', group.url, *IN_CLUSTER, '-w', 'greenq.GeventWorker', 'failover', env=ENVIRONMENT)
        )
        tell_story(STORIES, 'outlives_failover', group.url, ENVIRONMENT)


def test_the_commands_work_in_a_cluster(nodes: Cluster) -> None:
    arguments = ('-u', nodes.url, *IN_CLUSTER)
    enqueued = run_cli('enqueue', *arguments, 'tests.connections.jobs.add', ':1', ':2', env=ENVIRONMENT)
    assert enqueued.returncode == 0, enqueued.stderr
    told = run_cli('info', *arguments, env=ENVIRONMENT)
    assert told.returncode == 0, told.stderr
    assert '1 queues, 1 jobs total' in told.stdout
    emptied = run_cli('empty', *arguments, 'default', env=ENVIRONMENT)
    assert '1 jobs removed' in emptied.stdout, emptied.stderr


def test_settings_describe_a_node_of_the_cluster(nodes: Cluster, tmp_path: Path) -> None:
    settings = tmp_path / 'cluster_settings.py'
    settings.write_text(f"REDIS_HOST = '127.0.0.1'\nREDIS_PORT = {nodes.nodes[1].port}\n")
    environment = {**ENVIRONMENT, 'GREENQ_REDIS_URL': None}
    told = run_cli('info', '-c', str(settings), *IN_CLUSTER, env=environment)
    assert told.returncode == 0, told.stderr
    settings.write_text(settings.read_text() + 'REDIS_DB = 1\n')
    refused = run_cli('info', '-c', str(settings), *IN_CLUSTER, env=environment)
    assert refused.returncode == 1
    assert "'db' is not possible" in refused.stderr
    assert refused.stderr.count('\n') == 1


def test_a_prefix_without_hash_tag_is_refused(nodes: Cluster) -> None:
    tell_story(STORIES, 'refused', nodes.url, {'RQ_KEY_PREFIX': 'app'})


def test_the_commands_refuse_a_prefix_without_hash_tag_in_one_line(nodes: Cluster) -> None:
    refused = run_cli('info', '-u', nodes.url, *IN_CLUSTER)
    assert refused.returncode == 1
    assert 'RQ_KEY_PREFIX needs a hash tag' in refused.stderr
    assert refused.stderr.count('\n') == 1


def test_a_cluster_that_is_not_there_is_told_in_one_line() -> None:
    refused = run_cli('info', '-u', 'redis://127.0.0.1:1', *IN_CLUSTER, env=ENVIRONMENT)
    assert refused.returncode == 1
    assert '127.0.0.1:1' in refused.stderr
    assert refused.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('prefix', 'answer'),
    [
        ('{app}', True),
        ('my{app}x', True),
        ('rq', False),
        ('{}', False),
        ('{}{app}', False),
        ('a}{', False),
        ('{', False),
    ],
)
def test_what_counts_as_hash_tag(prefix: str, answer: bool) -> None:
    assert has_hash_tag(prefix) is answer
