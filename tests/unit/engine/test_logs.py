"""A job's log by itself: pages, tails, one attempt's lines, and following it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.engine.logs import Wanted
from atlas_grpc.engine.tokens import JobToken, LogToken, encode
from atlas_grpc.errors import InvalidArgument, JobNotFound, ServerDraining
from atlas_grpc.stores.memory import MemoryLimits
from tests.unit.engine.world import NS, World, a_world, boom, collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


async def talked(world: World, *attempts: int) -> str:
    """A finished job whose attempts logged so many lines each; all but the last failed."""
    job_id = await world.submit()
    worker = await world.worker()
    for number, lines in enumerate(attempts, 1):
        taken = await worker.take_one()
        for n in range(lines):
            await worker.tell(taken, f"{number}.{n}")
        await (worker.end(taken) if number == len(attempts) else worker.end(taken, boom()))
        await world.advance(10)
    return job_id


def texts(lines: Any) -> list[str]:
    return [line.message for line in lines]


async def test_pages_meet_without_gap_or_repeat(world: World):
    job_id = await talked(world, 450)
    offsets: list[int] = []
    start = pages = 0
    while True:
        page = await world.engine.logs(NS, job_id, Wanted(start), 199)
        offsets += [line.offset for line in page.lines]
        start, pages = page.next, pages + 1
        assert (page.dropped, page.end, page.complete) == (0, 450, page.next == 450)
        if page.complete:
            break
    assert offsets == list(range(450))
    assert pages == 3
    beyond = await world.engine.logs(NS, job_id, Wanted(1000), 10)
    assert (beyond.lines, beyond.next, beyond.end, beyond.complete) == ((), 1000, 450, True)


async def test_a_page_of_long_lines_stays_small():
    async with a_world(limits=MemoryLimits(max_log_bytes=64 << 20)) as world:
        job_id = await world.submit()
        worker = await world.worker()
        taken = await worker.take_one()
        for _ in range(10):
            await worker.tell(taken, "x" * 100_000)
        await worker.tell(taken, "y" * 1_000_000, "z")
        page = await world.engine.logs(NS, job_id, Wanted(), 1000)
        assert (len(page.lines), page.next, page.complete) == (2, 2, False)
        long = await world.engine.logs(NS, job_id, Wanted(10), 1000)
        assert (len(long.lines), long.next) == (1, 11), "one line fits, however long"


async def test_the_lines_of_an_attempt_and_the_last_lines(world: World):
    job_id = await talked(world, 5, 3, 4)

    async def read(limit: int = 100, **wanted: Any) -> list[str]:
        return texts((await world.engine.logs(NS, job_id, Wanted(**wanted), limit)).lines)

    assert await read(attempt=2) == ["2.0", "2.1", "2.2"]
    assert await read(attempt=9) == []
    assert await read(tail=2) == ["3.2", "3.3"]
    assert await read(tail=0) == []
    assert await read(tail=100) == await read()
    assert await read(tail=2, attempt=1) == ["1.3", "1.4"]
    assert await read(tail=9, attempt=1) == [f"1.{n}" for n in range(5)]
    assert await read(tail=0, attempt=1) == []
    assert await read(tail=3, start=11) == ["3.3"], "whichever begins later"
    page = await world.engine.logs(NS, job_id, Wanted(attempt=2), 2)
    assert (texts(page.lines), page.next, page.complete) == (["2.0", "2.1"], 7, False)
    page = await world.engine.logs(NS, job_id, Wanted(page.next, attempt=2), 2)
    assert (texts(page.lines), page.next, page.complete) == (["2.2"], 12, True)


async def test_a_page_that_finds_little_ends_all_the_same():
    async with a_world(limits=MemoryLimits(max_log_lines=50_000, max_log_bytes=64 << 20)) as world:
        job_id = await world.submit()
        worker = await world.worker()
        taken = await worker.take_one()
        for _ in range(25):
            await worker.tell(taken, *["x"] * 1000)
        await worker.end(taken, boom())
        await world.advance(10)
        await worker.tell(await worker.take_one(), "here")
        start, reads, found = 0, 0, []
        while True:
            page = await world.engine.logs(NS, job_id, Wanted(start, attempt=2), 10)
            found += page.lines
            start, reads = page.next, reads + 1
            if page.next >= page.end:
                break
        assert (texts(found), reads, page.complete) == (["here"], 3, False)


async def test_lines_that_are_no_longer_kept_are_counted():
    async with a_world(limits=MemoryLimits(max_log_lines=10)) as world:
        job_id = await talked(world, 35)
        page = await world.engine.logs(NS, job_id, Wanted(), 4)
        assert (page.dropped, [line.offset for line in page.lines], page.next) == (25, [25, 26, 27, 28], 29)
        page = await world.engine.logs(NS, job_id, Wanted(tail=30), 100)
        assert (page.dropped, len(page.lines), page.complete) == (0, 10, True)
        (whole,) = await collect(await world.engine.watch_log(NS, job_id, Wanted(20), ""))
        assert (whole.dropped, len(whole.lines)) == (5, 10)
    async with a_world(limits=MemoryLimits(max_log_lines=0)) as world:
        job_id = await talked(world, 3)
        page = await world.engine.logs(NS, job_id, Wanted(), 4)
        assert (page.dropped, page.lines, page.next, page.end, page.complete) == (3, (), 3, 3, True)
        (whole,) = await collect(await world.engine.watch_log(NS, job_id, Wanted(), ""))
        assert (whole.dropped, whole.lines, whole.heartbeat) == (3, (), False)


async def test_a_log_is_followed_over_attempts_to_its_end(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch_log(NS, job_id, Wanted(), "")
    assert (await watch.next()).heartbeat, "the first message comes at once"
    following = asyncio.ensure_future(collect(watch))
    worker = await world.worker()
    taken = await worker.take_one()
    await worker.tell(taken, "a", "b", progress=5)
    await worker.end(taken, boom())
    await world.advance(1)
    taken = await worker.take_one()
    await worker.tell(taken, "c")
    await worker.end(taken)
    messages = await asyncio.wait_for(following, 5)
    assert texts(line for update in messages for line in update.lines) == ["a", "b", "c"]
    assert [update.final for update in messages] == [False] * (len(messages) - 1) + [True]
    watch.close()
    assert not any(world.engine.hub.open_watches().values())


async def test_following_is_counted_apart(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch_log(NS, job_id, Wanted(), "")
    assert world.engine.hub.open_watches() == {"WatchJob": 0, "WatchJobs": 0, "TailJobLogs": 1}
    watch.close()
    with pytest.raises(JobNotFound):
        await world.engine.watch_log(NS, "none", Wanted(), "")
    with pytest.raises(JobNotFound):
        await world.engine.watch_log("other", job_id, Wanted(), "")
    with pytest.raises(JobNotFound):
        await world.engine.logs("other", job_id, Wanted(), 1)
    assert not any(world.engine.hub.open_watches().values())


async def test_following_one_attempt_from_the_last_lines_on(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    await worker.tell(taken, "1.0", "1.1")
    mine = await world.engine.watch_log(NS, job_id, Wanted(attempt=2), "")
    tail = await world.engine.watch_log(NS, job_id, Wanted(tail=1), "")
    new = await world.engine.watch_log(NS, job_id, Wanted(tail=0), "")
    await worker.end(taken, boom())
    await world.advance(1)
    taken = await worker.take_one()
    await worker.tell(taken, "2.0", "2.1")
    await worker.end(taken)
    await world.clock.settle()

    async def told(watch: Any) -> list[str]:
        return texts(line for update in await collect(watch) for line in update.lines)

    assert await told(mine) == ["2.0", "2.1"]
    assert await told(tail) == ["1.1", "2.0", "2.1"]
    assert await told(new) == ["2.0", "2.1"]


async def test_a_follower_resumes_where_it_was_cut(world: World):
    job_id = await talked(world, 450)
    offsets: list[int] = []
    token, final = "", False
    while not final:
        watch = await world.engine.watch_log(NS, job_id, Wanted(tail=1) if token else Wanted(), token)
        update = await watch.next()
        watch.close()
        offsets += [line.offset for line in update.lines]
        token, final = world.engine.log_token(job_id, update.next), update.final
    assert offsets == list(range(450))
    for bad in (encode(LogToken("another", 1)), encode(LogToken(job_id, -1)), encode(JobToken(job_id, 1)), "x"):
        with pytest.raises(InvalidArgument) as caught:
            await world.engine.watch_log(NS, job_id, Wanted(), bad)
        assert caught.value.reason == "INVALID_TOKEN"


async def test_a_silent_log_shows_that_it_lives_whatever_else_happens(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch_log(NS, job_id, Wanted(), "")
    await watch.next()
    worker = await world.worker()
    taken = await worker.take_one()
    for _ in range(3):
        waiting = asyncio.ensure_future(watch.next())
        for _ in range(16):
            if not waiting.done():
                await world.advance(1)
                await worker.tell(taken, progress=world.clock.now())
        assert (await asyncio.wait_for(waiting, 5)).heartbeat, "progress is no news here"
    waiting = asyncio.ensure_future(watch.next())
    await world.clock.settle()
    await world.engine.hub.drain()
    with pytest.raises(ServerDraining):
        await asyncio.wait_for(waiting, 5)


async def test_a_deleted_job_ends_its_log(world: World):
    job_id = await talked(world, 1)
    await world.engine.delete(NS, job_id, None)
    with pytest.raises(JobNotFound):
        await world.engine.logs(NS, job_id, Wanted(), 1)
