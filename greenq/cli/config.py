"""What the shared options decide, once per command: flag, else environment, else settings file, else default.

Commands get one frozen `Config`; it imports a class, or makes the connection, when a command first asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from greenq.cli.errors import CommandError, one_line
from greenq.defaults import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_SERIALIZER_CLASS,
    DEFAULT_WORKER_CLASS,
)

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Job
    from greenq.queue import Queue
    from greenq.serializers import Serializer
    from greenq.worker import BaseWorker

SHORT_WORKER_NAMES = {
    'gevent': 'greenq.GeventWorker',
    'fork': 'greenq.Worker',
    'simple': 'greenq.SimpleWorker',
    'spawn': 'greenq.SpawnWorker',
}


@dataclass(frozen=True)
class Config:
    """The choices that all commands share. Classes and serializer are names here; the properties import them."""

    url: str | None
    settings: Mapping[str, Any]
    worker_class_name: str = DEFAULT_WORKER_CLASS
    job_class_name: str = DEFAULT_JOB_CLASS
    queue_class_name: str = DEFAULT_QUEUE_CLASS
    connection_class_name: str = DEFAULT_CONNECTION_CLASS
    serializer_name: str = DEFAULT_SERIALIZER_CLASS

    @cached_property
    def connection(self) -> Redis:
        from greenq.cli.connection import open_connection

        return open_connection(self.url, self.settings, self.connection_class)

    def close(self) -> None:
        """Close the connection, if a command has used one."""
        if 'connection' in vars(self):
            self.connection.close()

    @cached_property
    def worker_class(self) -> type[BaseWorker]:
        return _import_class(self.worker_class_name, 'worker', 'greenq.worker.BaseWorker', '--worker-class')

    @cached_property
    def job_class(self) -> type[Job]:
        return _import_class(self.job_class_name, 'job', 'greenq.job.Job', '--job-class')

    @cached_property
    def queue_class(self) -> type[Queue]:
        return _import_class(self.queue_class_name, 'queue', 'greenq.queue.Queue', '--queue-class')

    @cached_property
    def connection_class(self) -> type[Redis]:
        option = '--connection-class'
        return _import_class(self.connection_class_name, 'connection', 'redis.Redis', option, 'redis.RedisCluster')

    @cached_property
    def serializer(self) -> Serializer:
        from greenq.serializers import SERIALIZER_ALIASES, resolve_serializer

        try:
            return resolve_serializer(full_name(self.serializer_name))
        except Exception as error:
            known = ', '.join(sorted(SERIALIZER_ALIASES))
            raise CommandError(
                f'Cannot use serializer {self.serializer_name!r}: {one_line(error)}. '
                f'Give --serializer {known}, or the dotted path of something with dumps and loads.'
            ) from error

    def queue(self, name: str) -> Queue:
        """The queue of this name, with the chosen classes and serializer."""
        return self.queue_class(name, connection=self.connection, job_class=self.job_class, serializer=self.serializer)

    def all_queues(self) -> list[Queue]:
        """Every queue that was ever enqueued to."""
        return self.queue_class.all(connection=self.connection, job_class=self.job_class, serializer=self.serializer)


# ---- classes by name ----


def full_name(name: str) -> str:
    """The dotted path that a name stands for.

    A name of RQ's is the same thing in greenq, because what was set up for `rq` often stays in the environment.
    """
    if name.startswith('rq.'):
        return f'greenq.{name.removeprefix("rq.")}'
    return SHORT_WORKER_NAMES.get(name, name)


def _import_class(name: str, kind: str, base_name: str, option: str, *other_bases: str) -> type[Any]:
    from greenq.utils import import_attribute

    try:
        found = import_attribute(full_name(name))
    except Exception as error:
        raise CommandError(
            f'Cannot import {kind} class {name!r}: {one_line(error)}. '
            f'Give {option} a dotted path that can be imported from here; --path adds directories.'
        ) from error
    bases = tuple(import_attribute(base) for base in (base_name, *other_bases))
    if not isinstance(found, type) or not issubclass(found, bases):
        raise CommandError(
            f'{name!r} is not a {kind} class: it does not inherit from {base_name}. '
            f'Give {option} the dotted path of a class that does.'
        )
    return found


# ---- settings ----


def load_settings(name: str) -> dict[str, Any]:
    """The upper-case names of a settings module, given as a dotted name or as a file."""
    try:
        module = _load_file(Path(name)) if _is_file_name(name) else importlib.import_module(name)
    except Exception as error:
        raise CommandError(
            f'Cannot load settings from {name!r}: {one_line(error)}. '
            f'Give --config a module that can be imported from here, or the path of a Python file.'
        ) from error
    return {key: value for key, value in vars(module).items() if key == key.upper() and not key.startswith('_')}


def _is_file_name(name: str) -> bool:
    return os.path.sep in name or name.endswith('.py')


def _load_file(path: Path) -> Any:
    path = path if path.suffix == '.py' else path.with_name(path.name + '.py')
    if not path.is_file():
        raise FileNotFoundError('there is no such file')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- options ----


def _variables(suffix: str) -> list[str]:
    return [f'GREENQ_{suffix}', f'RQ_{suffix}']


_OPTIONS = {
    'url': click.option(
        '--url', '-u', envvar=_variables('REDIS_URL'), help='Redis URL: redis://, rediss://, unix://, embedded.'
    ),
    'config': click.option('--config', '-c', envvar=_variables('CONFIG'), help='Module or file with settings.'),
    'worker_class': click.option(
        '--worker-class',
        '-w',
        envvar=_variables('WORKER_CLASS'),
        help='Worker class: gevent, fork, simple, spawn, or a dotted path.  [default: fork]',
    ),
    'job_class': click.option('--job-class', '-j', envvar=_variables('JOB_CLASS'), help='Job class, as a dotted path.'),
    'queue_class': click.option(
        '--queue-class', envvar=_variables('QUEUE_CLASS'), help='Queue class, as a dotted path.'
    ),
    'connection_class': click.option(
        '--connection-class', envvar=_variables('CONNECTION_CLASS'), help='Redis client class, as a dotted path.'
    ),
    'path': click.option(
        '--path', '-P', multiple=True, default=['.'], help='Directory to import from; may be repeated.  [default: .]'
    ),
    'serializer': click.option(
        '--serializer',
        '-S',
        envvar=_variables('SERIALIZER'),
        help='Serializer: pickle, json, or a dotted path.  [default: pickle]',
    ),
}


def pass_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options, and in their place, as its first argument, the `Config` that they make."""

    @wraps(command)
    def with_config(**options: Any) -> Any:
        config = read_config(**{name: options.pop(name) for name in _OPTIONS})
        context = click.get_current_context()
        context.find_root().obj = config
        context.call_on_close(config.close)
        return command(config, **options)

    wrapped = cast(Callable[..., Any], with_config)
    for option in reversed(_OPTIONS.values()):
        wrapped = option(wrapped)
    return wrapped


def given_options() -> dict[str, Any]:
    """The shared options of the command that runs, as `read_config` takes them; all are text, or lists of it."""
    params = click.get_current_context().params
    return {name: params[name] for name in _OPTIONS}


def read_config(
    *, url: str | None = None, config: str | None = None, path: Sequence[str] = (), **class_names: str | None
) -> Config:
    """The `Config` of what flags and environment say (None: nothing), filled up from the settings file.

    `path` is added to where modules are imported from, also for the jobs of a worker.
    """
    # Absolute, so that a job which changes the working directory does not lose its imports.
    sys.path.extend(directory for directory in map(os.path.abspath, path) if directory not in sys.path)
    settings = load_settings(config) if config else {}
    chosen = {}
    for option in ('worker_class', 'job_class', 'queue_class', 'connection_class', 'serializer'):
        name = class_names.get(option) or settings.get(option.upper())
        if name:
            chosen[f'{option}_name'] = name
    return Config(url=url, settings=settings, **chosen)
