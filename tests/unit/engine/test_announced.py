"""What workers announced: the copy that a server keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atlas_grpc.engine.announced import Announced
from atlas_grpc.errors import InvalidArgument
from atlas_grpc.model import TypeInfo
from atlas_grpc.stores.memory import MemoryStore
from atlas_grpc.testing import FakeClock

if TYPE_CHECKING:
    from tests.unit.engine.world import World


@pytest.fixture
async def pair():
    clock = FakeClock()
    store = MemoryStore(clock)
    return store, clock, Announced(store, clock), Announced(store, clock)


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store):
        self._store = store
        self.asked = 0

    async def documents(self, kind, keys=None):
        self.asked += 1
        return await self._store.documents(kind, keys)


async def test_what_one_server_was_told_another_finds(pair):
    _, _, here, there = pair
    await here.announce([TypeInfo("a"), TypeInfo("b", queue="q")])
    assert there.get("b") is None
    await there.look_up(["b", "c"])
    assert (there.get("a"), there.get("b"), there.get("c")) == (None, TypeInfo("b", queue="q"), None)
    await here.announce([TypeInfo("b", queue="r")])
    await there.refresh()
    assert [info.name for info in there.types()] == ["a", "b"]
    assert there.get("b").queue == "r", "the latest announcement holds"


async def test_an_unknown_type_is_not_asked_for_again_and_again(pair):
    store, clock, here, _ = pair
    counting = Counting(store)
    there = Announced(counting, clock)
    for _ in range(5):
        await there.look_up(["a"])
    assert counting.asked == 1
    await here.announce([TypeInfo("a")])
    await clock.advance(1.5)
    await there.look_up(["a"])
    assert there.get("a") == TypeInfo("a")


async def test_types_that_the_store_has_lost_it_is_told_again(pair):
    _, clock, here, _ = pair
    await here.announce([TypeInfo("a")])
    emptied = MemoryStore(clock)
    here._store = emptied
    await here.refresh()
    there = Announced(emptied, clock)
    await there.refresh()
    assert there.get("a") == here.get("a") == TypeInfo("a")


async def test_more_names_than_a_session_holds_are_refused(world: World):
    session = world.engine.worker_session()
    names = [f"type-{number:090}" for number in range(1000)]
    with pytest.raises(InvalidArgument) as caught:
        await session.open("w", [TypeInfo(name) for name in names], 1, lambda *_: None)
    assert caught.value.violations[0].field == "types"
