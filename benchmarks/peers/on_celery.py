"""Celery, with its results in Redis."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery  # type: ignore[import-not-found, unused-ignore]

from benchmarks import jobs, setting

logging.disable(logging.CRITICAL)

# Celery's name for a unix socket differs from everybody else's.
_URL = setting.URL.replace('unix://', 'redis+socket://', 1)

app = Celery('benchmark', broker=_URL, backend=_URL)
app.conf.update(
    task_default_queue=setting.QUEUE,
    result_expires=500,
    # Without it, each job in a gevent pool makes a backend and a connection of its own.
    result_backend_thread_safe=True,
    # redis-py's default of 100 is less than the slots.
    redis_max_connections=20_000,
    broker_connection_retry_on_startup=True,
)

TASKS = {name: app.task(name=name)(getattr(jobs, name)) for name in jobs.NAMES}


class Producer:
    """Calls the tasks."""

    def one(self, job: str, *args: Any) -> None:
        """A job."""
        TASKS[job].delay(*args)


def connect() -> Producer:
    """A producer."""
    return Producer()
