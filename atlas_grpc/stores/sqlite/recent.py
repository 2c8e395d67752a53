"""The records that were written last, so that reading them again costs neither a thread's turn nor decoding.

One process owns the file, so what it wrote last is what is stored. A reader's connection sees a commit a moment before
the event loop hears of it. Lest somebody read a new record there and then an older one here, records are not told here
from just before a commit that replaces them until the loop knows what came of that commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .latest import Latest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Job
    from .transaction import Transaction


class Recent:
    """Records by id. The writer's thread calls `doubt` and `trust`, the event loop the others; what both touch is a
    list, by single operations, so no lock is needed."""

    def __init__(self, length: int) -> None:
        self._jobs: Latest[Job] = Latest(length)
        self._doubtful: list[Transaction] = []
        """Those that are being committed, while the loop has not heard of them."""

    def get(self, ids: Sequence[str]) -> list[Job | None] | None:
        """The stored records, or None when one of them is not known here."""
        doubtful = list(self._doubtful)
        found: list[Job | None] = []
        for job_id in ids:
            job = self._jobs.get(job_id)
            if job is None or any(tx.touches(job_id) for tx in doubtful):
                return None
            found.append(job)
        return found

    def doubt(self, tx: Transaction) -> None:
        """A transaction is about to be committed."""
        self._doubtful.append(tx)

    def trust(self, tx: Transaction) -> None:
        """What became of the transaction is known: it was rolled back, or `settle` has seen it."""
        if tx in self._doubtful:
            self._doubtful.remove(tx)

    def settle(self, tx: Transaction) -> None:
        """The transaction was committed."""
        jobs = self._jobs
        jobs.update(tx.kept)
        for job_id in (*tx.large, *tx.gone):
            jobs.drop(job_id)
        jobs.age()
        self.trust(tx)

    def clear(self) -> None:
        """Nothing is known any more."""
        self._jobs.clear()
        self._doubtful.clear()
