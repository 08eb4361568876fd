"""RQ's path, and RQ's names, for what the commands share; it is done in `config`, `connection` and `arguments`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from redis import Redis

from greenq.cli.arguments import parse_function_arg, parse_function_args, parse_schedule
from greenq.cli.config import full_name, load_settings, read_config
from greenq.cli.connection import connection_from_settings, open_connection
from greenq.defaults import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_DEATH_PENALTY_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_WORKER_CLASS,
)
from greenq.utils import import_attribute

if TYPE_CHECKING:
    from greenq.job import Job
    from greenq.queue import Queue
    from greenq.worker import BaseWorker

__all__ = [
    'CliConfig',
    'get_redis_from_config',
    'parse_function_arg',
    'parse_function_args',
    'parse_schedule',
    'read_config_file',
]


def read_config_file(module: str) -> dict[str, Any]:
    """The upper-case names of a settings module or file."""
    return load_settings(module)


def get_redis_from_config(settings: Mapping[str, Any], connection_class: type[Redis] = Redis) -> Redis:
    """The client that RQ's setting names describe."""
    return connection_from_settings(settings, connection_class)


class CliConfig:
    """The shared options of a command, for code that makes one itself; greenq's commands have `config.Config`.

    Classes are given as dotted paths; ValueError, or another error that says so, for one that cannot be imported.
    """

    def __init__(
        self,
        url: str | None = None,
        config: str | None = None,
        worker_class: str = DEFAULT_WORKER_CLASS,
        job_class: str = DEFAULT_JOB_CLASS,
        death_penalty_class: str = DEFAULT_DEATH_PENALTY_CLASS,
        queue_class: str = DEFAULT_QUEUE_CLASS,
        connection_class: str = DEFAULT_CONNECTION_CLASS,
        path: Sequence[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ):
        self.url = url
        self.config = config
        self._config = read_config(
            url=url,
            path=path or (),
            worker_class=worker_class,
            job_class=job_class,
            queue_class=queue_class,
            connection_class=connection_class,
        )
        self.worker_class: type[BaseWorker] = self._config.worker_class
        self.job_class: type[Job] = self._config.job_class
        self.queue_class: type[Queue] = self._config.queue_class
        self.connection_class: type[Redis] = self._config.connection_class
        self.death_penalty_class = import_attribute(full_name(death_penalty_class))

    @cached_property
    def connection(self) -> Redis:
        """The client for the URL, else for the settings, else for the environment."""
        settings = load_settings(self.config) if self.config and not self.url else os.environ
        return open_connection(self.url, settings, self.connection_class)
