"""Those who follow the feed from the same place share what one of them reads, and miss nothing by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from atlas_grpc.errors import Unavailable
from atlas_grpc.stores.base import Filter
from tests.unit.engine.world import NS, a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atlas_grpc.engine.feed import JobsUpdate, Stretch
    from tests.unit.engine.world import World

EVERYTHING = Filter(NS)


@pytest.fixture
async def slow() -> AsyncIterator[World]:
    """A world whose store answers later, as a remote one does."""
    async with a_world(slow=True) as world:
        yield world


async def follow(world: World, count: int, where: Filter = EVERYTHING) -> list[Any]:
    """So many watches, which have told that they begin."""
    watches = [await world.engine.watch_many(where, "", snapshot=False) for _ in range(count)]
    for watch in watches:
        await watch.next()
    return watches


async def told(watches: Sequence[Any]) -> list[JobsUpdate]:
    return list(await asyncio.wait_for(asyncio.gather(*(watch.next() for watch in watches)), 5))


async def test_what_many_are_told_is_read_once(slow: World) -> None:
    watches = await follow(slow, 50)
    others = await follow(slow, 30, Filter(NS, types=frozenset({"other"})))
    reading = asyncio.ensure_future(told([*watches, *others]))
    await slow.clock.settle()
    slow.store.calls.clear()
    job_ids = [await slow.submit(), await slow.submit("other")]
    updates = await reading
    assert {job.id for update in updates for job in update.jobs} <= set(job_ids)
    assert len({id(update) for update in updates}) <= 4, "a message for each of two changes and filters at most"
    assert slow.store.calls.count("changes") <= 4
    assert slow.store.calls.count("outputs") <= 4
    assert slow.store.calls.count("head") == 0


async def test_that_there_was_nothing_is_read_once(slow: World) -> None:
    watches = await follow(slow, 50)
    slow.store.calls.clear()
    waiting = [asyncio.ensure_future(watch.next()) for watch in watches]
    await slow.clock.settle()
    late = await follow(slow, 1)
    waiting.append(asyncio.ensure_future(late[0].next()))
    await slow.clock.settle()
    assert slow.store.calls.count("changes") == 1
    job_id = await slow.submit()
    for update in await asyncio.wait_for(asyncio.gather(*waiting), 5):
        assert [job.id for job in update.jobs] == [job_id]


async def test_who_comes_after_the_news_does_not_get_an_answer_from_before(slow: World) -> None:
    early, late, last = await follow(slow, 3)
    hold = slow.store.hold("changes")
    reading = asyncio.ensure_future(early.next())
    await slow.clock.settle()  # it was read that there is nothing, and nobody knows yet
    job_id = await slow.submit()
    (update,) = await told([late])
    assert [job.id for job in update.jobs] == [job_id]
    hold.set()
    (update,) = await told([last])
    assert [job.id for job in update.jobs] == [job_id]
    assert [job.id for job in (await asyncio.wait_for(reading, 5)).jobs] == [job_id]


async def test_an_answer_from_before_the_news_is_no_answer_for_later(slow: World) -> None:
    early, late = await follow(slow, 2)
    hold = slow.store.hold("changes")
    reading = asyncio.ensure_future(early.next())
    await slow.clock.settle()
    slow.engine.hub.feed.news()
    hold.set()
    await slow.clock.settle()
    slow.memory._listeners.remove(slow.engine)  # so that nothing but the read itself can tell
    job_id = await slow.submit()
    (update,) = await told([late])
    assert [job.id for job in update.jobs] == [job_id]
    reading.cancel()


async def test_one_who_leaves_does_not_take_the_others_read_along(slow: World) -> None:
    early, late = await follow(slow, 2)
    job_id = await slow.submit()
    for operation in ("changes", "outputs"):
        hold = slow.store.hold(operation)
        leaving = asyncio.ensure_future(early.next())
        staying = asyncio.ensure_future(late.next())
        await slow.clock.settle()
        assert leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        hold.set()
        assert [job.id for job in (await asyncio.wait_for(staying, 5)).jobs] == [job_id]
        early, late = await follow(slow, 2)
        job_id = await slow.submit()


@pytest.mark.parametrize("operation", ["changes", "outputs"])
async def test_a_failed_read_is_told_to_those_who_waited_and_to_nobody_later(slow: World, operation: str) -> None:
    watches = await follow(slow, 3)
    job_id = await slow.submit()

    def fail(name: str) -> None:
        if name == operation:
            raise Unavailable("cut")

    slow.store.fault = fail
    failed = await asyncio.gather(*(watch.next() for watch in watches), return_exceptions=True)
    assert [type(error) for error in failed] == [Unavailable] * 3
    slow.store.fault = lambda _name: None
    cursor = await slow.store.head() - 1
    stretch: Stretch = await slow.engine.hub.feed.after(cursor)
    update = await stretch.told(EVERYTHING, EVERYTHING.key())
    assert update is not None
    assert [job.id for job in update.jobs] == [job_id]


async def test_what_was_read_before_the_feed_began_anew_is_not_told(
    slow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = slow.engine.hub.feed
    await slow.submit()
    old = await slow.submit()
    start = await slow.store.head() - 1
    assert [change.spec.id for change in (await feed.after(start)).of(EVERYTHING)] == [old]
    hold = slow.store.hold("changes")
    reading = asyncio.ensure_future(feed.after(start - 1))
    kept = await feed.after(start)
    await slow.clock.settle()
    monkeypatch.setattr(type(slow.memory), "epoch", "another")
    assert await feed.after(start) is not kept
    hold.set()
    during = await reading
    assert await feed.after(start - 1) is not during


async def test_nothing_is_kept_once_somebody_has_come_to_the_end(slow: World) -> None:
    feed = slow.engine.hub.feed
    (watch,) = await follow(slow, 1)
    for _ in range(10):
        await slow.submit()
        await told([watch])
    waiting = asyncio.ensure_future(watch.next())
    await slow.clock.settle()
    assert feed._kept == {}
    waiting.cancel()


async def test_of_those_who_are_far_apart_only_some_are_served_from_memory(slow: World) -> None:
    feed = slow.engine.hub.feed
    start = await slow.store.head()
    for _ in range(20):
        await slow.submit()
    read = [await feed.after(start + place) for place in range(20)]
    assert len(feed._kept) < 10
    assert await feed.after(start + 19) is read[19]
    assert await feed.after(start) is not read[0]


async def test_a_lost_hint_is_made_good_by_the_heartbeat(slow: World) -> None:
    watches = await follow(slow, 2)
    waiting = [asyncio.ensure_future(watch.next()) for watch in watches]
    await slow.clock.settle()
    slow.memory._listeners.remove(slow.engine)
    job_id = await slow.submit()
    await slow.advance(20)
    assert all(one.done() for one in waiting)
    assert {job.id for one in waiting for job in one.result().jobs} == {job_id}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Filter(NS), Filter("elsewhere")),
        (Filter(NS, types=frozenset({"a"})), Filter(NS, queues=frozenset({"a"}))),
        (Filter(NS, labels={"a": "b"}), Filter(NS, labels={"b": "a"})),
        (Filter(NS, created_from=1), Filter(NS, created_before=1)),
    ],
)
def test_filters_that_mean_something_else_have_another_key(one: Filter, other: Filter) -> None:
    assert one.key() != other.key()


def test_filters_that_mean_the_same_have_the_same_key() -> None:
    names = [f"t{number}" for number in range(50)]
    labels = dict.fromkeys(names, "x")
    one = Filter(NS, types=frozenset(names), labels=labels)
    other = Filter(NS, types=frozenset(reversed(names)), labels=dict(reversed(labels.items())))
    assert one.key() == other.key()
