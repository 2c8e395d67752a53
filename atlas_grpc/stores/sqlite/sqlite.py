"""The SQLite store: jobs in one file, for one server, durable.

Why it looks like this. A SQLite file takes one writer at a time; many systems on top of it drown in SQLITE_BUSY. Here a
lock refuses a second server, one thread writes (`writer`), two threads read (`readers`), and since nobody else writes,
what this process wrote last need not be read again (`recent`), and numbers need not be counted again (`ledger`).

What is stored is laid out for few and small writes: the spec, which may be large and never changes, apart from the
state, which a job's life rewrites twice; ready jobs alone in the ready indexes, waiting and finished ones each in their
own index by time; the feed a table that only grows at its end and is cut at its beginning. Order in the feed is
order of commit, as there is one writer. A person can read it: `sqlite3 jobs.db 'select * from job'`.

A cursor of the feed is good if its own row is still there. Numbers (cursors, fences) go on from the time at which the
store was opened, so that a file brought back from a copy repeats none: cursors of the lost future are refused, not
misread.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from ...errors import FailedPrecondition, Unavailable
from .._documents import check_documents, check_info, full, possible
from ..base import Counts, Filter, Output, Page, Store, StoreListener, WrongUrl, kinds_ready
from . import claims, output, reads, writes
from . import documents as tables
from .file_lock import FileLock
from .readers import Readers
from .recent import Recent
from .transaction import SqliteLimits, Transaction
from .writer import Done, Writer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ...clock import Clock
    from ...model import Ask, Job, LogLine, State, Update
    from ...observe.readings import Reading
    from ..base import Change

Sync = Literal["full", "normal"]

_RECENT = 20_000
"""Records in memory; about a KiB each."""
_SYNCS: tuple[Sync, ...] = ("full", "normal")


def from_url(url: str, clock: Clock, limits: SqliteLimits | None = None) -> SqliteStore:
    """The store of `sqlite:///relative.db` or `sqlite:////absolute.db`, with `?sync=full` (the default) or
    `?sync=normal`. Raises WrongUrl for any other."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if not url.startswith("sqlite:///") or parts.netloc or parts.fragment or not path or path.endswith("/"):
        raise WrongUrl("store", f"{url!r} is not sqlite:///relative.db or sqlite:////absolute.db")
    sync: Sync = "full"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "sync":
            raise WrongUrl(name, "is not an option of this store; known is sync")
        if value not in _SYNCS:
            raise WrongUrl("sync", f"must be full or normal, not {value!r}")
        sync = "normal" if value == "normal" else "full"
    return SqliteStore(path, clock, limits, sync=sync)


class SqliteStore(Store):
    """Jobs in the file at `path`. `clock` is the store's clock."""

    def __init__(self, path: str, clock: Clock, limits: SqliteLimits | None = None, *, sync: Sync = "full") -> None:
        self.path = os.path.realpath(path)
        self._clock = clock
        self._limits = limits or SqliteLimits()
        self._sync = sync
        self._epoch = ""
        self._head = 0
        self._listener: StoreListener | None = None
        self._recent = Recent(_RECENT)
        self._open: _Open | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> str:
        return self._epoch

    async def open(self, listener: StoreListener) -> None:
        """Raises FailedPrecondition when another server has the file, or when it is from a newer Atlas or none."""
        if self._open is not None:
            msg = f"{self.path} is open already"
            raise FailedPrecondition(msg)
        try:
            lock = FileLock(self.path)
        except OSError as error:
            msg = f"{self.path} cannot be used: {error.strerror}"
            raise FailedPrecondition(msg, metadata={"path": self.path}) from None
        try:
            writer = Writer(self.path, self._sync, self._limits, self._clock, self._recent, self._publish)
            ledger = await writer.start()
        except BaseException:
            lock.release()
            raise
        self._open = _Open(lock, writer, Readers(self.path))
        self._listener = listener
        self._epoch, self._head = ledger.epoch, ledger.seq

    async def close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            self._closing = asyncio.create_task(self._shut(opened))
        if self._closing is not None:
            # Whoever is not patient enough must not leave a lock behind, nor let go of it too early.
            await asyncio.shield(self._closing)
            self._closing = None

    async def _shut(self, opened: _Open) -> None:
        await opened.readers.stop()
        await opened.writer.stop()
        opened.lock.release()
        self._listener = None
        self._recent.clear()

    def _publish(self, done: Done) -> None:
        """On the event loop, after a commit: what is known, then the answers, then the hints."""
        tx = done.tx
        if tx is not None:
            self._recent.settle(tx)
            self._head = max(self._head, done.head)
        done.resolve()
        listener = self._listener
        if tx is None or listener is None:
            return
        if tx.written:
            listener.on_changes(tx.written)
        if tx.gone:
            listener.on_news(tx.gone)
        if tx.outputs:
            listener.on_output(tx.outputs)
        if ready := kinds_ready(tx.written):
            listener.on_ready(ready)

    @property
    def _writer(self) -> Writer:
        return self._parts.writer

    @property
    def _readers(self) -> Readers:
        return self._parts.readers

    @property
    def _parts(self) -> _Open:
        if self._open is None:
            raise Unavailable("the store is closed")
        return self._open

    def vitals(self) -> Mapping[str, Reading]:
        if self._open is None:
            return {}
        stats = self._writer.stats
        writes, reads_waiting = self.queued
        return {
            "atlas_sqlite_disk_full": stats.full,
            "atlas_sqlite_batch_operations": stats.batches,
            "atlas_sqlite_commit_seconds": stats.commits,
            "atlas_sqlite_rollbacks": stats.rollbacks,
            "atlas_sqlite_waiting": {"write": writes, "read": reads_waiting},
        }

    async def examine(self) -> Mapping[str, Reading]:
        # Not on the event loop: a disk that hangs should hang nothing else.
        return await asyncio.to_thread(self._sizes)

    def _sizes(self) -> dict[str, Reading]:
        return {
            "atlas_sqlite_file_bytes": _size(self.path),
            "atlas_sqlite_wal_bytes": self.wal_size(),
            "atlas_sqlite_disk_free_bytes": shutil.disk_usage(Path(self.path).parent).free,
        }

    @property
    def queued(self) -> tuple[int, int]:
        """Operations that wait for the writer, and for a reader."""
        return self._writer.waiting, self._readers.waiting

    def wal_size(self) -> int:
        """Bytes of the write-ahead log."""
        return _size(f"{self.path}-wal")

    def now(self) -> int:
        return self._clock.now()

    async def insert(self, jobs: Sequence[Job]) -> list[Job | None]:
        return await self._writer.do(lambda tx: writes.insert(tx, jobs)) if jobs else []

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        parts = self._parts
        recent = self._recent.get(ids)
        return await parts.readers.do(lambda connection: reads.get(connection, ids)) if recent is None else recent

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        return await self._readers.do(lambda connection: reads.find(connection, where, after, limit))

    async def counts(self) -> Counts:
        states, lines, size = await self._writer.do(_numbers)
        queues = await self._readers.do(lambda connection: reads.queue_counts(connection, lines))
        return Counts(states, queues, size)

    async def ahead(self, job: Job) -> int:
        better = await self._writer.do(lambda tx: _better(tx, job))
        return better + await self._readers.do(lambda connection: reads.ahead(connection, job))

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
        return await self._writer.do(lambda tx: writes.put(tx, jobs, expected)) if jobs else []

    async def delete(self, jobs: Sequence[Job]) -> list[bool]:
        return await self._writer.do(lambda tx: writes.delete(tx, jobs)) if jobs else []

    async def claim(self, session: str, worker: str, asks: Sequence[Ask], limit: int) -> list[Job]:
        return await self._writer.do(lambda tx: claims.claim(tx, session, worker, asks, limit))

    async def due(self, limit: int) -> tuple[list[Job], int | None]:
        now = self.now()
        return await self._readers.do(lambda connection: reads.due(connection, now, limit))

    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        check_info(info)
        await self._writer.do(lambda tx: claims.open_session(tx, session, ttl, info))

    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        return await self._writer.do(lambda tx: claims.renew(tx, sessions, ttl)) if sessions else []

    async def sessions(self) -> list[tuple[str, bytes]]:
        now = self.now()
        return await self._readers.do(lambda connection: tables.sessions(connection, now))

    async def close_session(self, session: str) -> None:
        await self._writer.do(lambda tx: claims.close_session(tx, session))

    async def expired(self, limit: int) -> list[str]:
        return await self._writer.do(lambda tx: claims.expired(tx, limit))

    async def held(self, session: str, limit: int) -> list[Job]:
        return await self._readers.do(lambda connection: reads.held(connection, session, limit))

    async def head(self) -> int:
        return self._head

    async def changes(self, after: int, limit: int) -> tuple[list[Change], int]:
        if after == self._head:
            return [], after
        return await self._readers.do(lambda connection: reads.changes(connection, after, limit))

    async def report(self, updates: Sequence[Update]) -> list[bool]:
        return await self._writer.do(lambda tx: output.report(tx, updates)) if updates else []

    async def outputs(self, ids: Sequence[str]) -> list[Output]:
        return await self._readers.do(lambda connection: output.outputs(connection, ids)) if ids else []

    async def logs(self, job_id: str, start: int, limit: int) -> list[LogLine]:
        return await self._readers.do(lambda connection: output.logs(connection, job_id, start, limit))

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        check_documents(kind, documents)
        if not await self._writer.do(lambda tx: tables.put(tx, kind, documents)):
            raise full()

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        wanted = possible(kind, keys)
        return await self._readers.do(lambda connection: tables.documents(connection, kind, wanted))


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


class _Open:
    """What is there while the store is open."""

    def __init__(self, lock: FileLock, writer: Writer, readers: Readers) -> None:
        self.lock = lock
        self.writer = writer
        self.readers = readers


def _numbers(tx: Transaction) -> tuple[dict[State, int], list[Any], int]:
    ledger = tx.ledger
    return dict(ledger.states), list(ledger.lines.items()), ledger.size


def _better(tx: Transaction, job: Job) -> int:
    """How many ready jobs of the same type have a better priority."""
    spec = job.spec
    lines = tx.ledger.lines.items()
    return sum(count for (kind, _, priority), count in lines if kind == spec.type and priority > spec.priority)
