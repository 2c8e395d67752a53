"""Natural group commit: while one flush runs, the next batch gathers. No timer, no fixed delay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MOST_TURNS = 32
"""A turn takes some microseconds."""

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Joins concurrent calls of `add` into calls of `flush(items) -> results`, in order, at most `limit` items each.

    Items that come while a flush runs wait for the next. Before a flush, some turns of the event loop let more items
    come: none after a batch of one, so that a lone caller is not held up, else the square of the last batch's size, up
    to a bound. Sharing pays even for a store that answers at once: code and data that are in the processor's caches for
    the second item were not for the first, and what is answered together leaves together. With 32 calls in flight,
    batches of a dozen cost a server two fifths less than batches of two.

    What `flush` raises, every caller of that batch gets. A caller that is cancelled does not undo its item.
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[list[R]]], limit: int) -> None:
        self._flush = flush
        self._limit = limit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._busy = False
        self._last = 0
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: T) -> R:
        """Hands in one item and waits until it is flushed."""
        loop = asyncio.get_running_loop()
        if not self._busy:
            self._busy = True
            loop.call_soon(self._begin)
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        return await future

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._commit(batch)
        finally:
            self._busy = False
            self._task = None
            if self._waiting:
                abandoned, self._waiting = self._waiting, []
                _fail(abandoned, Unavailable("the server stopped before it could commit"))

    async def _gather(self) -> None:
        for _ in range(min(self._last * self._last, _MOST_TURNS) if self._last > 1 else 0):
            if len(self._waiting) >= self._limit:
                break
            await asyncio.sleep(0)
        self._last = len(self._waiting)

    async def _commit(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
            if len(results) != len(batch):
                msg = f"{len(results)} results for {len(batch)} items"
                raise RuntimeError(msg)
        except Exception as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, Unavailable("the commit was interrupted; it may have happened"))
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
