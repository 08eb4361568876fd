"""RQ's older place for the cleaning of intermediate queues; nothing else belongs here."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenq.queue import Queue
    from greenq.worker import BaseWorker


def clean_intermediate_queue(worker: BaseWorker, queue: Queue) -> None:
    """Deprecated: the same as `queue.intermediate_queue.cleanup(worker, queue)`."""
    warnings.warn(
        'clean_intermediate_queue is deprecated. Use IntermediateQueue.cleanup instead.',
        DeprecationWarning,
        stacklevel=2,
    )
    queue.intermediate_queue.cleanup(worker, queue)
