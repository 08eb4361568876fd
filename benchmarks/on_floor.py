"""The least that enqueueing for `benchmarks.floor` takes: raw redis-py, one pipeline for a job or for many."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Sequence
from typing import Any

from redis import Redis

from benchmarks import setting
from benchmarks.floor_keys import BARE_JOBS, utc_now
from greenq.store import keys

CHUNK = 1000


class _Producer:
    def __init__(self) -> None:
        self._client = Redis.from_url(setting.URL)
        self._queue_key = keys.queue(setting.QUEUE)

    def one(self, job: str, *args: Any) -> None:
        """A job, in one round trip."""
        self._push(job, [args])

    def many(self, job: str, calls: Sequence[tuple[Any, ...]]) -> None:
        """A job for each tuple of arguments."""
        for start in range(0, len(calls), CHUNK):
            self._push(job, calls[start : start + CHUNK])

    def _push(self, job: str, calls: Sequence[tuple[Any, ...]]) -> None:
        ids = [str(uuid.uuid4()) for _ in calls]
        with self._client.pipeline(transaction=False) as pipeline:
            for job_id, args in zip(ids, calls, strict=True):
                self._store(pipeline, job_id, pickle.dumps((f'benchmarks.jobs.{job}', None, args, {})))
            pipeline.rpush(self._queue_key, *ids)
            pipeline.execute()

    def _store(self, pipeline: Any, job_id: str, data: bytes) -> None:
        raise NotImplementedError(f'{type(self).__name__} must define _store()')


class RQProducer(_Producer):
    """Leaves what RQ's jobs consist of."""

    def _store(self, pipeline: Any, job_id: str, data: bytes) -> None:
        present = utc_now()
        fields = {
            'status': 'queued',
            'origin': setting.QUEUE,
            'created_at': present,
            'enqueued_at': present,
            'timeout': 180,
            'data': data,
        }
        pipeline.hset(keys.job(job_id), mapping=fields)


class BareProducer(_Producer):
    """Leaves the call only."""

    def _store(self, pipeline: Any, job_id: str, data: bytes) -> None:
        pipeline.hset(BARE_JOBS, job_id, data)


def connect() -> _Producer:
    """A producer for the kind of floor that the queue's name says."""
    return RQProducer() if setting.QUEUE.endswith('rq') else BareProducer()
