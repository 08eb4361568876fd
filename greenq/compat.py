"""Lets code that says `rq` run on greenq: `install_as_rq`, and what to write instead of names that RQ has given up."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from greenq.exceptions import ConfigurationError

#: What `rq.VERSION` and `rq.version.VERSION` say, for libraries that ask whether RQ is recent enough.
RQ_VERSION = '3.0.0'

#: Modules that `rq` shows as its own, because they name RQ's version; every other is greenq's very module.
_OWN_MODULES = frozenset({'rq', 'rq.version'})


def install_as_rq() -> None:
    """From now on `import rq`, and of everything below it, gives greenq in this process.

    `rq.job` is the very module `greenq.job`, so classes are the same by either name. Doing it twice changes nothing.
    ConfigurationError if the real rq was imported before.
    """
    if is_installed():
        return
    real = sorted(name for name in sys.modules if name == 'rq' or name.startswith('rq.'))
    if real:
        more = f' and {len(real) - 5} more' if len(real) > 5 else ''
        raise ConfigurationError(
            f'the real rq was imported before greenq could take its name: {", ".join(real[:5])}{more}; '
            f'call greenq.compat.install_as_rq() before anything that imports rq'
        )
    sys.meta_path.insert(0, _FINDER)


def install_if_free() -> bool:
    """The same, unless the real rq was imported before; returns whether `import rq` gives greenq."""
    if not is_installed() and 'rq' not in sys.modules:
        install_as_rq()
    return is_installed()


def uninstall() -> None:
    """Gives the name `rq` back. What was imported by it stays greenq's."""
    if is_installed():
        sys.meta_path.remove(_FINDER)
        for name in [name for name in sys.modules if name == 'rq' or name.startswith('rq.')]:
            del sys.modules[name]


def is_installed() -> bool:
    """Whether `import rq` gives greenq."""
    return _FINDER in sys.meta_path


class _Finder(MetaPathFinder):
    """Finds `rq.x` wherever greenq has an `x`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != 'rq' and not fullname.startswith('rq.'):
            return None
        if fullname in GONE_MODULES:
            raise ModuleNotFoundError(
                f'{fullname} is gone from RQ, and from greenq: {GONE_MODULES[fullname]}', name=fullname
            )
        name = f'greenq{fullname.removeprefix("rq")}'
        found = find_spec(name)
        if found is None:
            return None
        return ModuleSpec(fullname, _AliasLoader(name), is_package=found.submodule_search_locations is not None)


class _AliasLoader(Loader):
    """Loads greenq's module for a name of RQ's."""

    def __init__(self, name: str):
        self._name = name
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        if spec.name in _OWN_MODULES:
            return _VersionFacade(spec.name, module)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just put the alias's spec there; the module goes on to be greenq's.
        if self._own_spec is not None:
            module.__spec__ = self._own_spec


class _VersionFacade(ModuleType):
    """A module of greenq's that tells RQ's version."""

    VERSION = RQ_VERSION
    __version__ = RQ_VERSION

    def __init__(self, name: str, behind: ModuleType):
        super().__init__(name, behind.__doc__)
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        # What a module has of itself (`__path__`, `__all__`...) is not the other's.
        if name.startswith('__') and name != '__all__':
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        return getattr(self._behind, name)

    def __dir__(self) -> list[str]:
        return dir(self._behind)


_FINDER = _Finder()


# ---- names that are gone ----

_GIVE_CONNECTION = (
    "give each queue, worker and job its client, as in Queue('default', connection=redis), or set REDIS_URL"
)
_FAILED_REGISTRY = 'use queue.failed_job_registry, or greenq.registry.FailedJobRegistry(name, connection=redis)'

#: Name -> what to write instead, for the names of RQ's older releases that have no meaning any more.
GONE = {
    'Connection': _GIVE_CONNECTION,
    'push_connection': _GIVE_CONNECTION,
    'pop_connection': _GIVE_CONNECTION,
    'use_connection': _GIVE_CONNECTION,
    'FailedQueue': _FAILED_REGISTRY,
    'get_failed_queue': _FAILED_REGISTRY,
    'move_to_failed_queue': f'failed jobs are kept without it; {_FAILED_REGISTRY}',
}

#: The same for modules, under the name that code written for RQ has for them.
GONE_MODULES = {
    'rq.handlers': f'failed jobs are kept without a handler; {_FAILED_REGISTRY}',
    'rq.contrib': 'give `greenq worker` --sentry-dsn, or put SENTRY_DSN into its settings',
}


def missing_name(module: str, name: str) -> Exception:
    """The error for a name that a module lacks: with what to write instead, if RQ had it once.

    That is an ImportError, since Python keeps no other message in `from greenq import Connection`.
    """
    if name in GONE:
        return ImportError(f'{name} is gone from RQ, and from {module}: {GONE[name]}', name=name)
    return AttributeError(f'module {module!r} has no attribute {name!r}')
