"""A Redis job queue with RQ's API and Redis layout, and a worker that runs a thousand jobs at once.

Names are loaded on first use (PEP 562), so that `import greenq` costs a producer next to nothing, loads no gevent,
and leaves the console script time to monkey-patch first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import greenq.defaults  # noqa: F401  a bad RQ_KEY_PREFIX is refused at import, as by RQ
from greenq.version import VERSION

if TYPE_CHECKING:
    from greenq.callbacks import Callback as Callback
    from greenq.job import cancel_job as cancel_job
    from greenq.job import get_current_job as get_current_job
    from greenq.job import requeue_job as requeue_job
    from greenq.queue import Queue as Queue
    from greenq.rate_limit import RateLimit as RateLimit
    from greenq.repeat import Repeat as Repeat
    from greenq.retry import Retry as Retry
    from greenq.webhook import Webhook as Webhook
    from greenq.worker import GeventWorker as GeventWorker
    from greenq.worker import SimpleWorker as SimpleWorker
    from greenq.worker import SpawnWorker as SpawnWorker
    from greenq.worker import Worker as Worker

__version__ = VERSION

_HOMES = {
    'Callback': 'greenq.callbacks',
    'GeventWorker': 'greenq.worker',
    'Queue': 'greenq.queue',
    'RateLimit': 'greenq.rate_limit',
    'Repeat': 'greenq.repeat',
    'Retry': 'greenq.retry',
    'SimpleWorker': 'greenq.worker',
    'SpawnWorker': 'greenq.worker',
    'Webhook': 'greenq.webhook',
    'Worker': 'greenq.worker',
    'cancel_job': 'greenq.job',
    'get_current_job': 'greenq.job',
    'requeue_job': 'greenq.job',
}

__all__ = ['VERSION', '__version__', *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        from greenq.compat import missing_name

        raise missing_name(__name__, name)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
