"""What a gevent worker wants of its process before it starts: monkey patches, a calm garbage collector, and that host
names are looked up for many at once."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gevent import get_hub
from gevent.monkey import is_module_patched

from greenq.exceptions import NotPatchedError
from greenq.worker.lookups import share_lookups

#: Objects made between two looks of the garbage collector for cycles. The default of some hundreds is for programs
#: that keep what they make: here it costs a tenth of the time, and a job leaves few cycles.
GC_THRESHOLD = 20_000
#: Modules that keep what they were imported with, so that patching comes too late for them.
_TOO_EARLY = ('ssl', 'urllib3', 'requests', 'redis', 'asyncio', 'psycopg', 'pymysql', 'boto3', 'django')


def prepare_process(concurrency: int) -> None:
    """NotPatchedError if the process is not monkey-patched; else prepares it for so many jobs at once."""
    _refuse_unpatched_process()
    _calm_garbage_collector()
    share_lookups(concurrency)


@contextmanager
def greenlets_end_alone() -> Iterator[None]:
    """Within it, `sys.exit` and the like end the greenlet that calls it, as in a thread, where gevent would raise it in
    the main greenlet, too: the greenlet is some job's, and a signal that asks for a stop is no exception here."""
    hub = get_hub()
    earlier, hub.SYSTEM_ERROR = hub.SYSTEM_ERROR, ()
    try:
        yield
    finally:
        hub.SYSTEM_ERROR = earlier


def _refuse_unpatched_process() -> None:
    if is_module_patched('socket') and is_module_patched('threading'):
        return
    loaded = [name for name in _TOO_EARLY if name in sys.modules]
    raise NotPatchedError(
        f'GeventWorker needs a process that was monkey-patched first, and {", ".join(loaded)} came before: start it '
        'with `greenq worker -w greenq.GeventWorker`, or put `from gevent import monkey; monkey.patch_all()` before '
        'every other import'
    )


def _calm_garbage_collector() -> None:
    """Leaves alone who has set it up for himself: raised only from the default or below."""
    first, *others = gc.get_threshold()
    if 0 < first < GC_THRESHOLD and gc.isenabled():
        gc.set_threshold(GC_THRESHOLD, *others)
