"""The names of cron jobs and of cron schedulers, and how they age."""

from __future__ import annotations

import time

import pytest
import redis

from greenq import cron_job_registry, cron_scheduler_registry
from greenq.cron import CronScheduler
from greenq.exceptions import DuplicateSchedulerError, SchedulerNotFound


def test_names_of_cron_jobs_are_sorted_by_when_they_enqueued_last(connection: redis.Redis) -> None:
    present = time.time()
    cron_job_registry.add('a', connection, present)
    cron_job_registry.add('b', connection, present - 60)
    assert cron_job_registry.get_names(connection) == ['b', 'a']
    with connection.pipeline() as pipeline:
        cron_job_registry.add('b', pipeline)
        pipeline.execute()
    assert cron_job_registry.get_names(connection) == ['a', 'b']


def test_names_of_cron_jobs_go_with_their_history(connection: redis.Redis) -> None:
    cron_job_registry.add('new', connection)
    cron_job_registry.add('old', connection, time.time() - 366 * 24 * 3600)
    assert cron_job_registry.get_names(connection, cleanup=False) == ['old', 'new']
    assert cron_job_registry.get_names(connection) == ['new']
    cron_job_registry.add('a minute old', connection, time.time() - 60)
    assert cron_job_registry.remove_stale_entries(connection, threshold=30) == 1
    assert cron_job_registry.get_names(connection) == ['new']


def test_a_scheduler_is_registered_once(connection: redis.Redis) -> None:
    scheduler = CronScheduler(connection=connection, name='one')
    cron_scheduler_registry.register(scheduler)
    with pytest.raises(DuplicateSchedulerError, match='one'):
        cron_scheduler_registry.register(scheduler)
    assert cron_scheduler_registry.get_keys(connection) == ['one']
    cron_scheduler_registry.unregister(scheduler)
    with pytest.raises(SchedulerNotFound, match='one'):
        cron_scheduler_registry.unregister(scheduler)


def test_a_pipeline_registers_when_it_runs(connection: redis.Redis) -> None:
    scheduler = CronScheduler(connection=connection, name='one')
    with connection.pipeline() as pipeline:
        cron_scheduler_registry.register(scheduler, pipeline)
        assert cron_scheduler_registry.get_keys(connection) == []
        pipeline.execute()
        assert cron_scheduler_registry.get_keys(connection) == ['one']
        cron_scheduler_registry.unregister(scheduler, pipeline)
        pipeline.execute()
    assert cron_scheduler_registry.get_keys(connection) == []


def test_silent_schedulers_are_forgotten(connection: redis.Redis) -> None:
    present = time.time()
    connection.zadd(cron_scheduler_registry.get_registry_key(), {'silent': present - 150, 'alive': present - 60})
    assert cron_scheduler_registry.cleanup(connection) == 1
    assert cron_scheduler_registry.get_keys(connection) == ['alive']
    assert cron_scheduler_registry.cleanup(connection, threshold=30) == 1
