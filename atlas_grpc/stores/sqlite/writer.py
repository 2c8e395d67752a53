"""The writer: one thread, one connection, one transaction for all operations that wait.

Why it looks like this. SQLite takes one writer at a time, and with `synchronous=FULL` each commit waits for the disk:
one by one that is a thousand a second, together it is as fast as the statements are. So callers do not write. They
queue an operation, a function in a transaction; the thread takes all that wait (up to a bound), runs them in one
transaction, commits, and hands all results to the event loop at once. While the disk works, the next ones gather: there
is no timer, and a lone caller waits for nobody. Nothing is answered, and no hint is given, before the commit.

An operation that fails must not take its neighbours with it. Savepoints would ensure that, at two statements each and a
journal of every page. Instead the whole transaction is rolled back, the failed operation is answered, and the others
run again: they are functions of the file and their arguments, and nobody has seen their results. It is very rare.
When the file or the machine is to blame (full disk, I/O error, somebody else's lock), all are answered with that.

The thread never dies of an error. After one that leaves the connection in doubt it opens another one, and asks the file
for what it knew in memory (`ledger`), before the next operation; so the store recovers without a restart.

Only this connection checkpoints: by itself every some thousand pages, and when the queue has been empty for a moment it
also cuts the WAL to nothing. (Two checkpointing connections can damage a file, up to SQLite 3.51.2.)

Prior art: the group commit of databases; Litestream and rqlite for one writer and many readers in WAL mode.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import Internal, StoreFull, Unavailable
from ...observe.logs import get_logger
from ...observe.metrics import STORE_BUCKETS
from ...observe.series import Histogram
from . import faults, schema
from .connection import connect_writer
from .latest import Latest
from .ledger import Ledger
from .transaction import Known, Transaction
from .writes import forget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...clock import Clock
    from .recent import Recent
    from .transaction import SqliteLimits

T = TypeVar("T")

_MOST = 512
"""Operations in a transaction."""
_KNOWN = 20_000
"""Records of unfinished jobs in memory."""
_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, _MOST)
_REST = 2.0
"""Seconds without work before the WAL is cut."""
_TRIMMED_AT_ONCE = 2_000
"""Rows of the feed."""

log = get_logger("atlas.stores.sqlite")


class Operation:
    """Something to do in the writer's transaction, and who waits for it."""

    __slots__ = ("future", "result", "run")

    def __init__(self, run: Callable[[Transaction], Any], future: asyncio.Future[Any] | None) -> None:
        self.run = run
        self.future = future
        self.result: Any = None
        """What it answered, or the exception for the caller."""


class Done:
    """What a transaction brought: for the event loop."""

    __slots__ = ("head", "operations", "tx")

    def __init__(self, operations: Sequence[Operation], tx: Transaction | None = None, head: int = 0) -> None:
        self.operations = operations
        self.tx = tx
        """None when nothing was committed."""
        self.head = head
        """The place after the newest change."""

    def resolve(self) -> None:
        """Answers the callers."""
        for operation in self.operations:
            future = operation.future
            if future is None or future.done():
                continue
            if isinstance(operation.result, Exception):
                future.set_exception(operation.result)
            else:
                future.set_result(operation.result)


class WriterStats:
    """For metrics: what was done since the store was opened."""

    __slots__ = ("batches", "commits", "full", "rollbacks")

    def __init__(self) -> None:
        self.batches = Histogram(_BATCH_BUCKETS)
        """Operations by transaction."""
        self.commits = Histogram(STORE_BUCKETS)
        """Seconds from the beginning of a transaction that wrote to the end of its commit."""
        self.rollbacks = 0
        self.full = False
        """Whether the last write found no room."""


class Writer:
    """The thread. `publish` is called on the event loop with what was done, in order."""

    def __init__(
        self,
        path: str,
        sync: str,
        limits: SqliteLimits,
        clock: Clock,
        recent: Recent,
        publish: Callable[[Done], None],
    ) -> None:
        self._path = path
        self._sync = sync
        self._limits = limits
        self._clock = clock
        self._recent = recent
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._ledger: Ledger
        self._known: Latest[Known] = Latest(_KNOWN)
        self._closed = False
        self._rested = True
        self._patient = False
        """Whether forgetting did not help, and should not be tried before something else was done."""
        self.stats = WriterStats()
        self._thread = threading.Thread(target=self._main, name="atlas-sqlite-writer", daemon=True)

    async def start(self) -> Ledger:
        """Opens the file and begins to work. Raises what keeps it from that. The answer is for a look at once."""
        opened: asyncio.Future[Ledger] = self._loop.create_future()
        self._queue.put(Operation(lambda tx: tx.ledger, opened))
        self._thread.start()
        try:
            return await opened
        except BaseException:
            await self.stop()
            raise

    @property
    def waiting(self) -> int:
        """Operations in the queue."""
        return self._queue.qsize()

    async def do(self, run: Callable[[Transaction], T]) -> T:
        """Runs an operation in the next transaction, and answers once that is committed. It is run even if the caller
        is cancelled; and it may be run again if a neighbour fails, so that it must have no effect elsewhere."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Operation(run, future))
        return await future

    async def stop(self) -> None:
        """Does what waits, then ends the thread."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        while True:
            batch, ends = self._collect()
            try:
                self._commit(batch)
                if not ends:
                    self._forget_surplus()
            except BaseException as error:  # whatever it is, nobody may be left waiting
                log.critical("the writer of the store met an error that it does not know", exc_info=error)
                self._doubt()
                self._fail(batch, Internal("the store met an error; whether this was done is not known"))
            if ends:
                self._disconnect()
                return

    def _collect(self) -> tuple[list[Operation], bool]:
        """All that waits, at least one operation or the end; meanwhile, rests."""
        batch: list[Operation] = []
        get = self._queue.get
        try:
            first = get(block=self._rested or not self._surplus(), timeout=None if self._rested else _REST)
            if first is None:
                return batch, True
            batch.append(first)
            while len(batch) < _MOST:
                following = get(block=False)
                if following is None:
                    return batch, True
                batch.append(following)
        except queue.Empty:
            if not batch and not self._surplus():
                self._rest()
        return batch, False

    def _commit(self, batch: list[Operation]) -> None:
        """Runs operations, all in one transaction unless one of them fails."""
        while batch:
            try:
                connection = self._connected()
            except Exception as error:
                self._fail(batch, faults.translated(error))
                return
            tx = Transaction(connection, self._ledger, self._known, self._limits, self._clock)
            began = time.perf_counter()
            at = 0
            try:
                for at, operation in enumerate(batch):  # noqa: B007 - tells which one failed
                    operation.result = operation.run(tx)
                at = len(batch)
                if tx.begun:
                    self._end(tx)
            except Exception as error:
                self._roll_back(tx, error)
                if at == len(batch) or faults.is_outside(error):
                    self._fail(batch, faults.translated(error))
                    return
                self._fail([batch.pop(at)], faults.translated(error))
                continue
            self._count(len(batch), time.perf_counter() - began if tx.begun else 0.0)
            self._tell(Done(batch, tx, self._ledger.seq))
            return

    def _end(self, tx: Transaction) -> None:
        """The last statements of a transaction."""
        ledger = self._ledger
        surplus = ledger.feed - self._limits.feed_length - 1
        if surplus > min(self._limits.feed_length // 16, _TRIMMED_AT_ONCE // 2):
            self._trim(tx, min(surplus, _TRIMMED_AT_ONCE))
        ledger.save(tx.connection)
        ledger.size = ledger.measure(tx.connection)
        self._recent.doubt(tx)
        tx.connection.execute("commit")
        ledger.keep()
        self._known.age()
        self._rested = self._patient = False

    def _trim(self, tx: Transaction, count: int) -> None:
        (first,) = tx.connection.execute("select seq from feed order by seq limit 1 offset ?", (count,)).fetchone()
        tx.connection.execute("delete from feed where seq < ?", (first,))
        self._ledger.feed -= count

    def _surplus(self) -> bool:
        """Whether finished jobs are to be forgotten."""
        if self._connection is None or self._patient:
            return False
        ledger, limits = self._ledger, self._limits
        return ledger.finished > limits.max_finished or (ledger.size > limits.max_bytes and ledger.finished > 0)

    def _forget_surplus(self) -> None:
        """A part of it: what callers want goes in between."""
        if self._surplus():
            operation = Operation(forget, None)
            self._commit([operation])
            self._patient = operation.result is not True

    def _roll_back(self, tx: Transaction, error: Exception) -> None:
        self.stats.rollbacks += 1
        self._ledger.take_back()
        self._known.clear()
        self._recent.trust(tx)
        log.error("a transaction of the store was rolled back", error=type(error).__name__, code=faults.code(error))
        try:
            if tx.connection.in_transaction:
                tx.connection.execute("rollback")
            if faults.is_full(error):
                # What the WAL takes may be all the room there is.
                self._cut_wal(tx.connection)
        except sqlite3.Error:
            self._doubt()
        if faults.is_broken(error):
            self._doubt()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = connect_writer(self._path, self._sync, lambda new: schema.examine(new, self._path))
            try:
                schema.prepare(connection, self._path, self._clock)
                self._ledger = Ledger(connection, self._clock.now())
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _doubt(self) -> None:
        """Another connection must be opened before the next operation."""
        self._recent.clear()
        try:
            self._disconnect()
        except sqlite3.Error as error:
            log.error("a connection of the store could not be closed", code=faults.code(error))

    def _disconnect(self) -> None:
        self._known.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _rest(self) -> None:
        """Nothing to do for a moment: leave all in the file itself, and little beside it."""
        self._rested = True
        if self._connection is not None:
            try:
                self._cut_wal(self._connection)
            except sqlite3.Error as error:
                log.warning("the WAL of the store could not be cut", code=faults.code(error))

    @staticmethod
    def _cut_wal(connection: sqlite3.Connection) -> None:
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def _count(self, operations: int, seconds: float) -> None:
        stats = self.stats
        stats.batches.observe(operations)
        if seconds:
            stats.commits.observe(seconds)
            stats.full = False

    def _fail(self, operations: list[Operation], error: Exception) -> None:
        if isinstance(error, StoreFull):
            self.stats.full = True
        for operation in operations:
            operation.result = error
        self._tell(Done(operations))

    def _tell(self, done: Done) -> None:
        try:
            self._loop.call_soon_threadsafe(self._publish, done)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            log.warning("a store was not closed before its event loop")
