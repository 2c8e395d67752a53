"""What is asked for scrapes is asked seldom, and a store that does not answer holds up none."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from atlas_grpc.errors import Unavailable
from atlas_grpc.stores.memory import MemoryStore
from atlas_grpc.stores.vitals import SAMPLE_AGE, Sampler
from atlas_grpc.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atlas_grpc.observe.readings import Reading

SIZE = "atlas_sqlite_file_bytes"


class _Store(MemoryStore):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    def vitals(self) -> Mapping[str, Reading]:
        return {"free": 1}

    async def examine(self) -> Mapping[str, Reading]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return {SIZE: self.asked}


async def test_it_is_asked_for_scrapes_alone_and_seldom() -> None:
    clock = FakeClock()
    store = _Store(clock)
    sampler = Sampler(store, clock)
    await clock.advance(100)
    assert store.asked == 0
    assert sampler.readings() == {"free": 1}
    for second in range(45):
        await sampler.refresh()
        told = sampler.readings()
        assert told[SIZE] == store.asked == second // 14 + 1
        assert told[SAMPLE_AGE] == second % 14
        await clock.advance(1)


async def test_what_cannot_be_asked_is_told_as_it_was() -> None:
    clock = FakeClock()
    store = _Store(clock)
    sampler = Sampler(store, clock)
    await sampler.refresh()
    for error in (Unavailable("gone"), OSError("odd")):
        store.error = error
        await clock.advance(20)
        await sampler.refresh()
    assert store.asked == 3
    assert sampler.readings() == {"free": 1, SIZE: 1, SAMPLE_AGE: 40}


async def test_no_scrape_waits_long() -> None:
    clock = FakeClock()
    store = _Store(clock)
    sampler = Sampler(store, clock)
    store.answers.clear()
    began = time.monotonic()
    for _ in range(3):
        await sampler.refresh()
        assert sampler.readings() == {"free": 1}
        await clock.advance(20)
    assert time.monotonic() - began < 10
    assert store.asked == 1
    store.answers.set()
    await sampler.refresh()
    assert sampler.readings()[SIZE] == 1
    store.answers.clear()
    await clock.advance(20)
    await sampler.refresh()
    await sampler.close()
