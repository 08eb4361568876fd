"""Many clients at once, of which some die between any two calls, or act again after they were given up for dead."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from greenq.store import keys, membership, transitions
from greenq.store.transitions import Claimed
from greenq.utils import as_text
from tests.store.situations import (
    QUEUE,
    beat,
    claim,
    enqueue,
    execution_ids,
    failed,
    finished,
    join,
    listed,
    places,
    recover,
    release,
    retried,
)

JOBS = [f'job{n}' for n in range(300)]
UNLIMITED = 10_000
OUTCOMES: dict[str, Callable[[Claimed], Any]] = {'finish': finished, 'fail': failed, 'retry': retried}


def leased(client: Any) -> list[str]:
    """The names of the workers that have a lease."""
    return [as_text(name) for name in client.zrange(keys.leases(), 0, -1)]


class Client:
    """One thread's worker, in one incarnation after another."""

    def __init__(self, url: str, number: int, seed: int) -> None:
        self._redis = redis.Redis.from_url(url)
        self._number = number
        self._random = random.Random(seed * 100 + number)
        self._incarnation = 0
        self._zombies: list[tuple[str, list[Claimed]]] = []
        self.accepted: Counter[str] = Counter()
        self.deaths = 0

    def run(self, until: float) -> None:
        """Lives and dies until every job has ended."""
        while self._left() and time.monotonic() < until:
            self._live()
        self._redis.close()

    def _left(self) -> int:
        ended = sum(self._redis.zcard(keys.registry(kind, QUEUE)) for kind in ('finished', 'failed'))
        return len(JOBS) - ended

    def _live(self) -> None:
        self._incarnation += 1
        name = f'worker{self._number}-{self._incarnation}'
        assert join(self._redis, name) == 'ok'
        for _ in range(self._random.randrange(1, 6)):
            claimed = self._claim(name)
            if self._random.random() < 0.3:
                self._zombies.append((name, claimed))
                self.deaths += 1
                self._report(name, claimed)
                return
            beat(self._redis, claimed, worker=name)
            self._end(name, claimed)
            self._haunt()
            self._let_time_pass()
            recover(self._redis, worker=name, interruptions=UNLIMITED, limit=self._random.choice([2, 100]))
        membership.depart(self._redis, name, 'token', [QUEUE])

    def _report(self, name: str, claimed: list[Claimed]) -> None:
        """Some of the dead have a supervisor, which may die itself before it has given everything back."""
        if claimed and self._random.random() < 0.5:
            culprit = self._random.choice(claimed).execution_id
            membership.report_death(self._redis, name, culprit=culprit, verdict='suspect', cause='chance')
            recover(self._redis, worker='', lost_worker=name, interruptions=UNLIMITED, limit=2)

    def _claim(self, name: str) -> list[Claimed]:
        """A claim whose first reply may be lost."""
        ids = execution_ids(self._random.randrange(1, 6))
        first = claim(self._redis, worker=name, ids=ids)
        if self._random.random() > 0.3:
            return first
        again = claim(self._redis, worker=name, ids=ids, repeat=True)
        assert len(again) <= len(ids)
        return again

    def _let_time_pass(self) -> None:
        """Ends the leases of some workers, dead or merely stalled."""
        for name in leased(self._redis):
            if self._random.random() < 0.2:
                self._redis.zadd(keys.leases(), {name: 1}, xx=True)

    def _haunt(self) -> None:
        """A worker that was stalled goes on as if nothing had happened."""
        if self._zombies and self._random.random() < 0.3:
            self._end(*self._zombies.pop())

    def _end(self, name: str, claimed: list[Claimed]) -> None:
        for item in claimed:
            action = self._random.choice(['finish', 'finish', 'fail', 'retry', 'release'])
            if action == 'release':
                release(self._redis, item, worker=name, interruptions=UNLIMITED)
                continue
            outcome = OUTCOMES[action](item)
            transition = getattr(transitions, action)
            (accepted,) = transition(self._redis, name, [outcome])
            if self._random.random() < 0.3:
                # The reply was lost: the caller asks again, and must hear what it would have heard.
                (again,) = transition(self._redis, name, [outcome], repeat=True)
                assert again == accepted or action == 'retry'
            if accepted and action != 'retry':
                self.accepted[item.job_id] += 1


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_every_job_ends_exactly_once(connection: redis.Redis, server_url: str, seed: int) -> None:
    enqueue(connection, *JOBS)
    clients = [Client(server_url, number, seed) for number in range(5)]
    with ThreadPoolExecutor(len(clients)) as pool:
        for running in [pool.submit(client.run, time.monotonic() + 20) for client in clients]:
            running.result()
    assert sum(client.deaths for client in clients) > 0
    accepted = sum((client.accepted for client in clients), Counter[str]())
    assert accepted == Counter(JOBS)
    assert [job_id for job_id in JOBS if places(connection, job_id) not in (['finished'], ['failed'])] == []

    for name in leased(connection):
        connection.zadd(keys.leases(), {name: 1})
    while connection.exists(keys.leases()):
        recover(connection, interruptions=UNLIMITED)
    assert listed(connection, 'started') == {}
    for pattern in (keys.held('*'), keys.member('*'), keys.execution('*'), keys.executions('*')):
        assert connection.keys(pattern) == []
