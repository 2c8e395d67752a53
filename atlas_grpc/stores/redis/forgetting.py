"""Finished jobs beyond the bounds: the oldest go first, by ordinary deletions, so that watches are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import AtlasError
from ...observe.logs import get_logger
from . import records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ...model import Job
    from .link import Link

_BATCH = 100

log = get_logger("atlas.store.redis")


class Forgetter:
    """Deletes what is too much: `max_finished` jobs may be kept, and `max_bytes` of all jobs (0 is no bound)."""

    def __init__(
        self,
        link: Link,
        max_finished: int,
        max_bytes: int,
        *,
        get: Callable[[Sequence[str]], Awaitable[list[Job | None]]],
        delete: Callable[[Sequence[Job]], Awaitable[list[bool]]],
    ) -> None:
        self._link = link
        self._max_finished = max_finished
        self._max_bytes = max_bytes
        self._get = get
        self._delete = delete
        self._task: asyncio.Task[None] | None = None
        self._noticed = False
        """Whether there was too much at some time since it was last looked."""

    def notice(self, finished: int, size: int) -> None:
        """So many jobs are finished, and all take so many bytes."""
        if finished > self._max_finished or 0 < self._max_bytes < size:
            self._noticed = True
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._forget_surplus())

    async def close(self) -> None:
        """Stops what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def make_room(self, wanted: int) -> bool:
        """Deletes the oldest until there is room for so many bytes. False when there was nothing left to delete."""
        size = int(await self._link.command("HGET", self._link.key("counts"), "size") or 0)
        return await self._forget(size + wanted - self._max_bytes, 0)

    async def _forget_surplus(self) -> None:
        key = self._link.key
        try:
            while self._noticed:
                self._noticed = False
                finished, size = await self._link.commands(
                    [("ZCARD", key("finished")), ("HGET", key("counts"), "size")]
                )
                surplus = max(0, finished - self._max_finished)
                excess = int(size or 0) - self._max_bytes if self._max_bytes else 0
                if (surplus or excess > 0) and await self._forget(excess, surplus):
                    self._noticed = True  # there may be more than goes at once
        except AtlasError as error:
            log.warning("finished jobs beyond the bounds could not be deleted yet", reason=str(error))

    async def _forget(self, size: int, count: int) -> bool:
        """Deletes the oldest: so many, or as many as take so many bytes, whatever is more; a batch at most."""
        names = await self._link.command("ZRANGE", self._link.key("finished"), 0, _BATCH - 1)
        oldest: list[Job] = []
        for job in await self._get([name.decode() for name in names]):
            if len(oldest) >= count and size <= 0:
                break
            if job is not None and job.state.terminal:
                oldest.append(job)
                size -= records.size(job.spec)
        return bool(oldest) and True in await self._delete(oldest)
