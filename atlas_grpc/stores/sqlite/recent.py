"""The records that were written last, so that reading them again costs neither a thread's turn nor decoding.

One process owns the file, so what it wrote last is what is stored. A reader's connection sees a commit a moment before
the event loop hears of it. Lest somebody read a new record there and then an older one here, records are not told here
from just before a commit that replaces them until the loop knows what came of that commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Job
    from .transaction import Transaction

_LARGEST = 4 << 10
"""Bytes of payload and result up to which a record is kept."""


class Recent:
    """Records by id, at least the last `length` written, at most twice as many.

    The writer's thread calls `doubt`, `trust` and `look`, the event loop the others; each touches shared data by single
    operations of a list or a dictionary, so no lock is needed.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._young: dict[str, Job] = {}
        self._old: dict[str, Job] = {}
        """Dropped as a whole: a dictionary that loses its first entry again and again grows slow."""
        self._doubtful: list[tuple[Transaction, set[str]]] = []
        """What the transactions write that are being committed, while the loop has not heard of them."""

    def look(self, job_id: str) -> Job | None:
        """A record that was stored not long ago; its version tells whether it still is."""
        return self._young.get(job_id) or self._old.get(job_id)

    def get(self, ids: Sequence[str]) -> list[Job | None] | None:
        """The stored records, or None when one of them is not known here."""
        doubtful = [ids for _, ids in self._doubtful]
        found: list[Job | None] = []
        for job_id in ids:
            job = self.look(job_id)
            if job is None or any(job_id in ids for ids in doubtful):
                return None
            found.append(job)
        return found

    def doubt(self, tx: Transaction) -> None:
        """A transaction is about to be committed."""
        ids = {job.spec.id for job in tx.written}
        ids.update(tx.gone)
        self._doubtful.append((tx, ids))

    def trust(self, tx: Transaction) -> None:
        """What became of the transaction is known: it was rolled back, or `settle` has seen it."""
        for entry in self._doubtful:
            if entry[0] is tx:
                self._doubtful.remove(entry)
                return

    def settle(self, tx: Transaction) -> None:
        """The transaction was committed."""
        young, old = self._young, self._old
        for job in tx.written:
            job_id = job.spec.id
            result = job.result
            size = len(job.spec.payload.data)
            if (size if result is None else size + len(result.data)) <= _LARGEST:
                young[job_id] = job
            else:
                young.pop(job_id, None)
                old.pop(job_id, None)
        for job_id in tx.gone:
            young.pop(job_id, None)
            old.pop(job_id, None)
        if len(young) > self._length:
            self._old, self._young = young, {}
        self.trust(tx)

    def clear(self) -> None:
        """Nothing is known any more."""
        self._young = {}
        self._old = {}
        self._doubtful.clear()
