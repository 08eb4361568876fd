"""The worker processes that the tests of this folder share."""

from collections.abc import Iterator

import pytest
import redis

from tests.worker.runner import Runner, Runners


@pytest.fixture(scope='session')
def runners(server_url: str) -> Iterator[Runners]:
    """Worker processes by kind."""
    runners = Runners(server_url)
    yield runners
    runners.close()


@pytest.fixture
def gevent_runner(runners: Runners) -> Runner:
    """The shared process for gevent workers."""
    return runners('gevent')


@pytest.fixture(autouse=True)
def leftovers(runners: Runners, connection: redis.Redis) -> Iterator[None]:
    """No worker outlives its test."""
    yield
    runners.end_leftovers()
