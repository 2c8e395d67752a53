"""What the writer knows without asking the file: counts, sessions, the latest numbers. All of it is in the file too, or
can be counted there; it is taken back with the transaction that changed it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ...model import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from ...model import Job

Line = tuple[str, str, int]
"""Type, queue, priority."""
Place = tuple[int, bool, str, str, str, int]
"""Where the counts know a job: state, ready, the session that runs it or nothing, type, queue, priority."""

_STATES = ("pending", "running", "success", "failed", "cancelled")


def place_of(job: Job) -> Place:
    """Where a record is."""
    spec = job.spec
    session = job.session if job.state is State.RUNNING else ""
    return job.state, job.ready, session, spec.type, spec.queue, spec.priority


class Ledger:
    """Numbers of an open file. Belongs to the writer's thread."""

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        """Counts. `now` is where numbers begin at least.

        That they begin at the time, and not where they ended, makes a file that was brought back from a copy safe:
        neither a fence nor a cursor that was given out after the copy was made can be given out again.
        """
        row = connection.execute(f"select epoch, fence, {', '.join(_STATES)} from meta").fetchone()  # noqa: S608
        self.epoch: str = row[0]
        self.states: dict[State, int] = dict(zip(State, row[2:], strict=True))
        self.types: dict[str, int] = {}
        """Ready jobs by type."""
        self.lines: dict[Line, int] = {}
        """Ready jobs by type, queue and priority."""
        for *line, count in connection.execute(
            "select type, queue, priority, count(*) from state where ready group by type, queue, priority"
        ):
            self.lines[line[0], line[1], line[2]] = count
            self.types[line[0]] = self.types.get(line[0], 0) + count
        self.sessions: dict[str, int] = dict(connection.execute("select id, until from session"))
        self.held: dict[str, int] = dict(
            connection.execute("select session, count(*) from state where session is not null group by session")
        )
        self.feed, self.seq = connection.execute("select count(*), max(seq) from feed").fetchone()
        """Rows of the feed, and the latest of them."""
        self.next_seq: int = max(self.seq + 1, now)
        self.fence: int = max(row[1], now)
        (trees,) = connection.execute("select count(*) from sqlite_master where rootpage > 0").fetchone()
        (self._page_size,) = connection.execute("pragma page_size").fetchone()
        self._empty = 1 + trees
        self.size = self.measure(connection)
        """Bytes that the jobs take in the file, as of the last commit."""
        self._undo: list[tuple[dict[Any, int], Any, int | None]] = []
        self._numbers = self._snapshot()
        self._counted = False

    def _snapshot(self) -> tuple[int, int, int, int, int]:
        return self.feed, self.seq, self.next_seq, self.fence, self.size

    def measure(self, connection: sqlite3.Connection) -> int:
        """Bytes in use beyond those of an empty file."""
        (pages,) = connection.execute("pragma page_count").fetchone()
        (free,) = connection.execute("pragma freelist_count").fetchone()
        return max(0, int(pages - free - self._empty) * int(self._page_size))

    @property
    def unfinished(self) -> int:
        states = self.states
        return states[State.PENDING] + states[State.RUNNING]

    @property
    def finished(self) -> int:
        states = self.states
        return states[State.SUCCESS] + states[State.FAILED] + states[State.CANCELLED]

    def take_seqs(self, count: int) -> range:
        """Places in the feed for so many changes."""
        taken = range(self.next_seq, self.next_seq + count)
        if count:
            self.next_seq += count
            self.seq = self.next_seq - 1
            self.feed += count
        return taken

    def count(self, moves: Iterable[tuple[Place | None, Place | None]]) -> None:
        """Jobs came from one place to another; None when they were not there before, or are gone."""
        for (before, after), jobs in Counter(moves).items():
            if before is not None:
                self._add(before, -jobs)
            if after is not None:
                self._add(after, jobs)
            self._counted = True

    def _add(self, place: Place, more: int) -> None:
        state, ready, session, job_type, queue, priority = place
        self._add_to(self.states, state, more)
        if ready:
            self._add_to(self.types, job_type, more)
            self._add_to(self.lines, (job_type, queue, priority), more)
        if session:
            self._add_to(self.held, session, more)

    def set_session(self, session: str, until: int | None) -> None:
        """Opens or renews a session; None closes it."""
        old = self.sessions.get(session)
        self._undo.append((self.sessions, session, old))
        if until is not None:
            self.sessions[session] = until
        elif old is not None:
            del self.sessions[session]

    def _add_to(self, table: dict[Any, int], key: Any, more: int) -> None:
        old = table.get(key)
        self._undo.append((table, key, old))
        new = (old or 0) + more
        if new or table is self.states:
            table[key] = new
        else:
            del table[key]

    def save(self, connection: sqlite3.Connection) -> None:
        """Writes the counts; the last statement of a transaction that changed them."""
        if self._counted or self.fence != self._numbers[3]:
            connection.execute(
                "update meta set fence = ?, pending = ?, running = ?, success = ?, failed = ?, cancelled = ?",
                (self.fence, *self.states.values()),
            )

    def keep(self) -> None:
        """The transaction is committed."""
        self._undo.clear()
        self._numbers = self._snapshot()
        self._counted = False

    def take_back(self) -> None:
        """The transaction was rolled back."""
        for table, key, old in reversed(self._undo):
            if old is None:
                table.pop(key, None)
            else:
                table[key] = old
        self._undo.clear()
        self.feed, self.seq, self.next_seq, self.fence, self.size = self._numbers
        self._counted = False
