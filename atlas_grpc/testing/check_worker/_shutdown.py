"""How a worker ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._kit import broken, check, expect

if TYPE_CHECKING:
    from ._world import World

_DRAIN = 10.0
"""Seconds that a worker has to end, with jobs that do not."""


@check("drain")
async def ends_when_idle(world: World) -> None:
    """A worker without jobs has nothing to wait for at SIGTERM."""
    await world.works()
    world.worker.tell_to_end()
    expect(await world.worker.ended(5), 0, "the exit code of the worker")


@check("drain")
async def lets_jobs_end(world: World) -> None:
    """At SIGTERM a worker takes no more jobs, and those that are about to end may do so."""
    ticking = await world.tick(1.5)
    world.worker.tell_to_end()
    await asyncio.sleep(0.5)
    further = await world.submit("check.echo", {"value": 1})
    expect(await world.worker.ended(_DRAIN), 0, "the exit code of the worker")
    expect((await world.client.get(ticking.job)).state.name, "SUCCESS", "the state of a job that was about to end")
    ticking.expect_executed_once()
    job = await world.client.get(further)
    if job.state.name != "PENDING" or "LOST" in await world.attempts(further):
        broken("it took a job half a second after SIGTERM")


@check("drain")
async def gives_jobs_back(world: World) -> None:
    """What does not end in the drain time goes back at once and uncounted, so that another worker can take it."""
    ticking = await world.tick(600, max_attempts=1)
    world.worker.tell_to_end()
    expect(await world.worker.ended(_DRAIN), 0, "the exit code of the worker")
    job = await world.client.get(ticking.job)
    expect(await world.attempts(job), ["RELEASED"], "the attempts of a job that the worker could not end")
    expect(job.state.name, "PENDING", "its state")
