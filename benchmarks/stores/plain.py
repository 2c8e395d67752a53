"""The client's commands for plain queues: the same amounts, batches and windows as with Atlas."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks import wire
from benchmarks.meter import Meter, Usage

from .queues import QUEUES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks.meter import Answer

    from .queues import Body, Queue


_FILL = 1000


class Plain:
    """Commands of the client process. `kind`, `address` and the process `engine` name an engine, `lanes` is how many
    connections are used. This process does what the server of Atlas would, so its CPU counts as the server's."""

    async def plain_enqueue(
        self, kind: str, address: str, engine: int, lanes: int, batch: int, seconds: float, warmup: float
    ) -> Answer:
        """Transactions of `batch` new jobs, as fast as the answers come; counted and timed by transaction."""
        async with _opened(kind, address, lanes) as queue:
            bodies = _bodies()

            async def step(lane: int) -> None:
                await queue.insert(lane, list(itertools.islice(bodies, batch)))

            return await _timed(step, lanes, Meter(os.getpid(), warmup, seconds, engine))

    async def plain_drain(self, kind: str, address: str, engine: int, lanes: int, jobs: int, batch: int) -> Answer:
        """Claims and finishes so many jobs that wait; answers the seconds that took."""
        async with _opened(kind, address, lanes) as queue:
            bodies = itertools.islice(_bodies(), jobs)
            while chunk := list(itertools.islice(bodies, _FILL)):
                await queue.insert(0, chunk)
            await queue.settle()
            finished = 0

            async def drain(lane: int) -> None:
                nonlocal finished
                while ids := await queue.claim(lane, batch):
                    await queue.finish(lane, ids)
                    finished += len(ids)

            usage = Usage(os.getpid(), engine)
            await asyncio.gather(*map(drain, range(lanes)))
            answer = {"seconds": time.perf_counter() - usage.start, **usage.shares()}
            if finished != jobs:
                raise RuntimeError(f"a plain queue of {jobs} jobs finished {finished}")
            return answer

    async def plain_latency(self, kind: str, address: str, engine: int, seconds: float, warmup: float) -> Answer:
        """One job after the other: stored, claimed, finished, in three transactions."""
        async with _opened(kind, address, 1) as queue:
            bodies = _bodies()

            async def step(lane: int) -> None:
                await queue.insert(lane, [next(bodies)])
                await queue.finish(lane, await queue.claim(lane, 1))

            return await _timed(step, 1, Meter(os.getpid(), warmup, seconds, engine))


@asynccontextmanager
async def _opened(kind: str, address: str, lanes: int) -> AsyncIterator[Queue]:
    queue = QUEUES[kind](address)
    await queue.open(lanes)
    try:
        yield queue
    finally:
        await queue.close()


def _bodies() -> Iterator[Body]:
    """What a client of Atlas would send for each job."""
    return ((0, body) for body in wire.submits("noop"))


async def _timed(step: Callable[[int], Awaitable[None]], lanes: int, meter: Meter) -> Answer:
    latencies: list[int] = []

    async def lane(number: int) -> None:
        while (start := time.perf_counter()) < meter.stop:
            await step(number)
            end = time.perf_counter()
            if meter.begin <= end <= meter.stop:
                latencies.append(int((end - start) * 1e6))
            # A driver that never waits would keep the meter from running.
            await asyncio.sleep(0)

    await asyncio.gather(meter.run(), *map(lane, range(lanes)))
    return meter.answer(len(latencies), meter.stop - meter.begin, latencies)
