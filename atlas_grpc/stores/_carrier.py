"""Writes that are carried to their end although their caller is gone: what is cut off is neither done nor undone for
whoever asks, and nobody would be told of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Carrier:
    """What a store has under way."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[object]] = set()

    async def through(self, work: Coroutine[object, object, T]) -> T:
        """Runs it to its end, whatever becomes of the caller."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Looked at, in case that the caller is gone.
            task.exception()

    async def settle(self) -> None:
        """Returns when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)
