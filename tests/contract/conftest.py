"""Every test of this folder runs with each kind of worker, in a process of its kind."""

from collections.abc import Iterator

import pytest
import redis

from tests.worker.runner import Runner, Runners

#: A fresh interpreter for each job takes its time; test_spawn runs the essentials in one go.
KINDS = ['simple', 'fork', 'gevent', pytest.param('spawn', marks=pytest.mark.slow)]


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


@pytest.fixture(autouse=True)
def leftovers(runners: Runners, connection: redis.Redis) -> Iterator[None]:
    """No worker outlives its test."""
    yield
    runners.end_leftovers()
