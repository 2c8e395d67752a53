"""The change feed: what changed after a position, in an order that never has to be mended.

Why it looks like this. A position must mean the same on every server, and a reader that has come to it must never be
told later of something before it. Numbers drawn by a sequence do not commit in their order, so a reader that has seen
17 can miss 16. What PostgreSQL does know is which transactions are over: `pg_snapshot_xmin` is the oldest one that is
not, and all before it have either committed or never will. So each row carries the id of the transaction that changed
it last, and the feed is read up to that *horizon* only, whole transactions at a time.

- There is no table of events. A job's row is its own latest event, which is all that a reader is promised; only
  deletions leave a row of their own (`tombstones`), and `meta.feed_floor` says up to where these were forgotten.
  Nothing is lost while a job lives, however old the position is.
- A position is always the id of a transaction of ours that committed, never just "the horizon": ids that were drawn
  without leaving a trace on disk are drawn again after a crash, and a position among them would skip.
- The price is that a transaction that stays open, anywhere in the cluster, holds the feed back. It holds back nothing
  else: live watches are told by hints and read the row at once. Whoever reads the feed is told when it has grown, by
  a task that looks for the horizon with short pauses as long as it is behind what was written.

Prior art: the outbox readers that skip rows of a busy sequence and call it rare; Debezium, which reads the WAL
instead and needs a slot that fills the disk when nobody reads. Cost: one index on the state, about a tenth of a
write.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import AtlasError, ResumeTokenExpired
from .. import codec
from ..base import Change
from .faults import log
from .rows import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...clock import Clock
    from .database import Database

_FIRST_LOOK = 0.003
_LONGEST_LOOK = 0.25
_INTEREST = 60.0
"""Seconds after a reading during which somebody is taken to follow the feed."""
_TRIM_EVERY = 60.0
_TRIM_STEP = 10_000


class Feed:
    """Reading the feed, and watching its horizon."""

    def __init__(self, database: Database, clock: Clock, on_growth: Callable[[], None], tombstones: int) -> None:
        self._database = database
        self._clock = clock
        self._on_growth = on_growth
        self._tombstones = tombstones
        self._head = 0
        self._read_at: float | None = None
        self._behind_since: float | None = None
        self._grown = asyncio.Event()
        self.written = 0
        """The newest transaction that is known to have changed something."""
        self.horizon = 0
        """The horizon when it was last looked at."""
        self.horizon_age = 0

    def restart(self) -> None:
        """The database is another one: what is known of positions does not hold any more."""
        self._head = self.written = self.horizon = 0
        self._behind_since = None

    @property
    def lag(self) -> float:
        """Seconds since the feed is behind what was written, as far as it is known."""
        return 0.0 if self._behind_since is None else self._clock.monotonic() - self._behind_since

    def wrote(self, xid: int) -> None:
        """This transaction changed something, here or elsewhere, and is over."""
        if xid > self.written:
            self.written = xid
            if self._is_followed():
                self._grown.set()

    def _is_followed(self) -> bool:
        return self._read_at is not None and self._clock.monotonic() - self._read_at < _INTEREST

    async def head(self) -> int:
        """The position of the newest change that can be read."""
        self._read_at = self._clock.monotonic()
        return await self.look()

    async def look(self) -> int:
        """The same, for one who does not follow the feed."""
        row = await self._database.row("head", self._head)
        self.horizon_age = row["next"] - row["horizon"]
        self._saw(row["horizon"])
        self._head = max(self._head, row["head"])
        return self._head

    def _saw(self, horizon: int) -> None:
        self.horizon = max(self.horizon, horizon)
        if self.horizon > self.written:
            self._behind_since = None
            return
        if self._behind_since is None:
            self._behind_since = self._clock.monotonic()
        if self._is_followed():
            self._grown.set()

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        """Whole transactions after a position, at least `limit` changes of them if there are as many."""
        self._read_at = self._clock.monotonic()
        if after < 0 or (after > self._head and after > await self.look()):
            raise ResumeTokenExpired("no such position was given by this database")
        rows = await self._database.fetch("changes", after, limit)
        self._saw(rows[0]["horizon"])
        if after < rows[0]["feed_floor"]:
            raise ResumeTokenExpired("deletions after this position are no longer kept")
        changes: list[Change] = []
        for row in rows:
            if row["version"] is not None:
                job = decode(row)
                changes.append(Change(job.spec, job))
            elif row["spec"] is not None:
                changes.append(Change(codec.decode_spec(row["spec"]), None))
        if not changes:
            return changes, after
        end: int = rows[-1]["xid"]
        self._head = max(self._head, end)
        return changes, end

    async def watch(self) -> None:
        """Tells of growth that had to wait for transactions of others."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            pause = _FIRST_LOOK
            while self.horizon <= self.written and self._is_followed():
                await self._clock.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_LOOK)
                # Readers look too, as soon as they are told of a change: mostly there is nothing left to do.
                if self.horizon > self.written:
                    break
                before = self._head
                try:
                    grown = await self.look() > before
                except AtlasError as error:
                    log.info("the feed's horizon cannot be seen", reason=error.reason)
                    continue
                if grown:
                    self._on_growth()

    async def trim(self) -> None:
        """Forgets the oldest deletions beyond a number, now and then."""
        while True:
            await self._clock.sleep(_TRIM_EVERY * self._database.rng.uniform(0.5, 1.5))
            try:
                while await self.trim_some():
                    pass
            except AtlasError as error:
                log.warning("deletions could not be forgotten", reason=error.reason)

    async def trim_some(self) -> bool:
        """Forgets some; True when there may be more."""
        rows = await self._database.fetch("trim_until", self._tombstones, _TRIM_STEP)
        if not rows or rows[0]["xid"] is None:
            return False
        await self._database.fetch("trim", rows[0]["xid"])
        return True
