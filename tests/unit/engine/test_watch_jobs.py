"""Watching many jobs: whoever applies all messages holds the truth, whatever happens while he pages, lags or is cut."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas_grpc.engine.tokens import FeedToken, JobToken, decode, encode
from atlas_grpc.errors import AtlasError, InvalidArgument, ResumeTokenExpired, ServerDraining, WatchTooSlow
from atlas_grpc.model import Ask, Released, Report, State
from atlas_grpc.stores.base import Filter
from atlas_grpc.stores.memory import MemoryLimits
from tests.unit.engine.world import NS, Worker, World, a_world, boom, collect

if TYPE_CHECKING:
    from atlas_grpc.engine.engine import Engine
    from atlas_grpc.engine.feed import JobsUpdate
    from atlas_grpc.engine.watches import JobsWatch
    from atlas_grpc.model import Job


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a snapshot takes several messages, and the feed several reads."""
    monkeypatch.setattr("atlas_grpc.engine.watches._PAGE", 3)
    monkeypatch.setattr("atlas_grpc.engine.feed._BATCH", 4)


class View:
    """A client that applies what it is told, is cut now and then, and resumes."""

    def __init__(self, where: Filter) -> None:
        self.where = where
        self.jobs: dict[str, Job] = {}
        self.token = ""
        self.synced = False
        self.ended = False
        self.told: dict[str, int] = {}
        """Versions that the present stream told."""

    async def follow(self, engine: Engine, messages: int = 10_000) -> None:
        watch: JobsWatch = await engine.watch_many(self.where, self.token, snapshot=True)
        self.told.clear()
        if not self.token:
            self.jobs.clear()
            self.synced = False
        try:
            for _ in range(messages):
                self.apply(await watch.next(), engine)
                if self.ended:
                    return
        finally:
            watch.close()

    def apply(self, update: JobsUpdate, engine: Engine) -> None:
        for job in update.jobs:
            known = self.jobs.get(job.id)
            assert known is None or known.version <= job.version, "never back"
            assert self.told.get(job.id, 0) < job.version, "not repeated; only a resumed stream may repeat the snapshot"
            self.told[job.id] = job.version
            self.jobs[job.id] = job
        for job_id in update.deleted:
            self.jobs.pop(job_id, None)
        if update.synced:
            self.synced = True
        assert (update.cursor is not None) == self.synced
        if update.cursor is not None:
            self.token = engine.feed_token(self.where, update.cursor)
        self.ended = update.final


async def stir(world: World, rng: random.Random, workers: list[Worker], held: list[Any]) -> None:
    """One random thing happens."""
    engine = rng.choice(world.engines)
    known = list(world.memory._jobs)
    match rng.randrange(7):
        case 0 | 1:
            await world.submit(rng.choice(["work", "other"]), engine, labels={"team": rng.choice("ab")})
        case 2:
            worker = rng.choice(workers)
            held += [(worker, taken) for taken in await worker.session._claim([_ask("work"), _ask("other")], 2)]
        case 3 if held:
            worker, job = held.pop(rng.randrange(len(held)))
            outcome = rng.choice([boom(), boom(retryable=False), Released()])
            await worker.session.finish([_report(job, outcome)])
        case 4 if known:
            await _try(engine.cancel(NS, rng.choice(known), "", None))
        case 5 if known:
            await _try(engine.retry(NS, rng.choice(known), None))
        case 6 if known:
            await _try(engine.delete(NS, rng.choice(known), None))
        case _:
            await asyncio.sleep(0)


def _ask(name: str) -> Any:

    return Ask(name, 2)


def _report(job: Job, outcome: Any) -> Any:

    return Report(job.id, job.fence, outcome)


async def _try(call: Any) -> None:

    with contextlib.suppress(AtlasError):
        await call


FILTERS = (
    Filter(NS),
    Filter(NS, types=frozenset({"work"})),
    Filter(NS, labels={"team": "a"}),
    Filter(NS, queues=frozenset({"side"}), types=frozenset({"other", "work"})),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    slow=st.booleans(),
    engines=st.integers(1, 2),
    wheres=st.lists(st.sampled_from(FILTERS), min_size=1, max_size=4),
)
async def test_the_view_of_a_client_ends_as_the_truth(seed: int, slow: bool, engines: int, wheres: list[Filter]):
    rng = random.Random(seed)
    async with a_world(seed, slow=slow, engines=engines) as world:
        workers = [await world.worker(f"w{n}", world.engines[n % engines]) for n in range(2)]
        held: list[Any] = []
        for _ in range(rng.randrange(40)):
            await stir(world, rng, workers, held)

        async def storm() -> None:
            for _ in range(rng.randrange(80)):
                await stir(world, rng, workers, held)

        storming = asyncio.ensure_future(storm())

        async def client(view: View) -> None:
            while not storming.done():
                reading = asyncio.ensure_future(view.follow(rng.choice(world.engines), rng.randrange(1, 9)))
                for _ in range(rng.randrange(100)):
                    await asyncio.sleep(0)
                    if reading.done():
                        break
                reading.cancel()
                (ended,) = await asyncio.gather(reading, return_exceptions=True)
                assert ended is None or isinstance(ended, asyncio.CancelledError), ended

        views = [View(where) for where in wheres]
        await asyncio.gather(storming, *map(client, views))
        readings = [asyncio.ensure_future(view.follow(rng.choice(world.engines))) for view in views]
        for _ in range(30):
            await world.clock.settle()
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
        for view in views:
            assert view.synced
            jobs = world.memory._jobs.values()
            assert view.jobs == {job.id: job for job in jobs if view.where.matches(job.spec, job.state)}


async def test_the_snapshot_then_the_changes(world: World):
    ids = [await world.submit() for _ in range(7)]
    watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
    pages = [await watch.next() for _ in range(3)]
    assert [job.id for page in pages for job in page.jobs] == ids[::-1]
    assert [page.synced for page in pages] == [False, False, True]
    assert [page.cursor is None for page in pages] == [True, True, False]
    await world.engine.cancel(NS, ids[0], "", None)
    update = await watch.next()
    assert [(job.id, job.state) for job in update.jobs] == [(ids[0], State.CANCELLED)]
    assert not update.synced
    await world.engine.delete(NS, ids[0], None)
    assert (await watch.next()).deleted == (ids[0],)


async def test_what_changes_between_pages_is_told_once(world: World):
    ids = [await world.submit() for _ in range(6)]
    watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
    await watch.next()
    world.clock.tick()
    await world.engine.cancel(NS, ids[0], "", None)
    await world.engine.cancel(NS, ids[5], "", None)
    second = await watch.next()
    assert {job.id: job.state for job in second.jobs}[ids[0]] is State.CANCELLED
    update = await watch.next()
    assert [job.id for job in update.jobs] == [ids[5]], "the other one is in the snapshot as it is now"


async def test_without_snapshot_only_changes_are_told(world: World):
    await world.submit()
    watch = await world.engine.watch_many(Filter(NS), "", snapshot=False)
    first = await watch.next()
    assert (first.jobs, first.synced) == ((), True)
    new = await world.submit()
    assert [job.id for job in (await watch.next()).jobs] == [new]


async def test_states_filter_what_is_told(world: World):
    done = await world.submit()
    waits = await world.submit()
    await world.engine.cancel(NS, done, "", None)
    watch = await world.engine.watch_many(Filter(NS, states=frozenset({State.CANCELLED})), "", snapshot=True)
    assert [job.id for job in (await watch.next()).jobs] == [done]
    worker = await world.worker()
    taken = await worker.take_one()
    assert taken.job_id == waits
    await worker.end(taken, boom())
    await world.engine.cancel(NS, waits, "", None)
    assert [job.state for job in (await watch.next()).jobs] == [State.CANCELLED]


async def test_changes_of_a_job_coalesce_for_a_slow_reader(world: World):
    await world.submit()
    watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
    await watch.next()
    worker = await world.worker()
    for _ in range(100):
        await worker.end(await worker.take_one(), Released())
    updates = [await watch.next()]
    assert [job.version for update in updates for job in update.jobs] == [201]


async def test_another_namespace_is_not_seen(world: World):
    await world.submit()
    watch = await world.engine.watch_many(Filter("elsewhere"), "", snapshot=True)
    assert (await watch.next()).jobs == ()
    job_id = await world.submit()
    await world.engine.cancel(NS, job_id, "", None)
    await world.engine.delete(NS, job_id, None)
    waiting = asyncio.ensure_future(watch.next())
    await world.clock.settle()
    assert not waiting.done()
    waiting.cancel()


async def finish_all(world: World) -> None:
    worker = await world.worker("finisher")
    for taken in await worker.take(100):
        await worker.end(taken)


@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_watch_of_ids_ends_when_all_are_over(world: World, snapshot: bool):
    ids = [await world.submit() for _ in range(5)]
    watch = await world.engine.watch_many(Filter(NS, ids=frozenset(ids)), "", snapshot=snapshot)
    reading = asyncio.ensure_future(collect(watch))
    await world.engine.cancel(NS, ids[0], "", None)
    await world.engine.delete(NS, ids[0], None)
    await world.clock.settle()
    assert not reading.done()
    await finish_all(world)
    messages = await asyncio.wait_for(reading, 5)
    last = {job.id: job.state for update in messages for job in update.jobs}
    assert {job_id: last[job_id] for job_id in ids[1:]} == dict.fromkeys(ids[1:], State.SUCCESS)
    assert ids[0] in [job_id for update in messages for job_id in update.deleted]


@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_watch_of_ids_that_are_over_ends_at_once(world: World, snapshot: bool):
    ids = [await world.submit() for _ in range(2)]
    await finish_all(world)
    where = Filter(NS, ids=frozenset([*ids, "no-such-job"]))
    messages = await asyncio.wait_for(collect(await world.engine.watch_many(where, "", snapshot=snapshot)), 5)
    if snapshot:
        assert {job.id for update in messages for job in update.jobs} == set(ids)
        assert [job_id for update in messages for job_id in update.deleted] == ["no-such-job"]


@pytest.mark.parametrize(
    "more",
    [
        {"types": frozenset({"other"})},
        {"states": frozenset({State.FAILED})},
        {"labels": {"team": "z"}},
    ],
)
@pytest.mark.parametrize("snapshot", [True, False])
async def test_ids_that_the_filter_leaves_out_do_not_keep_it_open(world: World, more: dict, snapshot: bool):
    ids = [await world.submit() for _ in range(2)]
    watch = await world.engine.watch_many(Filter(NS, ids=frozenset(ids), **more), "", snapshot=snapshot)
    reading = asyncio.ensure_future(collect(watch))
    await world.clock.settle()
    assert not reading.done()
    await finish_all(world)
    messages = await asyncio.wait_for(reading, 5)
    assert not any(update.jobs for update in messages)


async def test_a_resumed_watch_of_ids_ends_although_one_was_deleted_before(world: World):
    ids = [await world.submit() for _ in range(2)]
    where = Filter(NS, ids=frozenset(ids))
    watch = await world.engine.watch_many(where, "", snapshot=True)
    await watch.next()
    await world.engine.cancel(NS, ids[0], "", None)
    await world.engine.delete(NS, ids[0], None)
    update = await watch.next()
    assert update.deleted == (ids[0],)
    watch.close()
    token = world.engine.feed_token(where, update.cursor)
    reading = asyncio.ensure_future(collect(await world.engine.watch_many(where, token, snapshot=True)))
    await world.clock.settle()
    assert not reading.done()
    await finish_all(world)
    messages = await asyncio.wait_for(reading, 5)
    assert [job.id for update in messages for job in update.jobs][-1] == ids[1]


async def test_a_resumed_watch_tells_what_happened_before_it_ends(world: World):
    job_id = await world.submit()
    where = Filter(NS, ids=frozenset({job_id}))
    watch = await world.engine.watch_many(where, "", snapshot=True)
    update = await watch.next()
    await finish_all(world)
    token = world.engine.feed_token(where, update.cursor)
    messages = await collect(await world.engine.watch_many(where, token, snapshot=True))
    assert [(job.id, job.state) for one in messages for job in one.jobs] == [(job_id, State.SUCCESS)]


async def test_a_resume_works_on_another_server():
    async with a_world(engines=2) as world:
        one, two = world.engines
        await world.submit()
        watch = await one.watch_many(Filter(NS), "", snapshot=True)
        token = one.feed_token(Filter(NS), (await watch.next()).cursor)
        new = await world.submit(engine=one)
        resumed = await two.watch_many(Filter(NS), token, snapshot=True)
        first = await resumed.next()
        assert (first.jobs, first.synced) == ((), True)
        assert [job.id for job in (await resumed.next()).jobs] == [new]


async def test_a_reader_that_is_overrun_is_told_so():
    async with a_world(limits=MemoryLimits(feed_length=20)) as world:
        await world.submit()
        watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
        first = await watch.next()
        for _ in range(25):
            await world.submit()
        with pytest.raises(WatchTooSlow) as caught:
            await watch.next()
        assert caught.value.retry_after
        token = world.engine.feed_token(Filter(NS), first.cursor)
        with pytest.raises(ResumeTokenExpired):
            await world.engine.watch_many(Filter(NS), token, snapshot=True)


async def test_a_reader_may_be_overrun_while_it_pages():
    async with a_world(limits=MemoryLimits(feed_length=20)) as world:
        for _ in range(10):
            await world.submit()
        watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
        await watch.next()
        for _ in range(25):
            await world.submit()
        with pytest.raises(WatchTooSlow):
            await collect(watch, 20)


async def test_bad_tokens(world: World):
    engine, where = world.engine, Filter(NS)
    job_id = await world.submit()
    for token in (
        engine.feed_token(Filter("elsewhere"), 0),
        engine.feed_token(Filter(NS, types=frozenset({"work"})), 0),
        encode(JobToken(job_id, 1)),
        "forged",
    ):
        with pytest.raises(InvalidArgument) as caught:
            await engine.watch_many(where, token, snapshot=True)
        assert caught.value.reason == "INVALID_TOKEN"
    good = engine.feed_token(where, 0)
    assert await engine.watch_many(where, good, snapshot=True)
    for token in (
        engine.feed_token(where, 10**15),
        engine.feed_token(where, -1),
        encode(FeedToken("another-epoch", 0, _query(world, where))),
    ):
        with pytest.raises(ResumeTokenExpired):
            await engine.watch_many(where, token, snapshot=True)


def _query(world: World, where: Filter) -> bytes:

    return decode(world.engine.feed_token(where, 0), FeedToken, "resume_token").query


async def test_heartbeats_carry_the_position(world: World):
    watch = await world.engine.watch_many(Filter(NS, types=frozenset({"other"})), "", snapshot=True)
    first = await watch.next()
    waiting = asyncio.ensure_future(watch.next())
    await world.clock.settle()
    await world.submit()
    await world.advance(30)
    beat = await asyncio.wait_for(waiting, 5)
    assert beat.heartbeat
    assert beat.cursor == first.cursor + 1, "what does not match moves the position all the same"


async def test_draining_ends_them(world: World):
    watch = await world.engine.watch_many(Filter(NS), "", snapshot=True)
    await watch.next()
    waiting = asyncio.ensure_future(watch.next())
    await world.clock.settle()
    await world.engine.hub.drain()
    with pytest.raises(ServerDraining):
        await asyncio.wait_for(waiting, 5)
    watch.close()
    watch.close()
    assert world.engine.hub.open_watches()["WatchJobs"] == 0
