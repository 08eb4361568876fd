"""Cron jobs and their schedulers: when a job is due, that each tick is enqueued once, and what monitoring sees."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from rq.cron import CronScheduler as TheirCronScheduler

from greenq import cron, cron_job_registry, cron_scheduler_registry
from greenq.cron import CronJob, CronScheduler
from greenq.exceptions import SchedulerNotFound
from greenq.job import Job
from greenq.queue import Queue
from greenq.utils import NOT_JSON_SERIALIZABLE, now
from greenq.webhook import Webhook


def nothing(*args: Any, **kwargs: Any) -> None:
    pass


def other() -> None:
    pass


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue('work', connection=connection)


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TZ', 'America/New_York')
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def scheduler_with(connection: redis.Redis, *names: str, **schedule: Any) -> CronScheduler:
    scheduler = CronScheduler(connection=connection)
    for name in names:
        scheduler.register(nothing, 'work', name=name, **(schedule or {'interval': 60}))
    return scheduler


def make_due(scheduler: CronScheduler) -> None:
    for job in scheduler.get_jobs():
        job.next_enqueue_time = now()


def next_time(expression: str, after: datetime) -> datetime:
    job = CronJob('work', nothing, cron=expression)
    job.set_enqueue_time(after)
    assert job.next_enqueue_time is not None
    return job.next_enqueue_time


# ---- when ----


def test_an_interval_begins_at_once_and_a_cron_string_at_its_time(connection: redis.Redis) -> None:
    interval = CronJob('work', nothing, interval=60)
    daily = CronJob('work', nothing, cron='0 9 * * *')
    assert interval.should_run() and interval.next_enqueue_time is None
    assert not daily.should_run() and daily.next_enqueue_time is not None and daily.next_enqueue_time > now()
    moment = now()
    interval.set_enqueue_time(moment)
    assert interval.next_enqueue_time == moment + timedelta(seconds=60)
    assert not interval.should_run()


@pytest.mark.usefixtures('in_new_york')
def test_cron_strings_are_in_local_time() -> None:
    assert next_time('0 9 * * *', datetime(2026, 1, 5, 12, tzinfo=UTC)) == datetime(2026, 1, 5, 14, tzinfo=UTC)
    assert next_time('0 9 * * *', datetime(2026, 7, 6, 12, tzinfo=UTC)) == datetime(2026, 7, 6, 13, tzinfo=UTC)
    assert next_time('0 9 * * 1', datetime(2026, 7, 6, 13, tzinfo=UTC)) == datetime(2026, 7, 13, 13, tzinfo=UTC)


@pytest.mark.usefixtures('in_new_york')
def test_when_clocks_go_back_a_time_counts_once() -> None:
    first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert next_time('30 1 * * *', first - timedelta(hours=1)) == first
    assert next_time('30 1 * * *', first) == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)
    during_the_second_hour = datetime(2026, 11, 1, 6, 15, tzinfo=UTC)
    assert next_time('* * * * *', during_the_second_hour) == datetime(2026, 11, 1, 7, tzinfo=UTC)


@pytest.mark.usefixtures('in_new_york')
def test_when_clocks_go_forward_a_skipped_time_comes_later() -> None:
    day_before = datetime(2026, 3, 7, 17, tzinfo=UTC)
    assert next_time('30 2 * * *', day_before) == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)


def test_sleeps_until_the_next_job_but_a_minute_at_most(connection: redis.Redis) -> None:
    scheduler = scheduler_with(connection, 'a', 'b')
    assert scheduler.calculate_sleep_interval() == 60
    soon, later = scheduler.get_jobs()
    later.next_enqueue_time = now() + timedelta(hours=1)
    assert scheduler.calculate_sleep_interval() == 60
    soon.next_enqueue_time = now() + timedelta(seconds=30)
    assert 29 < scheduler.calculate_sleep_interval() <= 30
    soon.next_enqueue_time = now() - timedelta(seconds=1)
    assert scheduler.calculate_sleep_interval() == 0


@pytest.mark.parametrize('schedule', [{}, {'interval': 60, 'cron': '* * * * *'}])
def test_a_job_has_one_schedule(schedule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='interval'):
        CronJob('work', nothing, **schedule)


def test_a_job_has_a_function() -> None:
    with pytest.raises(ValueError, match='func'):
        CronJob('work', interval=1)


@pytest.mark.parametrize('webhooks', [['http://example.com'], Webhook('http://example.com', 'failed')])
def test_webhooks_are_checked_at_once(webhooks: Any) -> None:
    with pytest.raises(TypeError, match='webhooks'):
        CronJob('work', nothing, interval=1, webhooks=webhooks)


# ---- enqueueing ----


def test_the_job_has_the_arguments_and_options_that_were_registered(connection: redis.Redis, queue: Queue) -> None:
    hook = Webhook('http://example.com', 'failed')
    cron_job = CronJob(
        'work',
        nothing,
        args=(1,),
        kwargs={'ttl': 5, 'description': 'x'},
        interval=60,
        job_timeout='2m',
        result_ttl=7,
        ttl=30,
        failure_ttl=9,
        meta={'a': 1},
        webhooks=[hook],
    )
    made = cron_job.enqueue(connection)
    assert queue.job_ids == [made.id]
    job = Job.fetch(made.id, connection)
    assert (job.args, job.kwargs) == ((1,), {'ttl': 5, 'description': 'x'})
    assert (job.timeout, job.result_ttl, job.ttl, job.failure_ttl) == (120, 7, 30, 9)
    assert (job.meta, job.webhooks, job.origin) == ({'a': 1}, [hook], 'work')
    assert connection.ttl(job.key) == 30
    assert Queue.all(connection) == [queue]


def test_is_stored_as_a_job_enqueued_otherwise(connection: redis.Redis, queue: Queue) -> None:
    by_cron = connection.hgetall(CronJob('work', nothing, interval=60).enqueue(connection).key)
    otherwise = connection.hgetall(queue.enqueue(nothing, result_ttl=500).key)
    differing = {b'created_at', b'enqueued_at', b'greenq_token'}
    assert {k: v for k, v in by_cron.items() if k not in differing} == {
        k: v for k, v in otherwise.items() if k not in differing
    }


def test_the_history_is_newest_first_and_by_name(connection: redis.Redis) -> None:
    cron_job = CronJob('work', nothing, interval=60, name='nightly')
    first, second, third = (cron_job.enqueue(connection) for _ in range(3))
    assert cron_job.get_job_ids(connection) == [third.id, second.id, first.id]
    assert cron.get_cron_job_ids('nightly', connection, 1, 1) == [second.id]
    assert cron_job_registry.get_names(connection) == ['nightly']
    assert third.enqueued_at is not None
    score = connection.zscore(cron_job_registry.get_registry_key(), 'nightly')
    assert score == third.enqueued_at.timestamp()
    assert 0 < connection.ttl(cron_job.job_history_key) <= 365 * 24 * 3600


def test_the_history_has_the_newest_thousand(connection: redis.Redis) -> None:
    cron_job = CronJob('work', nothing, interval=60)
    connection.zadd(cron_job.job_history_key, {f'old-{number}': number for number in range(1000)})
    newest = cron_job.enqueue(connection)
    ids = cron_job.get_job_ids(connection)
    assert len(ids) == 1000 and ids[0] == newest.id and ids[-1] == 'old-1'


def test_what_was_read_from_redis_cannot_be_enqueued(connection: redis.Redis) -> None:
    copy = CronJob.from_dict(CronJob('work', nothing, interval=60).to_dict())
    with pytest.raises(ValueError, match='monitoring'):
        copy.enqueue(connection)


def test_only_what_is_due_is_enqueued(connection: redis.Redis, queue: Queue) -> None:
    scheduler = scheduler_with(connection, 'a', 'b')
    daily = scheduler.register(other, 'work', cron='0 9 * * *')
    first, second = scheduler.get_jobs()[:2]
    assert scheduler.enqueue_jobs() == [first, second]
    assert scheduler.enqueue_jobs() == []
    second.next_enqueue_time = daily.next_enqueue_time = now() - timedelta(seconds=5)
    assert scheduler.enqueue_jobs() == [second, daily]
    assert second.next_enqueue_time > now() and daily.next_enqueue_time > now()
    assert queue.count == 4


def test_a_job_that_cannot_be_stored_harms_no_other(connection: redis.Redis, queue: Queue) -> None:
    scheduler = CronScheduler(connection=connection)
    scheduler.register(nothing, 'work', args=(lambda: 1,), interval=60)
    good = scheduler.register(nothing, 'work', interval=60)
    assert scheduler.enqueue_jobs() == [good]
    assert queue.count == 1
    assert scheduler.calculate_sleep_interval() > 0


# ---- each tick once ----


def test_of_two_schedulers_one_enqueues(connection: redis.Redis, queue: Queue) -> None:
    first, second = scheduler_with(connection, 'a'), scheduler_with(connection, 'a')
    assert len(first.enqueue_jobs()) == 1
    assert second.enqueue_jobs() == []
    assert second.get_jobs()[0].next_enqueue_time == first.get_jobs()[0].next_enqueue_time
    make_due(first)
    make_due(second)
    assert len(second.enqueue_jobs()) == 1
    assert first.enqueue_jobs() == []
    assert queue.count == 2


def test_of_two_schedulers_one_enqueues_a_cron_string(connection: redis.Redis, queue: Queue) -> None:
    schedulers = [scheduler_with(connection, 'a', cron='0 9 * * *') for _ in range(2)]
    for _ in range(3):
        for scheduler in schedulers:
            make_due(scheduler)
        assert sum(len(scheduler.enqueue_jobs()) for scheduler in schedulers) == 1
    assert queue.count == 3


def test_the_same_job_twice_is_two_jobs_in_every_scheduler(connection: redis.Redis, queue: Queue) -> None:
    first, second = scheduler_with(connection, 'a', 'a'), scheduler_with(connection, 'a', 'a')
    assert len(first.enqueue_jobs()) == 2
    assert second.enqueue_jobs() == []
    assert queue.count == 2


def test_a_job_with_another_schedule_is_another_job(connection: redis.Redis) -> None:
    assert len(scheduler_with(connection, 'a', interval=60).enqueue_jobs()) == 1
    assert len(scheduler_with(connection, 'a', interval=61).enqueue_jobs()) == 1


def test_a_restart_goes_on_where_it_was(connection: redis.Redis, queue: Queue) -> None:
    job = scheduler_with(connection, 'a').enqueue_jobs()[0]
    (restarted,) = (scheduler := scheduler_with(connection, 'a')).get_jobs()
    assert scheduler.enqueue_jobs() == []
    assert restarted.latest_enqueue_time == job.latest_enqueue_time
    assert queue.count == 1


def test_a_tick_that_nobody_enqueued_is_made_up_for_once(connection: redis.Redis, queue: Queue) -> None:
    job = scheduler_with(connection, 'a', cron='* * * * *').get_jobs()[0]
    (late,) = (scheduler := scheduler_with(connection, 'a', cron='* * * * *')).get_jobs()
    long_ago = now() - timedelta(minutes=10)
    # Another scheduler was the last one to enqueue, ten minutes ago, and died.
    job.enqueue_tick(connection, f'{job._digest}:1', '', long_ago)
    assert scheduler.enqueue_jobs() == [late]
    assert scheduler.enqueue_jobs() == []
    assert queue.count == 2


def test_what_is_known_of_a_tick_is_forgotten_an_hour_after_the_next(connection: redis.Redis) -> None:
    scheduler_with(connection, 'a', interval=100).enqueue_jobs()
    (key,) = connection.keys('rq:greenq:tick:*')
    assert 3690 < connection.ttl(key) <= 3700


def test_a_scheduler_that_slept_for_longer_than_that_still_enqueues_once(connection: redis.Redis, queue: Queue) -> None:
    scheduler = scheduler_with(connection, 'a')
    scheduler.enqueue_jobs()
    connection.delete(*connection.keys('rq:greenq:tick:*'))
    assert scheduler.enqueue_jobs() == []
    make_due(scheduler)
    assert len(scheduler.enqueue_jobs()) == 1
    assert queue.count == 2


def test_a_repeated_call_enqueues_nothing(connection: redis.Redis, queue: Queue) -> None:
    job = CronJob('work', nothing, interval=60)
    moment = now()
    assert job.enqueue_tick(connection, 'name', '', moment) == job.enqueue_tick(connection, 'name', '', moment)
    assert queue.count == 1


def test_a_tick_is_not_lost_when_redis_refuses_it(connection: redis.Redis, queue: Queue) -> None:
    scheduler = scheduler_with(connection, 'a')
    connection.set('rq:queues', 'not a set')
    with pytest.raises(redis.ResponseError, match='WRONGTYPE'):
        scheduler.enqueue_jobs()
    assert scheduler.get_jobs()[0].should_run()
    connection.delete('rq:queues')
    assert len(scheduler.enqueue_jobs()) == 1
    assert queue.count == 1


# ---- records ----


def test_a_job_is_read_as_it_was_stored(connection: redis.Redis) -> None:
    job = CronJob(
        'work',
        nothing,
        args=(1, 'x'),
        kwargs={'a': [1]},
        cron='0 9 * * *',
        meta={'k': 'v'},
        job_timeout=3,
        webhooks=[Webhook('http://example.com', 'finished')],
        name='daily',
    )
    job.set_enqueue_time(now())
    copy = CronJob.from_dict(job.to_dict())
    assert vars(copy) == {**vars(job), 'func': None}


def test_what_is_no_json_is_shown_as_such(connection: redis.Redis) -> None:
    job = CronJob('work', nothing, args=({1},), kwargs={'a': {2}}, meta={'m': {3}}, interval=60)
    copy = CronJob.from_dict(job.to_dict())
    assert copy.args == copy.kwargs == copy.job_options['meta'] == NOT_JSON_SERIALIZABLE


def test_a_scheduler_is_read_as_it_was_stored(connection: redis.Redis) -> None:
    scheduler = scheduler_with(connection, 'a', 'b')
    scheduler.config_file = 'jobs.py'
    scheduler.register_birth()
    assert CronScheduler.fetch(scheduler.name, connection).to_dict() == scheduler.to_dict()
    assert CronScheduler.all(connection) == [scheduler]
    assert 0 < connection.ttl(scheduler.key) <= 120
    scheduler.register_death()
    assert CronScheduler.all(connection) == []
    with pytest.raises(SchedulerNotFound, match='nobody'):
        CronScheduler.fetch('nobody', connection)


def test_rq_can_read_our_scheduler_and_we_can_read_theirs(connection: redis.Redis) -> None:
    ours = scheduler_with(connection, 'a')
    ours.register_birth()
    theirs: Any = TheirCronScheduler(connection)
    theirs.register(nothing, 'work', interval=60, name='a')
    theirs.register_birth()
    assert connection.hgetall(ours.key).keys() == connection.hgetall(theirs.key).keys()
    read: Any = TheirCronScheduler.fetch(ours.name, connection)
    assert read.get_jobs()[0].to_dict() == ours.get_jobs()[0].to_dict()
    assert CronScheduler.fetch(theirs.name, connection).get_jobs()[0].to_dict() == theirs.get_jobs()[0].to_dict()


@pytest.mark.parametrize('stored', [b'{broken', b'[{}]', b'[1]'])
def test_damaged_cron_jobs_leave_a_scheduler_readable(connection: redis.Redis, stored: bytes) -> None:
    scheduler = scheduler_with(connection, 'a')
    scheduler.save()
    connection.hset(scheduler.key, 'cron_jobs', stored)
    found = CronScheduler.fetch(scheduler.name, connection)
    assert found.get_jobs() == [] and found.hostname == scheduler.hostname


def test_a_heartbeat_restores_what_expired(connection: redis.Redis) -> None:
    scheduler = scheduler_with(connection, 'a')
    scheduler.register_birth()
    connection.delete(scheduler.key, cron_scheduler_registry.get_registry_key())
    assert scheduler.last_heartbeat is None
    scheduler.heartbeat()
    assert len(CronScheduler.fetch(scheduler.name, connection).get_jobs()) == 1
    assert scheduler.last_heartbeat is not None and now() - scheduler.last_heartbeat < timedelta(seconds=10)


# ---- configuration ----

CONFIG = """
from greenq import cron
from tests.objects.test_cron import nothing

cron.register(nothing, 'work', interval=60)
cron.register(nothing, 'work', cron='0 9 * * *', kwargs={'a': 1})
cron.register(nothing, 'work')  # without a schedule
"""


def test_loads_a_file_by_its_path_and_leaves_bad_jobs_out(connection: redis.Redis, tmp_path: Path) -> None:
    path = tmp_path / 'jobs.py'
    path.write_text(CONFIG)
    scheduler = CronScheduler(connection=connection)
    scheduler.load_config_from_file(str(path))
    assert [(job.interval, job.cron) for job in scheduler.get_jobs()] == [(60, None), (None, '0 9 * * *')]
    assert scheduler.config_file == str(path)
    assert cron.create_cron(connection).get_jobs() == []


@pytest.mark.parametrize('name', ['greenq_test_jobs', 'greenq_test_jobs.py'])
def test_loads_a_module_and_loads_it_again(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / 'greenq_test_jobs.py').write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'greenq_test_jobs', raising=False)
    for _ in range(2):
        scheduler = CronScheduler(connection=connection)
        scheduler.load_config_from_file(name)
        assert len(scheduler.get_jobs()) == 2


@pytest.mark.parametrize(
    ('content', 'message'),
    [('no python :', 'SyntaxError'), ('import no_such_module', 'no_such_module'), (CONFIG + '1 / 0', 'ZeroDivision')],
)
def test_a_file_that_cannot_be_loaded_registers_nothing(
    connection: redis.Redis, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / 'jobs.py'
    path.write_text(content)
    scheduler = CronScheduler(connection=connection)
    with pytest.raises(ImportError, match=message):
        scheduler.load_config_from_file(str(path))
    assert scheduler.get_jobs() == []
    assert cron.create_cron(connection).get_jobs() == []


def test_a_configuration_that_does_not_exist(connection: redis.Redis) -> None:
    scheduler = CronScheduler(connection=connection)
    with pytest.raises(ImportError, match='no_such_jobs'):
        scheduler.load_config_from_file('no_such_jobs.py')
    with pytest.raises(FileNotFoundError, match='/no/such/jobs'):
        scheduler.load_config_from_file(os.path.abspath('/no/such/jobs.py'))


def test_create_cron_takes_what_was_registered(connection: redis.Redis) -> None:
    data = cron.register(nothing, 'work', interval=60)
    assert data['func'] is nothing
    assert [job.func for job in cron.create_cron(connection).get_jobs()] == [nothing]
    assert cron.create_cron(connection).get_jobs() == []
