"""Configuration files of cron: what they register, and how they are loaded. The scheduler is elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from greenq.defaults import DEFAULT_RESULT_TTL
from greenq.utils import normalize_config_path, validate_absolute_path
from greenq.webhook import Webhook

#: What `register` was called with since a scheduler took it last.
_job_data_registry: list[dict[str, Any]] = []


def register(
    func: Callable[..., Any],
    queue_name: str,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    interval: int | None = None,
    cron: str | None = None,
    job_timeout: float | str | None = None,
    result_ttl: float | str | None = DEFAULT_RESULT_TTL,
    ttl: float | str | None = None,
    failure_ttl: float | str | None = None,
    meta: dict[Any, Any] | None = None,
    webhooks: Sequence[Webhook] | None = None,
    name: str = '',
) -> dict[str, Any]:
    """For configuration files: have the scheduler that loads the file add a cron job. Arguments as `CronJob`."""
    data = dict(locals())
    _job_data_registry.append(data)
    return data


def take_registered() -> list[dict[str, Any]]:
    """What was registered so far; nobody else gets it."""
    taken = _job_data_registry[:]
    _job_data_registry.clear()
    return taken


def load(config_path: str) -> list[dict[str, Any]]:
    """What a configuration registers, given as a dotted module name or as a file; what was registered before is lost.

    ImportError, or what the configuration itself raises, if it cannot be loaded.
    """
    _job_data_registry.clear()
    try:
        _load(config_path)
        return _job_data_registry[:]
    finally:
        _job_data_registry.clear()


def _load(config_path: str) -> None:
    if os.path.isabs(config_path):
        _load_file(validate_absolute_path(config_path))
        return
    module_name = normalize_config_path(config_path)
    try:
        # Again if it was imported before: importing it is what registers the jobs.
        if module_name in sys.modules:
            importlib.reload(sys.modules[module_name])
        else:
            importlib.import_module(module_name)
    except ImportError as error:
        raise ImportError(
            f"Failed to import configuration module '{module_name}' (from '{config_path}'): {error}"
        ) from error


def _load_file(path: str) -> None:
    module_name = f'greenq_cron_config_{os.path.basename(path).replace(".", "_")}'
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Failed to load configuration file '{path}': give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ImportError(f"Failed to load configuration file '{path}': {type(error).__name__}: {error}") from error
