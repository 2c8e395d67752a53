"""Watching one job: one gapless, ordered history for everybody, whatever is cut, slow or late."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_grpc.engine.tokens import FeedToken, JobToken, encode
from atlas_grpc.errors import (
    AtlasError,
    InvalidArgument,
    JobNotFound,
    OutOfRange,
    ResumeTokenExpired,
    ServerDraining,
    Unavailable,
)
from atlas_grpc.model import SECOND, Released, State
from atlas_grpc.stores.memory import MemoryLimits
from tests.unit.engine.reader import Reader, check
from tests.unit.engine.world import NS, Worker, World, a_world, boom, collect

if TYPE_CHECKING:
    from atlas_grpc.engine.watches import JobWatch
    from atlas_grpc.model import Assignment


async def a_life(world: World, job_id: str, steps: int, rng: random.Random) -> None:
    """Attempts, output, failures, new runs: some history, which ends in a terminal state."""
    worker = await world.worker(f"w{rng.random()}")
    for _ in range(steps):
        if (await world.job(job_id)).state.terminal:
            await world.engine.retry(NS, job_id, None)
        taken = await worker.take()
        if not taken:
            await world.advance(30)
            continue
        for _ in range(rng.randrange(3)):
            await worker.tell(taken[0], *("line" for _ in range(rng.randrange(4))), progress=rng.random())
        await worker.end(taken[0], rng.choice([boom(), Released(), Released(SECOND), boom(retryable=False)]))
    job = await world.job(job_id)
    if job.state.terminal:
        await world.engine.retry(NS, job_id, None)
    await world.advance(30)
    taken = await worker.take()
    await worker.tell(taken[0], "the", "last", "words", progress=100)
    await worker.end(taken[0])


async def test_early_late_and_resumed_watches_tell_the_same():
    async with a_world() as world:
        job_id = await world.submit()
        early = Reader(job_id)
        following = asyncio.ensure_future(early.follow(world.engine))
        await world.clock.settle()
        worker = await world.worker()
        await worker.end(await worker.take_one(), boom())
        await world.advance(1)
        taken = await worker.take_one()
        middle = Reader(job_id)
        await middle.follow(world.engine, 1)
        await worker.tell(taken, "a", "b", progress=50)
        await worker.end(taken)
        await world.clock.settle()
        late = Reader(job_id)
        await late.follow(world.engine)
        await middle.follow(world.engine)
        await asyncio.wait_for(following, 5)
        for reader in (early, middle, late):
            await check(world, reader)
        again = Reader(job_id)
        again.token = late.token
        await again.follow(world.engine)
        assert (again.versions, again.offsets, again.final) == ([], [], True), "a resume at the end ends at once"


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), slow=st.booleans(), engines=st.integers(1, 2), count=st.integers(1, 3))
async def test_cut_50_times_at_random_yields_the_whole_history(seed: int, slow: bool, engines: int, count: int):
    rng = random.Random(seed)
    async with a_world(seed, slow=slow, engines=engines) as world:
        job_id = await world.submit()
        ending = asyncio.ensure_future(a_life(world, job_id, rng.randrange(1, 12), rng))

        async def client(reader: Reader) -> None:
            cuts = 0
            while not reader.final or not ending.done():
                if reader.final:  # it ended with one run; there is another
                    if reader.last.version == (await world.job(job_id)).version:
                        await asyncio.sleep(0)
                        continue
                    reader.final = False
                reading = asyncio.ensure_future(reader.follow(rng.choice(world.engines), rng.randrange(1, 6)))
                for _ in range(rng.randrange(60) if cuts < 50 else 10_000):
                    await asyncio.sleep(0)
                    if reading.done():
                        break
                cuts += 1
                reading.cancel()
                (ended,) = await asyncio.gather(reading, return_exceptions=True)
                assert ended is None or isinstance(ended, asyncio.CancelledError), ended

        readers = [Reader(job_id, logs=rng.random() < 0.7) for _ in range(count)]
        await asyncio.gather(ending, *map(client, readers))
        for reader in readers:
            reader.final = reader.last.state.terminal
            await check(world, reader)
        for engine in world.engines:
            assert engine.hub.open_watches() == {"WatchJob": 0, "WatchJobs": 0, "TailJobLogs": 0}
            assert not engine.hub._topics


async def test_1000_watchers_share_one_record_and_see_the_same():
    async with a_world() as world:
        job_id = await world.submit()
        readers = [Reader(job_id, logs=n % 10 == 0) for n in range(1_000)]
        following = [asyncio.ensure_future(reader.follow(world.engine)) for reader in readers]
        await world.clock.settle()
        assert world.engine.hub.open_watches()["WatchJob"] == 1_000
        assert len(world.engine.hub._topics) == 1
        world.store.calls.clear()
        worker = await world.worker()
        taken = await worker.take_one()
        await worker.tell(taken, "hello", progress=1)
        await worker.end(taken)
        await asyncio.wait_for(asyncio.gather(*following), 10)
        for reader in readers:
            await check(world, reader)
        assert world.store.calls.count("changes") < 20, "the feed is read once for all of them"
        assert 0 < world.store.calls.count("logs") < 5, "so are the lines for the hundred who want them"


async def two_who_follow_its_log(world: World) -> tuple[Worker, Assignment, list[JobWatch]]:
    """A worker, the job that it executes, and two watches of it that have told that they begin."""
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    watches = [await world.engine.watch(NS, job_id, "", include_logs=True) for _ in range(2)]
    for watch in watches:
        await watch.next()
    return worker, taken, watches


async def test_one_who_leaves_does_not_take_the_lines_of_others_along(world: World):
    worker, taken, watches = await two_who_follow_its_log(world)
    hold = world.store.hold("logs")
    leaving, staying = (asyncio.ensure_future(watch.next()) for watch in watches)
    await worker.tell(taken, "a", "b")
    await world.clock.settle()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    hold.set()
    assert [line.message for line in (await asyncio.wait_for(staying, 5)).logs] == ["a", "b"]


async def test_lines_that_could_not_be_read_are_read_again(world: World):
    worker, taken, watches = await two_who_follow_its_log(world)
    await worker.tell(taken, "a")

    def fail(name: str) -> None:
        if name == "logs":
            raise Unavailable("cut")

    world.store.fault = fail
    failed = await asyncio.gather(*(watch.next() for watch in watches), return_exceptions=True)
    assert [type(error) for error in failed] == [Unavailable] * 2
    world.store.fault = lambda _name: None
    again = await asyncio.wait_for(asyncio.gather(*(watch.next() for watch in watches)), 5)
    assert [[line.message for line in update.logs] for update in again] == [["a"]] * 2


async def test_lines_that_came_since_a_read_began_are_not_missed(world: World):
    """The one who comes for them does not get the answer that another one waits for."""
    worker, taken, watches = await two_who_follow_its_log(world)
    hold = world.store.hold("logs")
    early = asyncio.ensure_future(watches[0].next())
    await worker.tell(taken, "a")
    await world.clock.settle()
    await worker.tell(taken, "b")
    await world.clock.settle()
    late = await asyncio.wait_for(watches[1].next(), 5)
    assert [line.message for line in late.logs] == ["a", "b"]
    hold.set()
    assert [line.message for line in (await asyncio.wait_for(early, 5)).logs] == ["a"]
    assert [line.message for line in (await asyncio.wait_for(watches[0].next(), 5)).logs] == ["b"]


async def test_a_slow_reader_gets_everything_in_few_messages(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch(NS, job_id, "", include_logs=True)
    await watch.next()
    worker = await world.worker()
    for _ in range(20):
        taken = await worker.take_one()
        for n in range(50):
            await worker.tell(taken, f"line {n}", progress=n)
        await worker.end(taken, Released())
    await worker.end(await worker.take_one())
    await world.clock.settle()
    messages = await collect(watch)
    assert [step.version for update in messages for step in update.transitions] == list(range(2, 44))
    assert [line.offset for update in messages for line in update.logs] == list(range(1_000))
    assert len(messages) <= 7
    assert max(len(update.logs) for update in messages) <= 200
    assert messages[-1].final
    assert all(not update.final for update in messages[:-1])


async def test_lost_log_lines_are_counted():
    async with a_world(limits=MemoryLimits(max_log_lines=10)) as world:
        job_id = await world.submit()
        watch = await world.engine.watch(NS, job_id, "", include_logs=True)
        await watch.next()
        worker = await world.worker()
        taken = await worker.take_one()
        for n in range(35):
            await worker.tell(taken, f"line {n}")
        await worker.end(taken)
        await world.clock.settle()
        messages = await collect(watch)
        assert sum(update.dropped_logs for update in messages) == 25
        assert [line.offset for update in messages for line in update.logs] == list(range(25, 35))


async def test_no_log_lines_are_kept():
    async with a_world(limits=MemoryLimits(max_log_lines=0)) as world:
        job_id = await world.submit()
        watch = await world.engine.watch(NS, job_id, "", include_logs=True)
        worker = await world.worker()
        taken = await worker.take_one()
        await worker.tell(taken, "a", "b")
        await worker.end(taken)
        await world.clock.settle()
        messages = await collect(watch)
        assert sum(update.dropped_logs for update in messages) == 2


async def test_a_reader_behind_the_kept_history_is_told_and_not_skipped(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch(NS, job_id, "", include_logs=False)
    first = await watch.next()
    worker = await world.worker()
    for _ in range(200):
        await worker.end(await worker.take_one(), Released())
    await world.clock.settle()
    with pytest.raises(OutOfRange):
        await watch.next()
    with pytest.raises(ResumeTokenExpired):
        await world.engine.watch(NS, job_id, encode(JobToken(job_id, first.version)), include_logs=False)
    anew = await world.engine.watch(NS, job_id, "", include_logs=False)
    versions = [step.version for step in (await anew.next()).transitions]
    assert versions == list(range(402 - len(versions), 402)), "a new watch tells what is kept"


async def test_a_silent_watch_shows_that_it_lives(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch(NS, job_id, "", include_logs=True)
    await watch.next()
    beats = []
    for _ in range(3):
        waiting = asyncio.ensure_future(watch.next())
        await world.advance(15)
        if not waiting.done():
            await world.advance(15)
        beats.append(await asyncio.wait_for(waiting, 5))
    assert all(beat.heartbeat and not beat.final for beat in beats)
    assert {beat.version for beat in beats} == {1}
    worker = await world.worker()
    taken = await worker.take_one()
    await watch.next()
    for _ in range(10):
        waiting = asyncio.ensure_future(watch.next())
        await world.advance(5)
        await worker.tell(taken, progress=world.clock.now())
        assert not (await asyncio.wait_for(waiting, 5)).heartbeat, "a watch that speaks needs no heartbeat"


async def test_draining_ends_watches_after_what_they_have_to_tell(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch(NS, job_id, "", include_logs=False)
    await watch.next()
    waiting = asyncio.ensure_future(watch.next())
    worker = await world.worker()
    await worker.take_one()
    await world.engine.hub.drain()
    assert [step.cause.name for step in (await asyncio.wait_for(waiting, 5)).transitions] == ["STARTED"]
    with pytest.raises(ServerDraining) as caught:
        await watch.next()
    assert caught.value.retry_after
    late = await world.engine.watch(NS, job_id, "", include_logs=False)
    assert len((await late.next()).transitions) == 2
    with pytest.raises(ServerDraining):
        await late.next()


async def test_draining_tells_an_end_that_is_still_on_its_way():
    async with a_world(slow=True) as world:
        job_id = await world.submit()
        worker = await world.worker()
        taken = await worker.take_one()
        watch = await world.engine.watch(NS, job_id, "", include_logs=False)
        await watch.next()
        outputs = world.store.gates["outputs"] = asyncio.Event()
        await worker.end(taken)
        draining = asyncio.ensure_future(world.engine.hub.drain())
        await world.clock.settle()
        outputs.set()
        await draining
        assert (await watch.next()).final


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda job_id: encode(JobToken("another", 1)), InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: encode(JobToken(job_id, -1)), InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: encode(JobToken(job_id, 1, -1)), InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: encode(FeedToken("epoch", 1, b"")), InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: "not a token", InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: encode(JobToken(job_id, 1))[:-2] + "BB", InvalidArgument, "INVALID_TOKEN"),
        (lambda job_id: encode(JobToken(job_id, 99)), ResumeTokenExpired, "RESUME_TOKEN_EXPIRED"),
        (lambda job_id: encode(JobToken(job_id, 1, 0, 5)), ResumeTokenExpired, "RESUME_TOKEN_EXPIRED"),
    ],
)
async def test_bad_tokens(world: World, make: Any, error: type[AtlasError], reason: str):
    job_id = await world.submit()
    with pytest.raises(error) as caught:
        await world.engine.watch(NS, job_id, make(job_id), include_logs=False)
    assert caught.value.reason == reason
    assert not world.engine.hub._topics


async def test_a_token_with_an_absurd_log_offset_is_harmless(world: World):
    job_id = await world.submit()
    worker = await world.worker()
    taken = await worker.take_one()
    await worker.tell(taken, "a", "b")
    await worker.end(taken)
    token = encode(JobToken(job_id, 1, 2**62))
    (update,) = await collect(await world.engine.watch(NS, job_id, token, include_logs=True))
    assert (len(update.transitions), update.logs, update.dropped_logs) == (2, (), 0)


async def test_a_deleted_job_ends_its_watches(world: World):
    job_id = await world.submit()
    watch = await world.engine.watch(NS, job_id, "", include_logs=False)
    await watch.next()
    await world.engine.cancel(NS, job_id, "", None)
    await world.clock.settle()
    await world.engine.delete(NS, job_id, None)
    await world.clock.settle()
    assert (await watch.next()).final, "the end is told, though the job is gone"
    with pytest.raises(JobNotFound):
        await world.engine.watch(NS, job_id, "", include_logs=False)


async def test_watchers_are_told_the_end_of_a_job_that_is_not_retained(world: World):
    job_id = await world.submit(retention=0)
    watch = await world.engine.watch(NS, job_id, "", include_logs=True)
    reading = asyncio.ensure_future(collect(watch))
    worker = await world.worker()
    taken = await worker.take_one()
    await worker.tell(taken, "bye")
    await worker.end(taken)
    await world.advance(0.1)
    messages = await asyncio.wait_for(reading, 5)
    assert messages[-1].job.state is State.SUCCESS
    assert sum(len(update.logs) for update in messages) == 1


async def test_the_end_comes_after_the_last_line():
    for seed in range(30):
        async with a_world(seed, slow=True) as world:
            job_id = await world.submit()
            readers = [Reader(job_id) for _ in range(3)]
            following = [asyncio.ensure_future(reader.follow(world.engine)) for reader in readers]
            worker = await world.worker()
            taken = await worker.take_one()
            late = Reader(job_id)
            following.append(asyncio.ensure_future(late.follow(world.engine)))
            await worker.tell(taken, "one", "two")
            await worker.tell(taken, "three")
            await worker.end(taken)
            await asyncio.wait_for(asyncio.gather(*following), 5)
            for reader in (*readers, late):
                await check(world, reader)


async def test_the_pump_survives_a_store_that_was_away(world: World):
    job_id = await world.submit()
    reader = Reader(job_id)
    following = asyncio.ensure_future(reader.follow(world.engine))
    await world.clock.settle()

    def fault(name: str) -> None:
        if name == "changes":
            raise Unavailable("the store is away")

    world.store.fault = fault
    worker = await world.worker()
    taken = await worker.take_one()
    await world.advance(3)
    world.store.fault = lambda _name: None
    await world.advance(3)
    await worker.end(taken)
    await world.clock.settle()
    await asyncio.wait_for(following, 5)
    await check(world, reader)


async def test_the_pump_catches_up_when_it_fell_behind_the_feed():
    async with a_world(limits=MemoryLimits(feed_length=10)) as world:
        ids = [await world.submit() for _ in range(3)]
        readers = [Reader(job_id) for job_id in ids]
        following = [asyncio.ensure_future(reader.follow(world.engine)) for reader in readers]
        await world.clock.settle()
        for job_id in ids:
            await world.memory.get([job_id])
        for _ in range(50):
            await world.submit("other")
        worker = await world.worker()
        for taken in await worker.take(3, types=["work"]):
            await worker.end(taken)
        for _ in range(50):
            await world.memory.put([], [])
        await world.advance(1)
        await asyncio.wait_for(asyncio.gather(*following), 5)
        for reader in readers:
            await check(world, reader)
