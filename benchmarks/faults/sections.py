"""What is measured: from a cancellation to the handler, from a worker's death to the next start, and beside poison."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import TYPE_CHECKING, Any

from atlas_grpc import Client
from atlas_grpc.client import JobState, Logged
from benchmarks.report import Figure, Row, percentile

from .crew import Crew, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from atlas_grpc.client import JobHandle
    from benchmarks.over_stores import OneStore
    from benchmarks.stores.engines import Engine

    from .crew import Worker
    from .plan import Plan

    Measured = Callable[[Plan, Engine], Coroutine[Any, Any, list[Row]]]
    Section = Callable[[OneStore[Plan]], list[Row]]

_TOLD = 200.0
"""Milliseconds within which a handler is to be told of its cancellation."""
_LATE = 500.0
"""Milliseconds after a lease within which a job is to start elsewhere."""
_KEPT = 0.95
"""The share of its rate that neighbours of a poison job are to keep."""
_WORKERS = 3
_SLOTS = 8
_NAP = 0.1
_QUEUED = 64


async def cancel(plan: Plan, engine: Engine) -> list[Row]:
    """CancelJob of running jobs, one at a time; where there are two servers, by the one that the worker is not at."""
    took = []
    with Crew(engine, 30.0) as crew:
        crew.worker("w")
        async with Client(crew.targets[-1]) as client:
            await _known(client)
            for _ in range(plan.cancels):
                job = await client.submit("hold")
                async for event in client.watch(job):
                    if isinstance(event, Logged):
                        break
                began = time.monotonic()
                await client.cancel(job)
                await client.wait(job)
                took.append((crew.find("stopped")[job.id] - began) * 1000)
    return [_row(engine, "a cancellation reaches the handler", took, f"p99 ≤ {_TOLD:g} ms", _TOLD)]


async def kill(plan: Plan, engine: Engine) -> list[Row]:
    """Kill -9 of workers with a job each, at any moment between two heartbeats; another worker has room."""
    late: list[float] = []
    with Crew(engine, plan.lease) as crew:
        crew.worker("catcher", "--concurrency", str(plan.at_a_time), at=-1)
        async with Client(crew.targets[-1]) as client:
            await _known(client)
            for number in range(plan.kills // plan.at_a_time):
                late += await _round(plan, crew, client, number)
    row = _row(
        engine,
        f"from a worker's death to the next start, less the lease of {plan.lease:g} s",
        late,
        f"p99 ≤ {_LATE:g} ms",
        _LATE,
    )
    return [row]


async def _round(plan: Plan, crew: Crew, client: Client, number: int) -> list[float]:
    names = [f"v{number}-{n}" for n in range(plan.at_a_time)]
    victims = {name: crew.worker(name, "--concurrency", "1", at=n) for n, name in enumerate(names)}
    jobs = [await client.submit("hold") for _ in range(2 * plan.at_a_time)]
    await until(lambda: {job.id for job in jobs} <= crew.find("began").keys())
    jobs = [await job.refresh() for job in jobs]
    mine = {job.attempts[-1].worker: job for job in jobs if job.attempts[-1].worker in victims}
    await _cancelled(client, [job for job in jobs if job not in mine.values()])

    async def kill_one(worker: Worker) -> float:
        await asyncio.sleep(random.uniform(0, plan.lease))
        worker.process.send_signal(signal.SIGKILL)
        return time.monotonic()

    killed = dict(zip(mine, await asyncio.gather(*(kill_one(victims[name]) for name in mine)), strict=True))
    await until(lambda: {job.id for job in mine.values()} <= crew.find("began", 2).keys())
    began = crew.find("began", 2)
    await _cancelled(client, list(mine.values()))
    return [(began[mine[name].id] - at - plan.lease) * 1000 for name, at in killed.items()]


async def poison(plan: Plan, engine: Engine) -> list[Row]:
    """Jobs beside one that kills its worker at each attempt; the workers are started again at once."""
    return [
        await _beside(plan, engine, "poison", "neighbour", "the rate beside a job that kills its worker"),
        await _beside(
            plan, engine, "poison_process", "neighbour_process", "the rate beside one that kills its process"
        ),
    ]


async def _beside(plan: Plan, engine: Engine, kind: str, neighbour: str, name: str) -> Row:
    alone, beside = Figure("jobs/s"), Figure("jobs/s")
    with Crew(engine, plan.poison_lease) as crew:
        deaths = 0

        async def keep_up(number: int) -> None:
            nonlocal deaths
            while True:
                worker = crew.worker(f"w{number}", "--concurrency", str(_SLOTS), "--handler-processes", "2", at=number)
                await asyncio.to_thread(worker.process.wait)
                deaths += 1

        async with Client(crew.targets[-1]) as client, asyncio.TaskGroup() as group:
            tasks = [group.create_task(keep_up(number)) for number in range(_WORKERS)]
            await _known(client)
            tasks += [group.create_task(_keep_busy(client, neighbour)) for _ in range(_QUEUED)]
            await until(lambda: len(crew.find("ended")) > _QUEUED)
            await asyncio.sleep(plan.warm_up)
            alone.values.append(await _rate(crew, plan.window))
            job = await client.submit(kind, priority=100)
            began = time.monotonic()
            end = await client.wait(job)
            life = time.monotonic() - began
            # At least as long as alone: what a short life costs is little of it.
            beside.values.append(await _rate(crew, max(0.0, plan.window - life), began))
            for task in tasks:
                task.cancel()
    if end.state is not JobState.FAILED:
        raise RuntimeError(f"the poison job ended as {end.state}")
    row = Row(engine.name, name, beside, alone).compare()
    row.more = {
        "its attempts": Figure("", [float(len(end.attempts))]),
        "its life": Figure("s", [life]),
        "workers lost": Figure("", [float(deaths)]),
    }
    return row.aim(f"≥ {_KEPT}", (row.ratio or 0) >= _KEPT)


async def _keep_busy(client: Client, kind: str) -> None:
    while True:
        await client.run(kind, {"seconds": _NAP})


async def _rate(crew: Crew, seconds: float, since: float | None = None) -> float:
    """Neighbours that ended in a second, from then (or now) until so many seconds from now."""
    since = since or time.monotonic()
    await asyncio.sleep(seconds)
    end = time.monotonic()
    return sum(since <= event.time < end for event in crew.read() if event.what == "ended") / (end - since)


async def _known(client: Client) -> None:
    """Returns when a worker has connected."""
    names: set[str] = set()
    while "hold" not in names:
        await asyncio.sleep(0.05)
        names = {kind.name for kind in await client.types()}


async def _cancelled(client: Client, jobs: Sequence[JobHandle]) -> None:
    await asyncio.gather(*(client.cancel(job) for job in jobs))
    await asyncio.gather(*(client.wait(job) for job in jobs))


def _row(engine: Engine, name: str, milliseconds: list[float], target: str, bound: float) -> Row:
    p50, p99 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)
    row = Row(engine.name, name, Figure("ms at p99", [p99]))
    row.more = {
        "p50": Figure("ms", [p50]),
        "largest": Figure("ms", [max(milliseconds)]),
        "of": Figure("times", [float(len(milliseconds))]),
    }
    return row.aim(target, p99 <= bound)


def _section(measured: Measured) -> Section:
    return lambda bench: asyncio.run(measured(bench.plan, bench.engine))


SECTIONS: dict[str, Section] = {"cancel": _section(cancel), "kill": _section(kill), "poison": _section(poison)}
