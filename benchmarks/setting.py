"""What the processes of a measurement are told, by their environment. No imports but `os`: all of them read this."""

from __future__ import annotations

import os

_PREFIX = 'BENCHMARK_'
#: What else a process finds in its environment. No more, because what a call of requests costs grows with it.
_KEPT = ('PATH', 'HOME', 'LANG', 'LC_ALL', 'TMPDIR', 'GREENQ_KEY_PREFIX', 'RQ_KEY_PREFIX')


def environment(**settings: str) -> dict[str, str]:
    """The environment for a process, with these settings."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **{_PREFIX + name.upper(): value for name, value in settings.items()}}


def _setting(name: str, default: str = '') -> str:
    return os.environ.get(_PREFIX + name, default)


#: Where Redis is.
URL = _setting('URL', 'redis://localhost:6379')
#: The queue that jobs go through.
QUEUE = _setting('QUEUE', 'benchmark')
#: Jobs that the worker may run at once.
SLOTS = int(_setting('SLOTS', '100'))
#: The file that jobs write their records to.
RECORDS = _setting('RECORDS')
#: Modules that a forking worker imports before it forks, so that each job does not.
PRELOAD = _setting('PRELOAD').split()
