"""What an operation of the writer works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...model import Job, State
from .ledger import Place

if TYPE_CHECKING:
    import sqlite3

    from ...clock import Clock
    from .latest import Latest
    from .ledger import Ledger


class SqliteLimits(msgspec.Struct, frozen=True):
    """Where a SQLite store says no (unfinished jobs) or forgets (finished ones, log lines, changes)."""

    max_pending: int = 10_000_000
    max_finished: int = 10_000_000
    max_bytes: int = 1 << 40
    """What the jobs may take in the file."""
    max_log_lines: int = 10_000
    max_log_bytes: int = 4 << 20
    feed_length: int = 100_000
    """Changes that the feed keeps."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """A stored job, as far as a write must know it."""

    n: int
    version: int
    fence: int
    place: Place
    job: Job | None = None
    """None when only the rest was read, or when the record is large."""

    def accepts(self, job: Job, version: int) -> bool:
        """Whether a put of the job with that expected version is to be stored."""
        return self.version == version and (self.place[0] != State.RUNNING or self.fence == job.fence)


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
        self.kept: dict[str, Job] = {}
        """The latest of these that are small."""
        self.large: set[str] = set()
        """The jobs of the others."""
        self.gone: set[str] = set()
        """Deleted jobs."""
        self.outputs: list[str] = []
        """Jobs with new output."""

    def touches(self, job_id: str) -> bool:
        """Whether it writes or deletes the job."""
        return job_id in self.kept or job_id in self.large or job_id in self.gone

    def begin(self) -> None:
        """Makes sure that the transaction has begun."""
        if not self.begun:
            self.connection.execute("begin immediate")
            self.begun = True
