"""A producer in a process of its own: `python -m benchmarks.produce RUNNER`, in the environment of what is measured.

RUNNER is a module whose `connect()` returns an object with `one(job, number, *args)` and, if it can enqueue many jobs
at a time, `many(job, calls)`; all three may be coroutine functions. Requests come as lines of JSON, answers leave so.
Nothing but the standard library is imported here.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import setting
from benchmarks.jobs import RECORD

#: Calls that an asyncio producer has under way at once when it fills a queue as fast as it can.
CONCURRENT_CALLS = 50
#: How long (s) a job that is waited for may take.
JOB_SECONDS = 20
#: The pause (s) after a job whose latency was measured, random so that it does not follow the rhythm of a poller.
PAUSE_SECONDS = (0.01, 0.03)

Call = tuple[Any, ...]


class _Harness:
    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._is_async = inspect.iscoroutinefunction(producer.one)

    async def answer(self, request: dict[str, Any]) -> Any:
        """What is asked for, or `None` if this producer cannot do it."""
        job, first, count = request['job'], request['first'], request['count']
        calls = [(number, *request['args']) for number in range(first, first + count)]
        method = getattr(self, request['do'])
        return await method(job, calls)

    async def fill(self, job: str, calls: Sequence[Call]) -> float:
        """As fast as it can."""
        if hasattr(self._producer, 'many'):
            return await self.bulk(job, calls) or 0
        if not self._is_async:
            return await self.one_by_one(job, calls)
        began = time.monotonic()
        for start in range(0, len(calls), CONCURRENT_CALLS):
            chunk = calls[start : start + CONCURRENT_CALLS]
            await asyncio.gather(*(self._producer.one(job, *call) for call in chunk))
        return time.monotonic() - began

    async def bulk(self, job: str, calls: Sequence[Call]) -> float | None:
        """Many at a time, in seconds."""
        if not hasattr(self._producer, 'many'):
            return None
        began = time.monotonic()
        await self._settle(self._producer.many(job, calls))
        return time.monotonic() - began

    async def one_by_one(self, job: str, calls: Sequence[Call]) -> float:
        """Each when the one before is enqueued, in seconds."""
        one = self._producer.one
        began = time.monotonic()
        if self._is_async:
            for call in calls:
                await one(job, *call)
        else:
            for call in calls:
                one(job, *call)
        return time.monotonic() - began

    async def each_when_idle(self, job: str, calls: Sequence[Call]) -> list[float]:
        """Each when the one before has run and the worker waits again; when each was enqueued, by the shared clock."""
        asked = []
        for call in calls:
            size = os.path.getsize(setting.RECORDS)
            asked.append(time.monotonic())
            await self._settle(self._producer.one(job, *call))
            while os.path.getsize(setting.RECORDS) < size + RECORD.size:
                if time.monotonic() > asked[-1] + JOB_SECONDS:
                    raise TimeoutError(f'job {call[0]} has not run within {JOB_SECONDS} s')
                time.sleep(0.001)
            time.sleep(random.uniform(*PAUSE_SECONDS))
        return asked

    @staticmethod
    async def _settle(result: Any) -> None:
        if inspect.isawaitable(result):
            await result


async def _main() -> None:
    producer = importlib.import_module(sys.argv[1]).connect()
    harness = _Harness(await producer if inspect.isawaitable(producer) else producer)
    answers = os.fdopen(os.dup(1), 'w')
    # What a library prints must not be taken for an answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(await harness.answer(json.loads(line))), file=answers, flush=True)


if __name__ == '__main__':
    asyncio.run(_main())
    # Connections that were left open are closed by this, not one by one with a warning each.
    sys.stderr.flush()
    os._exit(0)
