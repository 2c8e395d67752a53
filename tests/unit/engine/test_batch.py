"""Group commit: what gathers while a flush runs goes with the next one."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.engine.batch import GroupCommit
from atlas_grpc.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Sink:
    """A flush that the test opens and shuts, and that remembers its batches."""

    def __init__(self, limit: int = 100) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.commit: GroupCommit[int, int] = GroupCommit(self.flush, limit)

    async def flush(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.set()
        await self.open.wait()
        if -1 in items:
            raise ValueError(items)
        return [item * 10 for item in items]

    def add(self, *items: int) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(_add(self.commit.add(item))) for item in items]


async def _add(work: Coroutine[None, None, int]) -> int:
    return await work


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_while_a_flush_runs_goes_with_the_next() -> None:
    sink = Sink()
    tasks = sink.add(1)
    await sink.entered.wait()
    tasks += sink.add(2, 3)
    await settle()
    tasks += sink.add(4)
    await settle()
    assert sink.batches == [[1]]
    sink.open.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
    assert sink.batches == [[1], [2, 3, 4]]


async def test_gathering_joins_all_calls_of_a_turn() -> None:
    sink = Sink()
    sink.open.set()
    assert await asyncio.gather(*sink.add(1, 2, 3)) == [10, 20, 30]
    assert sink.batches == [[1, 2, 3]]
    assert await asyncio.gather(*sink.add(4, 5)) == [40, 50]
    assert sink.batches == [[1, 2, 3], [4, 5]]


async def test_a_batch_is_bounded_and_in_order() -> None:
    sink = Sink(limit=3)
    tasks = sink.add(*range(8))
    await settle()
    sink.open.set()
    assert await asyncio.gather(*tasks) == [item * 10 for item in range(8)]
    assert [item for batch in sink.batches for item in batch] == list(range(8))
    assert max(map(len, sink.batches)) == 3


async def test_flushes_do_not_overlap() -> None:
    running = 0
    sizes: list[int] = []
    rng = random.Random(4)

    async def flush(items: list[int]) -> list[int]:
        nonlocal running
        running += 1
        assert running == 1
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        running -= 1
        sizes.append(len(items))
        return items

    commit: GroupCommit[int, int] = GroupCommit(flush, 7)

    async def caller(first: int) -> None:
        for item in range(first, first + 20):
            assert await commit.add(item) == item

    await asyncio.gather(*(caller(n * 100) for n in range(10)))
    assert sum(sizes) == 200
    assert len(sizes) < 150


async def test_a_failed_flush_fails_its_batch_alone() -> None:
    sink = Sink(limit=2)
    first = sink.add(1)
    await sink.entered.wait()
    tasks = sink.add(2, -1, 3, 4)
    await settle()
    sink.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError, int, int]
    assert await asyncio.gather(*first) == [10]
    assert await asyncio.gather(*sink.add(5)) == [50], "and the next ones go on"


async def test_a_lone_caller_gets_what_its_flush_raised_and_frees_the_way() -> None:
    sink = Sink()
    first = sink.add(-1)
    await sink.entered.wait()
    second = sink.add(2)
    await settle()
    sink.open.set()
    with pytest.raises(ValueError):
        await first[0]
    assert await second[0] == 20
    assert await asyncio.gather(*sink.add(3)) == [30]


async def test_a_cancelled_caller_undoes_nothing() -> None:
    sink = Sink()
    first = sink.add(1)
    await sink.entered.wait()
    gone, stays = sink.add(2, 3)
    await settle()
    gone.cancel()
    await settle()
    assert gone.cancelled()
    sink.open.set()
    assert await asyncio.gather(*first, stays) == [10, 30]
    assert sink.batches == [[1], [2, 3]]


async def test_a_cancelled_first_caller_undoes_nothing() -> None:
    sink = Sink()
    (first,) = sink.add(1)
    await sink.entered.wait()
    (second,) = sink.add(2)
    await settle()
    first.cancel()
    sink.open.set()
    assert await second == 20
    with pytest.raises(asyncio.CancelledError):
        await first
    assert sink.batches == [[1], [2]]


async def test_when_the_loop_of_flushes_is_cut_nobody_waits_for_ever() -> None:
    sink = Sink(limit=2)
    tasks = sink.add(1, 2, 3)
    await sink.entered.wait()
    assert sink.commit._task is not None
    sink.commit._task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    sink.open.set()
    assert await asyncio.gather(*sink.add(4)) == [40], "a later call starts a new one"


async def test_a_flush_that_answers_too_little_leaves_nobody_waiting() -> None:
    async def flush(items: list[int]) -> list[int]:
        return items[1:]

    commit: GroupCommit[int, int] = GroupCommit(flush, 10)
    answers = await asyncio.gather(*(_add(commit.add(item)) for item in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError] * 3
