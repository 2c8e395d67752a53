"""Watching one job over a store whose answers take their time: whatever overtakes what, nothing is hidden."""

from __future__ import annotations

import asyncio
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_grpc.model import Ask, LogLine, Progress, Released, Report, Severity, Update
from tests.unit.engine.reader import Reader, check
from tests.unit.engine.world import DONE, World, a_world, boom


async def a_hasty_life(world: World, job_id: str, queue: str, rng: random.Random) -> None:
    """Output and attempts without a pause in which everything could come to rest."""
    worker = await world.worker(f"w{job_id}")
    for attempt in range(rng.randrange(3)):
        job = (await worker.session._claim([Ask("work", 1, frozenset({queue}))], 1))[0]
        for _ in range(rng.randrange(4)):
            lines = tuple(LogLine(Severity.INFO, "line") for _ in range(rng.randrange(3)))
            world.clock.tick()
            await worker.session.update([Update(job_id, job.fence, Progress(rng.random()), lines)])
        await worker.session.finish([Report(job_id, job.fence, Released() if attempt else boom(retry_in=0))])
    job = (await worker.session._claim([Ask("work", 1, frozenset({queue}))], 1))[0]
    world.clock.tick()
    await worker.session.update([Update(job_id, job.fence, Progress(1), (LogLine(Severity.INFO, "bye"),))])
    await worker.session.finish([Report(job_id, job.fence, DONE)])


async def a_cut_reader(world: World, job_id: str, rng: random.Random) -> Reader:
    reader = Reader(job_id)
    while not reader.final:
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        await reader.follow(rng.choice(world.engines), rng.choice([1, 2, 3, 10_000]))
    return reader


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
async def test_a_storm_over_a_slow_store_hides_nothing(seed: int):
    rng = random.Random(seed)
    async with a_world(seed, slow=True, engines=rng.randrange(1, 3)) as world:
        world.store._turns = rng.choice([2, 5, 12])
        ids = {f"q{n}": await world.submit(queue=f"q{n}") for n in range(3)}
        lives = [a_hasty_life(world, job_id, queue, rng) for queue, job_id in ids.items()]
        reads = [a_cut_reader(world, job_id, rng) for job_id in [*ids.values()] * 2]
        done = await asyncio.wait_for(asyncio.gather(*reads, *lives), 20)
        for reader in done[: len(reads)]:
            await check(world, reader)


async def test_a_watch_that_opens_meanwhile_does_not_move_the_others(world: World):
    """The first watch asks for the head of the feed while another one is opened and told, and could be passed over."""
    one, two = await world.submit(), await world.submit(priority=1)
    world.store.gates["head"] = asyncio.Event()
    readers = [Reader(job_id) for job_id in (one, two)]
    following = [asyncio.ensure_future(reader.follow(world.engine)) for reader in readers]
    await world.clock.settle()
    worker = await world.worker()
    taken = await worker.take_one()
    outputs = world.store.hold("outputs")
    await worker.tell(taken, "first")
    await world.clock.settle()
    await worker.end(taken)
    world.store.gates["head"].set()
    await world.clock.settle()
    outputs.set()
    await asyncio.wait_for(following[1], 5)
    await check(world, readers[1])
    following[0].cancel()


async def test_an_answer_that_was_overtaken_is_dropped(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    await worker.tell(taken, "first")
    first, second = Reader(job_id), Reader(job_id)
    await second.follow(world.engine, 1)
    following = [asyncio.ensure_future(first.follow(world.engine))]
    await world.clock.settle()
    outputs = world.store.hold("outputs")
    following.append(asyncio.ensure_future(second.follow(world.engine)))
    await world.clock.settle()
    await worker.tell(taken, "second")
    await worker.end(taken)
    await world.clock.settle()
    outputs.set()
    await asyncio.wait_for(asyncio.gather(*following), 5)
    for reader in (first, second):
        await check(world, reader)


async def test_a_heartbeat_does_not_let_the_end_overtake_the_last_lines(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    reader = Reader(job_id)
    following = asyncio.ensure_future(reader.follow(world.engine))
    await world.clock.settle()
    outputs = world.store.hold("outputs")
    await worker.tell(taken, "the last words")
    world.engine.hub._outputs.clear()  # a hint may be lost
    await worker.end(taken)
    await world.clock.settle()
    await world.advance(40)
    outputs.set()
    await asyncio.wait_for(following, 5)
    await check(world, reader)
