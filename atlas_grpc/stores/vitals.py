"""What stores tell of how they are doing, and when they are asked for what they have to look up themselves.

`Store.vitals` costs nothing and is asked at each scrape. `Store.examine` costs the database a question: it is asked
only when somebody scrapes, and not more often than needed for that. A database that does not answer holds up no scrape:
what was told last is told again, with its age.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import AtlasError
from ..observe.logs import get_logger
from ..observe.readings import Meaning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..clock import Clock
    from ..observe.readings import Reading
    from .base import Store

SAMPLE_AGE = "atlas_store_sample_age_seconds"

VITALS: Mapping[str, Meaning] = {
    SAMPLE_AGE: Meaning("gauge", "How old those of the values below are that the database was asked for.", shared=True),
    "atlas_sqlite_file_bytes": Meaning("gauge", "The size of the file."),
    "atlas_sqlite_wal_bytes": Meaning("gauge", "The size of the write-ahead log."),
    "atlas_sqlite_disk_free_bytes": Meaning("gauge", "What is free on the file's disk."),
    "atlas_sqlite_disk_full": Meaning("gauge", "1 after a write found no room, until one succeeds."),
    "atlas_sqlite_batch_operations": Meaning("histogram", "Operations in a transaction of the writer. 1 to 512."),
    "atlas_sqlite_commit_seconds": Meaning(
        "histogram", "From the beginning of a transaction to the end of its commit. 0.1 ms to 10 s."
    ),
    "atlas_sqlite_rollbacks": Meaning("counter", "Transactions that were rolled back."),
    "atlas_sqlite_waiting": Meaning("gauge", "Operations that wait for a thread: `write` or `read`.", ("kind",)),
    "atlas_postgresql_pool_size": Meaning("gauge", "How many connections for calls there may be (`pool`)."),
    "atlas_postgresql_pool_connections": Meaning("gauge", "How many there are: `used` or `idle`.", ("state",)),
    "atlas_postgresql_pool_waiting": Meaning("gauge", "Calls that wait for one."),
    "atlas_postgresql_listening": Meaning(
        "gauge", "1 while this server hears of the others at once, 0 while it has to look every second."
    ),
    "atlas_postgresql_feed_lag_seconds": Meaning(
        "gauge",
        "For how long the feed of `WatchJobs` has been behind what was written: an open transaction holds it.",
    ),
    "atlas_postgresql_oldest_transaction_age": Meaning(
        "gauge",
        "Transactions that began since the oldest one that is still open: it holds the feed.",
        shared=True,
    ),
    "atlas_postgresql_oldest_xmin_age": Meaning(
        "gauge",
        "The same since the oldest snapshot that is held, by a `backend`, a replication `slot` or a `prepared`"
        " transaction: it keeps dead rows from being cleared.",
        ("holder",),
        shared=True,
    ),
    "atlas_postgresql_dead_tuples": Meaning("gauge", "Dead rows, as the server estimates.", ("table",), shared=True),
    "atlas_postgresql_live_tuples": Meaning("gauge", "Live rows, as the server estimates.", ("table",), shared=True),
    "atlas_redis_connections": Meaning("gauge", "Connections for calls that stand, of as many as `pool` says."),
    "atlas_redis_calls_in_flight": Meaning("gauge", "Commands whose answer is outstanding."),
    "atlas_redis_connects": Meaning("counter", "Connections that were made."),
    "atlas_redis_losses": Meaning("counter", "Connections that were lost."),
    "atlas_redis_audits": Meaning("counter", "Passes of the auditor."),
    "atlas_redis_audit_repairs": Meaning("counter", "Faults that it repaired."),
    "atlas_redis_memory_bytes": Meaning("gauge", "The memory that the server uses (`used_memory`).", shared=True),
    "atlas_redis_memory_limit_bytes": Meaning("gauge", "Its `maxmemory`; absent without one.", shared=True),
    "atlas_redis_clients": Meaning("gauge", "Its connections, of everybody.", shared=True),
    "atlas_redis_aof": Meaning(
        "gauge",
        "1 for what holds of its append-only file: `always`, `everysec`, `no`, `off` (there is none) or `unknown`.",
        ("fsync",),
        shared=True,
    ),
    "atlas_redis_persistence_ok": Meaning(
        "gauge", "Whether the last write of the `aof`, and the last `snapshot`, succeeded.", ("kind",), shared=True
    ),
    "atlas_redis_feed_entries": Meaning("gauge", "Entries of the feed's stream.", shared=True),
    "atlas_redis_feed_changes": Meaning(
        "gauge", "How many of the latest changes a `WatchJobs` can resume from.", shared=True
    ),
}
"""Every name that a store may tell, with `atlas_<store>_` in front."""

_EVERY = 14.0
"""Seconds between two examinations: just below the scrape interval that is most common."""
_PATIENCE = 0.5
"""Seconds that a scrape waits for an examination."""

log = get_logger("atlas.stores")


class Sampler:
    """The vitals of a store, for scrapes. `refresh` before each, then read."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: Mapping[str, Reading] = {}
        self._known_at = 0.0
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Has the store examined when that is due, and waits for it, but not long."""
        now = self._clock.monotonic()
        if self._asking is None and (self._asked_at is None or now - self._asked_at >= _EVERY):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_PATIENCE)

    def readings(self) -> dict[str, Reading]:
        """What is known."""
        told = {**self._known, **self._store.vitals()}
        if self._known:
            told[SAMPLE_AGE] = self._clock.monotonic() - self._known_at
        return told

    async def close(self) -> None:
        """Stops asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        try:
            known = await self._store.examine()
            self._known, self._known_at = known, self._clock.monotonic()
        except AtlasError as error:
            log.info("the store could not be examined", reason=error.reason)
        except Exception as error:
            log.error("the store could not be examined", exc_info=error)
        finally:
            self._asking = None
