"""Reading and writing jobs: insert, compare-and-set, listing, timers, counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import Unavailable
from ...model import State
from .. import codec
from ..base import Counts, Filter, Page, QueueCount
from . import columns, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...model import Job
    from .database import Database

BATCH = 1_000
"""Jobs of one statement, and so the most changes of one transaction."""
_FIND_BUDGET = 5_000
"""Jobs looked at in one call of `find`."""
_AHEAD_BOUND = 10_000
_ROUNDS = 10
"""How often an insert looks again for a name that was taken and then free."""
_COUNTED_PAGES = 10_000
"""Up to this size the states are counted; beyond it a sample of so many pages is."""
_QUEUES = 10_000
_COUNTING_SHARE = 0.02
"""How much of the time may go into counting, for the bound on unfinished jobs."""
_COUNT_HOLDS = 30.0
"""Seconds for which a count is good, together with what this store inserts meanwhile. Metrics are counted more often,
and that counts here too, so that a submit rarely waits for a count.
"""
_FEW_PAGES = 500
"""A table of this size is counted as often as it is needed."""
_INT64 = 2**63 - 1
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_encode_labels = msgspec.json.Encoder().encode


class Written:
    """What an operation wrote: for its answer, and for the hints."""

    __slots__ = ("done", "xid")

    def __init__(self, size: int) -> None:
        self.done = [False] * size
        self.xid = 0


class Jobs:
    """The job tables. `max_pending` is held as far as a count can be: exactly while the table is small and nobody else
    writes, else nearly.
    """

    def __init__(self, database: Database, max_pending: int | None) -> None:
        self._database = database
        self._max_pending = max_pending
        self._unfinished = 0
        self._pages = 0
        self._count_holds_until = 0.0

    async def insert(self, jobs: Sequence[Job]) -> tuple[list[Job | None], int]:
        """Inserts, and answers what is stored under each name; also the transaction of the last write."""
        answers: list[Job | None] = [None] * len(jobs)
        first: dict[tuple[str, str], int] = {}
        followers: list[tuple[int, int]] = []
        missing: list[int] = []
        for place, job in enumerate(jobs):
            if not columns.is_new(job):
                raise ValueError("only a job that has not begun can be inserted")
            request_id = job.spec.request_id
            leader = first.setdefault((job.spec.namespace, request_id), place) if request_id else place
            if leader == place:
                missing.append(place)
            else:
                followers.append((place, leader))
        xid = 0
        if self._max_pending is not None:
            missing = await self._admitted(jobs, missing, answers)
        for _ in range(_ROUNDS):
            if not missing:
                break
            taken: list[int] = []
            for start in range(0, len(missing), BATCH):
                places = missing[start : start + BATCH]
                some, xid = await self._insert(jobs, places, answers)
                taken += some
            await self._find_named(jobs, taken, answers)
            missing = [place for place in taken if answers[place] is None]
        if missing:
            raise Unavailable("a request id was given and freed too often to be settled", retry_after=0.1)
        for place, leader in followers:
            answers[place] = answers[leader]
        return answers, xid

    async def _insert(self, jobs: Sequence[Job], places: list[int], answers: list[Job | None]) -> tuple[list[int], int]:
        """One statement. Answers which places were taken, and the transaction."""
        # In the order of the names: writers that share several of them wait for each other in one direction only.
        ordered = sorted(places, key=lambda place: (jobs[place].spec.namespace, jobs[place].spec.request_id))
        ranks = {place: rank for rank, place in enumerate(places)}
        row = await self._database.row(
            "insert", *columns.of_new([jobs[place] for place in ordered], [ranks[place] for place in ordered])
        )
        if row["stored"] == len(places):
            stored = places
            taken = []
        else:
            ids = {str(job_id) for job_id in row["ids"] or ()}
            stored = [place for place in places if jobs[place].spec.id in ids]
            taken = [place for place in places if jobs[place].spec.id not in ids]
        for place in stored:
            answers[place] = jobs[place]
        self._unfinished += len(stored)
        return taken, row["xid"]

    async def _find_named(self, jobs: Sequence[Job], places: Iterable[int], answers: list[Job | None]) -> None:
        """Answers what is stored under the names of these jobs."""
        names = {place: (jobs[place].spec.namespace, jobs[place].spec.request_id) for place in places}
        keys = [name for name in names.values() if name[1]]
        if keys:
            found = await self._database.fetch("named", [key[0] for key in keys], [key[1] for key in keys])
            by_name = {(job.spec.namespace, job.spec.request_id): job for job in map(rows.decode, found)}
            for place, name in names.items():
                answers[place] = by_name.get(name)

    async def _admitted(self, jobs: Sequence[Job], places: list[int], answers: list[Job | None]) -> list[int]:
        """Which of the new jobs there is room for. What has a name already needs none."""
        bound = self._max_pending or 0
        holds = time.monotonic() < self._count_holds_until
        if not holds or (self._unfinished + len(places) > bound * 0.9 and self._pages <= _FEW_PAGES):
            await self._count_unfinished()
        room = bound - self._unfinished
        if len(places) <= room:
            return places
        await self._find_named(jobs, places, answers)
        return [place for place in places if answers[place] is None][: max(0, room)]

    async def _count_unfinished(self) -> None:
        began = time.monotonic()
        percent, _ = await self._sample()
        row = await self._database.row("unfinished", percent)
        self._note_unfinished(round(row["jobs"] * 100 / percent), began)

    def _note_unfinished(self, count: int, began: float) -> None:
        now = time.monotonic()
        self._unfinished = count
        self._count_holds_until = now + max(_COUNT_HOLDS, (now - began) / _COUNTING_SHARE)

    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        known = rows.known_ids(ids)
        if not known:
            return [None] * len(ids)
        found: dict[str, Job] = {}
        for start in range(0, len(known), BATCH):
            found.update(rows.by_id(await self._database.fetch("get", known[start : start + BATCH])))
        return [found.get(job_id) for job_id in ids]

    async def put(self, jobs: Sequence[Job], expected: Sequence[int]) -> Written:
        written = Written(len(jobs))
        for places in _rounds(jobs):
            order = sorted(places, key=lambda place: jobs[place].spec.id)
            ranks = {place: rank for rank, place in enumerate(places)}
            row = await self._database.row(
                "put",
                *columns.of_moved(
                    [jobs[place] for place in order],
                    [expected[place] for place in order],
                    [ranks[place] for place in order],
                ),
            )
            self._mark(written, places, row)
        return written

    async def delete(self, jobs: Sequence[Job]) -> Written:
        written = Written(len(jobs))
        for places in _rounds(jobs):
            order = sorted(places, key=lambda place: jobs[place].spec.id)
            ranks = {place: rank for rank, place in enumerate(places)}
            row = await self._database.row(
                "delete",
                [jobs[place].spec.id for place in order],
                [jobs[place].version for place in order],
                [ranks[place] for place in order],
                [codec.encode_spec(jobs[place].spec, payload=False) for place in order],
            )
            self._mark(written, places, row)
        return written

    @staticmethod
    def _mark(written: Written, places: Sequence[int], row: Any) -> None:
        if row["stored"] == len(places):
            for place in places:
                written.done[place] = True
        else:
            for rank in row["places"] or ():
                written.done[places[rank]] = True
        written.xid = row["xid"]

    async def find(self, where: Filter, after: str | None, limit: int) -> Page:
        after = _LAST_ID if after is None else after
        if not rows.is_id(after) or limit < 1:
            return Page((), None)
        if where.ids:
            return await self._find_by_id(where, after, limit)
        texts = [where.namespace, *where.types, *where.queues, *where.labels, *where.labels.values()]
        if any("\x00" in text for text in texts):
            return Page((), None)
        selective = where != Filter(where.namespace)
        found = await self._database.fetch(
            "find",
            where.namespace,
            after,
            max(limit + 1, _FIND_BUDGET - 1) if selective else limit + 1,
            limit + 1,
            [int(state) for state in where.states] or None,
            [*where.types] or None,
            [*where.queues] or None,
            _encode_labels(where.labels).decode() if where.labels else None,
            max(-_INT64, min(where.created_from or 0, _INT64)),
            _INT64 if where.created_before is None else max(-_INT64, min(where.created_before, _INT64)),
        )
        jobs = tuple(rows.decode(row) for row in found[:limit] if row["version"] is not None)
        if len(found) > limit:
            return Page(jobs, jobs[-1].id)
        stop = found[0]["stop"]
        return Page(jobs, None if stop is None else str(stop))

    async def _find_by_id(self, where: Filter, after: str, limit: int) -> Page:
        ids = sorted((job_id for job_id in where.ids if job_id < after), reverse=True)[:_FIND_BUDGET]
        found: list[Job] = []
        for job in await self.get(ids):
            if job is not None and where.matches(job.spec, job.state):
                if len(found) >= limit:
                    return Page(tuple(found), found[-1].id)
                found.append(job)
        return Page(tuple(found), ids[-1] if len(ids) == _FIND_BUDGET else None)

    async def due(self, now: int, limit: int) -> tuple[list[Job], int | None]:
        found = await self._database.fetch("due", now, limit + 1)
        jobs = [rows.decode(row) for row in found[:limit] if row["version"] is not None]
        return jobs, found[limit]["due"] if len(found) > limit else found[0]["following"]

    async def ahead(self, job: Job) -> int:
        spec = job.spec
        row = await self._database.row("ahead", spec.type, spec.priority, job.next_start, spec.id, _AHEAD_BOUND)
        ahead: int = row["ahead"]
        return min(_AHEAD_BOUND, ahead)

    async def _sample(self) -> tuple[float, int]:
        """Which share of the pages is to be counted, in percent, and how large the tables are, in bytes."""
        row = await self._database.row("size")
        self._pages = row["pages"]
        return min(100.0, 100.0 * _COUNTED_PAGES / max(1, row["pages"])), row["size"]

    async def counts(self) -> Counts:
        began = time.monotonic()
        percent, size = await self._sample()
        factor = 100 / percent
        states = dict.fromkeys(State, 0)
        ready: dict[tuple[str, str], QueueCount] = {}
        for row in await self._database.fetch("counts", percent):
            count = round(row["jobs"] * factor)
            states[State(row["state"])] += count
            if row["type"] is not None:
                ready[row["type"], row["queue"]] = QueueCount(row["queue"], row["type"], count, row["oldest"])
        self._note_unfinished(states[State.PENDING] + states[State.RUNNING], began)
        if factor > 1:
            # A sample says too little about which job is the oldest, or about a queue that is short.
            for row in await self._database.fetch("oldest", _QUEUES):
                known = ready.get((row["type"], row["queue"]))
                depth = 1 if known is None else known.depth
                ready[row["type"], row["queue"]] = QueueCount(row["queue"], row["type"], depth, row["oldest"])
        return Counts(states, tuple(ready.values()), size)


def _rounds(jobs: Sequence[Job]) -> Iterable[Sequence[int]]:
    """The places of a batch, in parts that a statement can hold and that name no job twice."""
    left: Sequence[int] = range(len(jobs))
    while left:
        seen: set[str] = set()
        part: list[int] = []
        later: list[int] = []
        for place in left:
            job_id = jobs[place].spec.id
            if later or job_id in seen or len(part) >= BATCH:
                later.append(place)
            else:
                seen.add(job_id)
                part.append(place)
        yield part
        left = later
