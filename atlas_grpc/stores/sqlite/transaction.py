"""What an operation of the writer works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    import sqlite3

    from ...clock import Clock
    from ...model import Job
    from .latest import Latest
    from .ledger import Ledger


class SqliteLimits(msgspec.Struct, frozen=True):
    """Where a SQLite store says no (unfinished jobs) or forgets (finished ones, log lines, changes)."""

    max_pending: int = 10_000_000
    max_finished: int = 10_000_000
    max_bytes: int = 1 << 40
    """What the jobs may take in the file."""
    max_log_lines: int = 1_000
    max_log_bytes: int = 1 << 20
    feed_length: int = 100_000
    """Changes that the feed keeps."""


class Known(NamedTuple):
    """A record that was written not long ago, and its number."""

    n: int
    job: Job


class Transaction:
    """One transaction of the writer, which may hold many operations. `begin` comes before the first write."""

    def __init__(
        self, connection: sqlite3.Connection, ledger: Ledger, known: Latest[Known], limits: SqliteLimits, clock: Clock
    ) -> None:
        self.connection = connection
        self.ledger = ledger
        self.limits = limits
        self.clock = clock
        self.known = known
        self.begun = False
        self.written: list[Job] = []
        """Records in the order they were written."""
        self.gone: list[str] = []
        """Deleted jobs."""
        self.outputs: list[str] = []
        """Jobs with new output."""

    def begin(self) -> None:
        """Makes sure that the transaction has begun."""
        if not self.begun:
            self.connection.execute("begin immediate")
            self.begun = True
