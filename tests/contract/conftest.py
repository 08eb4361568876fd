"""Every test of this folder runs with each kind of worker, in a process of its kind."""

import importlib.util
from collections.abc import Iterator

import pytest

from tests.worker.runner import Runner, Runners

KINDS = ['simple', 'fork', 'gevent']
if importlib.util.find_spec('greenq.worker.spawn_worker'):
    KINDS.append('spawn')


@pytest.fixture(scope='session')
def runners(server_url: str) -> Iterator[Runners]:
    """Worker processes by kind."""
    runners = Runners(server_url)
    yield runners
    runners.close()


@pytest.fixture(params=KINDS)
def worker(request: pytest.FixtureRequest, runners: Runners) -> Runner:
    """The process of one kind of worker."""
    return runners(request.param)
