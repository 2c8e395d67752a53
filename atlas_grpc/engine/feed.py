"""The feed of changes, read once for all who follow it.

Those who follow many jobs stand, nearly always, at the same place of the feed: at its end. So what one of them reads
from a place on, a stretch, is kept for the others, with what was made of it for each filter: the jobs that match, their
progress, at the wall the message. A stretch stays true, for what happened to its jobs later is told by later changes.
That there was nothing after a place is true only until somebody says that something changed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..model import Job, Progress, Record

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from ..stores.base import Change, Filter, Store

T = TypeVar("T")

_BATCH = 1_000
_KEPT = 4
"""Stretches. They are let go as soon as somebody has come to the end of the feed."""


class JobsUpdate(Record, frozen=True):
    """What a watcher of many jobs is told next. `progress` is that of `jobs`, one by one."""

    jobs: tuple[Job, ...]
    progress: tuple[Progress | None, ...]
    deleted: tuple[str, ...]
    synced: bool
    since: int | None
    """The cursor before; None until the snapshot is complete, as the next."""
    cursor: int | None
    final: bool = False
    heartbeat: bool = False
    encoded: list[bytes] = msgspec.field(default_factory=list)
    """For the wall, to encode once what several are told."""


async def update_of(
    store: Store,
    jobs: Sequence[Job],
    deleted: Sequence[str],
    since: int | None,
    cursor: int | None,
    *,
    synced: bool = False,
    final: bool = False,
) -> JobsUpdate:
    """An update with the progress of its jobs, as it is now."""
    outputs = await store.outputs([job.spec.id for job in jobs]) if jobs else []
    progress = tuple(output.progress for output in outputs)
    return JobsUpdate(tuple(jobs), progress, tuple(deleted), synced, since, cursor, final)


class Stretch:
    """The changes of the feed between two cursors."""

    def __init__(self, store: Store, since: int, changes: Sequence[Change], end: int) -> None:
        self._store = store
        self.since = since
        self.end = end
        self._changes: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            self._changes[change.spec.namespace].append(change)
        self._told: dict[bytes, asyncio.Task[JobsUpdate] | None] = {}

    def of(self, where: Filter) -> Sequence[Change]:
        """The changes of jobs of its namespace, in order; if it names some, of these."""
        changes = self._changes.get(where.namespace, ())
        return [change for change in changes if change.spec.id in where.ids] if where.ids else changes

    def matching(self, where: Filter, seen: Mapping[str, int]) -> tuple[list[Job], list[str]]:
        """The jobs that match, but for those that are `seen` in that version, and the ids of those deleted."""
        jobs: list[Job] = []
        deleted: list[str] = []
        for change in self.of(where):
            job = change.job
            if not where.matches(change.spec, None if job is None else job.state):
                continue
            if job is None:
                deleted.append(change.spec.id)
            elif not seen or seen.get(change.spec.id, 0) < job.version:
                jobs.append(job)
        return jobs, deleted

    async def told(self, where: Filter, key: bytes) -> JobsUpdate | None:
        """What those with this filter, whose key it is, are told; all of them the same. None: nothing."""
        if key not in self._told:
            jobs, deleted = self.matching(where, {})
            making = update_of(self._store, jobs, deleted, self.since, self.end) if jobs or deleted else None
            self._told[key] = None if making is None else started(making)
        task = self._told[key]
        try:
            return None if task is None else await asyncio.shield(task)
        except Exception:
            self._told.pop(key, None)
            raise


class Feed:
    """Reads the feed of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._epoch = ""
        self._kept: dict[int, Stretch] = {}
        self._last: Stretch | None = None
        """The one in which there was nothing, if nothing was said to have changed since."""
        self._reading: dict[int, asyncio.Task[Stretch]] = {}
        """By the cursor; those that were begun since something was said to have changed."""

    def news(self) -> None:
        """Something may have changed."""
        self._last = None
        self._reading.clear()

    async def after(self, cursor: int) -> Stretch:
        """The stretch that begins there; it ends there too when nothing has changed. Raises ResumeTokenExpired."""
        if self._epoch != self._store.epoch:
            self._epoch = self._store.epoch
            self._kept.clear()
            self.news()
        if self._last is not None and self._last.end == cursor:
            return self._last
        kept = self._kept.get(cursor)
        if kept is not None:
            return kept
        if cursor not in self._reading:
            self._reading[cursor] = started(self._read(cursor))
        return await asyncio.shield(self._reading[cursor])

    async def _read(self, cursor: int) -> Stretch:
        epoch = self._epoch
        try:
            changes, end = await self._store.changes(cursor, _BATCH)
        finally:
            is_latest = self._reading.get(cursor) is asyncio.current_task()
            if is_latest:
                del self._reading[cursor]
        stretch = Stretch(self._store, cursor, changes, end)
        if epoch != self._store.epoch:
            return stretch
        if end > cursor:
            self._kept[cursor] = stretch
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        elif is_latest:
            self._last = stretch
            self._kept.clear()
        return stretch


def started(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Work that several wait for, each with a shield. Its failure is that of those who still do, if any."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_heed)
    return task


def _heed(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()
