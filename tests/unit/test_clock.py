"""Clocks and ids."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.clock import SystemClock, uuid7
from atlas_grpc.testing import FakeClock

if TYPE_CHECKING:
    import pytest

MICROS = st.integers(0, 2**48 * 1_000 - 1)


def test_the_system_clock_tells_utc_in_microseconds() -> None:
    before, now, after = time.time_ns() // 1_000, SystemClock().now(), time.time_ns() // 1_000
    assert before - 1_000_000 <= now <= after + 1_000_000


def test_the_system_clock_does_not_follow_a_host_that_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.now()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert first <= clock.now() < first + 60_000_000


def test_both_times_only_grow() -> None:
    clock = SystemClock()
    walls = [clock.now() for _ in range(1_000)]
    spans = [clock.monotonic() for _ in range(1_000)]
    assert all(a <= b for a, b in pairwise(walls))
    assert all(a <= b for a, b in pairwise(spans))


async def test_sleep_takes_its_time() -> None:
    clock = SystemClock()
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009


@given(MICROS, st.integers())
def test_uuid7_is_one(now: int, seed: int) -> None:
    text = uuid7(now, random.Random(seed))
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == now // 1_000, "the first 48 bits are milliseconds"
    assert (parsed.int >> 64 & 0xFFF) >> 2 == now % 1_000, "the next 10 the rest of the microseconds"


@given(MICROS, MICROS, st.integers(), st.integers())
def test_uuid7_sorts_by_time(a: int, b: int, seed: int, other: int) -> None:
    first, second = uuid7(a, random.Random(seed)), uuid7(b, random.Random(other))
    if a != b:
        assert (first < second) == (a < b)


def test_uuid7_differs_within_a_microsecond() -> None:
    rng = random.Random(5)
    assert len({uuid7(1_700_000_000_000_000, rng) for _ in range(10_000)}) == 10_000


async def test_the_fake_clock_wakes_sleepers_in_order() -> None:
    clock = FakeClock()
    start, woken = clock.now(), []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.now() - start))

    tasks = [
        asyncio.create_task(sleeper("a", 3, 3)),
        asyncio.create_task(sleeper("b", 1, 4, 0)),
        asyncio.create_task(sleeper("c", 9)),
    ]
    await clock.advance(0.5)
    assert woken == []
    await clock.advance(6.5)
    assert woken == [("b", 1_000_000), ("a", 3_000_000), ("b", 5_000_000), ("b", 5_000_000), ("a", 6_000_000)]
    assert clock.now() - start == 7_000_000
    assert clock.monotonic() == 7.0
    tasks[2].cancel()
    await clock.advance(10)
    assert tasks[2].cancelled()
    await asyncio.gather(*tasks[:2])


def test_the_fake_clock_ticks() -> None:
    clock = FakeClock(5)
    clock.tick()
    clock.tick(10)
    assert (clock.now(), clock.monotonic()) == (16, 11e-6)
