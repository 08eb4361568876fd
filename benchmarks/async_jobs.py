"""`benchmarks.jobs` for queues whose jobs are coroutines: the same names, the same work."""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import jobs, setting
from benchmarks.jobs import FETCH_SECONDS, record

#: The jobs.
NAMES = (*jobs.NAMES, 'fetch_async')


async def noop(number: int) -> int:
    """Nothing, with a result that is kept."""
    record(number, time.monotonic())
    return number


async def nap(number: int, seconds: float) -> int:
    """Waits, as for a network."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    record(number, began)
    return number


async def hold(number: int, seconds: float) -> int:
    """Tells that it has begun, then waits."""
    record(number, time.monotonic())
    await asyncio.sleep(seconds)
    return number


async def fetch(number: int, url: str) -> int:
    """Runs the same synchronous code as the others, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), jobs.fetch, number, url)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(setting.SLOTS)


async def fetch_async(number: int, url: str) -> int:
    """Calls the server as a coroutine; with a connection for each call, as `requests.get` does."""
    import aiohttp  # type: ignore[import-not-found, unused-ignore]

    began = time.monotonic()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS)) as session,
        session.get(url, raise_for_status=True) as response,
    ):
        await response.read()
    record(number, began)
    return number
