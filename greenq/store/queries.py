"""Reads that need more than one key."""

from typing import Any

from greenq.store import keys
from greenq.utils import as_text


def held_executions(client: Any, worker: str) -> list[tuple[str, str, str]]:
    """(job id, execution id, queue) of all that a greenq worker has under lease, in two round trips."""
    composites = [as_text(item) for item in client.execute_command('SMEMBERS', keys.held(worker))]
    with client.pipeline(transaction=False) as pipeline:
        for composite in composites:
            pipeline.execute_command('HGET', keys.job(composite.rpartition(':')[0]), 'origin')
        origins = pipeline.execute()
    return [
        (*_parted(composite), as_text(origin or b'')) for composite, origin in zip(composites, origins, strict=True)
    ]


def _parted(composite: str) -> tuple[str, str]:
    job_id, _, execution_id = composite.rpartition(':')
    return job_id, execution_id
