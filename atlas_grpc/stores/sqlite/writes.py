"""The operations that change jobs, each a function in the writer's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from ...model import EMPTY_OBJECT
from ..codec import decode_spec, encode_spec
from .connection import select_in
from .ledger import place_of
from .rows import JOB, UPDATE_STATE, insert_jobs, job_of, state_row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ...model import Job, JobSpec
    from .ledger import Place
    from .transaction import Transaction

_JOB_BYTES = 1_500
"""What a job takes in the file beside payload and result, with its share of the indexes; rather too much."""
_EVICTED_AT_ONCE = 50
_FORGOTTEN_AT_ONCE = 250

_BY_ID = f"select {JOB} from state s join spec p on p.n = s.n where s.n in (?*)"  # noqa: S608 - constant
_BY_NAME = "select request_id, n from name where namespace = ? and request_id in (?*)"
_HEADS = "select id, n, version, state, ready, ifnull(session, '') from state where id in (?*)"
_FEED = "insert into feed (seq, n, version) values (?, ?, ?)"
_OLDEST = "select id from state where due is not null and state >= 3 order by due, id limit ?"
_DOOMED = (
    "select s.id, s.n, s.version, s.state, s.ready, ifnull(s.session, ''), p.doc from state s join spec p on p.n = s.n"
    " where s.id in (?*)"
)


class Head(NamedTuple):
    """What a write must know of the stored job."""

    n: int
    version: int
    state: int
    ready: bool
    session: str

    def place(self, spec: JobSpec) -> Place:
        """Where the stored job is."""
        return self.state, self.ready, self.session, spec.type, spec.queue, spec.priority


def heads(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Head]:
    """Of stored jobs, by id."""
    return {
        job_id: Head(n, version, state, ready, session)
        for job_id, n, version, state, ready, session in select_in(connection, _HEADS, ids)
    }


def jobs_by_number(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[str, Job]:
    """Stored jobs, by id."""
    jobs = (job_of(row) for row in select_in(connection, _BY_ID, numbers))
    return {job.spec.id: job for job in jobs}


def insert(tx: Transaction, jobs: Sequence[Job]) -> list[Job | None]:
    """`Store.insert`."""
    tx.begin()
    named = _named(tx.connection, jobs)
    ledger = tx.ledger
    room = tx.limits.max_pending - ledger.unfinished
    answers: list[Job | None] = []
    new: list[Job] = []
    added = 0
    for job in jobs:
        spec = job.spec
        key = (spec.namespace, spec.request_id)
        known = named.get(key) if spec.request_id else None
        if known is not None:
            answers.append(known)
            continue
        added += _estimate(job)
        if len(new) >= room or not _fits(tx, added):
            added -= _estimate(job)
            answers.append(None)
            continue
        if spec.request_id:
            named[key] = job
        new.append(job)
        answers.append(job)
    _store_new(tx, new)
    ledger.size += added
    return answers


def _named(connection: sqlite3.Connection, jobs: Sequence[Job]) -> dict[tuple[str, str], Job]:
    """The jobs that request ids name already."""
    asked: dict[str, list[str]] = {}
    for job in jobs:
        if job.spec.request_id:
            asked.setdefault(job.spec.namespace, []).append(job.spec.request_id)
    numbers: list[int] = []
    for namespace, names in asked.items():
        numbers += [n for _, n in select_in(connection, _BY_NAME, names, namespace)]
    found = jobs_by_number(connection, numbers)
    return {(job.spec.namespace, job.spec.request_id): job for job in found.values()}


def _estimate(job: Job) -> int:
    return _JOB_BYTES + len(job.spec.payload.data) + (0 if job.result is None else len(job.result.data))


def _fits(tx: Transaction, more: int) -> bool:
    """Whether so many bytes more fit; finished jobs make room."""
    ledger, bound = tx.ledger, tx.limits.max_bytes
    while ledger.size + more > bound:
        ledger.size = ledger.measure(tx.connection)
        if ledger.size + more > bound and not forget(tx, _EVICTED_AT_ONCE, more):
            return False
    return True


def _store_new(tx: Transaction, jobs: Sequence[Job]) -> None:
    seqs = tx.ledger.take_seqs(len(jobs))
    insert_jobs(tx.connection, zip(seqs, jobs, strict=True))
    tx.connection.executemany(_FEED, [(n, n, job.version) for n, job in zip(seqs, jobs, strict=True)])
    tx.ledger.count((None, place_of(job)) for job in jobs)
    tx.written += jobs


def put(tx: Transaction, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
    """`Store.put`."""
    tx.begin()
    known = heads(tx.connection, [job.spec.id for job in jobs])
    answers: list[bool] = []
    fresh: list[tuple[Head, Job]] = []
    for job, version in zip(jobs, expected, strict=True):
        head = known.get(job.spec.id)
        fits = head is not None and head.version == version
        answers.append(fits)
        if head is not None and fits:
            fresh.append((head, job))
            known[job.spec.id] = Head(head.n, job.version, *place_of(job)[:3])
    move(tx, fresh)
    return answers


def move(tx: Transaction, moves: Sequence[tuple[Head, Job]]) -> None:
    """Writes the next records of stored jobs."""
    ledger = tx.ledger
    tx.connection.executemany(UPDATE_STATE, [state_row(job, head.n) for head, job in moves])
    seqs = ledger.take_seqs(len(moves))
    tx.connection.executemany(_FEED, [(seq, head.n, job.version) for seq, (head, job) in zip(seqs, moves, strict=True)])
    ledger.count((head.place(job.spec), place_of(job)) for head, job in moves)
    tx.written += [job for _, job in moves]


def delete(tx: Transaction, jobs: Sequence[Job]) -> list[bool]:
    """`Store.delete`."""
    tx.begin()
    versions = {job.spec.id: job.version for job in jobs}
    stored = {row[0]: row for row in select_in(tx.connection, _DOOMED, list(versions))}
    answers: list[bool] = []
    doomed: list[tuple[Any, ...]] = []
    for job in jobs:
        row = stored.get(job.spec.id)
        fits = row is not None and row[2] == job.version
        answers.append(fits)
        if row is not None and fits:
            doomed.append(stored.pop(job.spec.id))
    _remove(tx, doomed)
    return answers


def forget(tx: Transaction, limit: int = _FORGOTTEN_AT_ONCE, more: int = 0) -> bool:
    """Deletes finished jobs beyond the bounds, those first whose retention would be over first; no more than `limit`,
    and where there should be room for so many bytes `more`, no more than it takes. False when there are none."""
    ledger, limits = tx.ledger, tx.limits
    surplus = ledger.finished - limits.max_finished
    over = ledger.size + more - limits.max_bytes
    tx.begin()
    ids = [row[0] for row in tx.connection.execute(_OLDEST, (limit if over > 0 else min(limit, surplus),))]
    if over > 0:
        ids = ids[: max(_few(tx, ids, over), surplus)]
    stored = {row[0]: row for row in select_in(tx.connection, _DOOMED, ids)}
    _remove(tx, [stored[job_id] for job_id in ids])
    if over > 0:
        ledger.size = ledger.measure(tx.connection)
    return bool(ids)


def _few(tx: Transaction, ids: Sequence[str], over: int) -> int:
    """How many of these jobs, the first ones, take so many bytes."""
    sql = (
        "select s.id, length(s.doc) + ifnull(length(cast(s.result as blob)), 0) + ifnull(length(cast(p.payload as blob)), 0)"
        " + length(p.doc) from state s join spec p on p.n = s.n where s.id in (?*)"
    )
    sizes = dict(select_in(tx.connection, sql, ids))
    for count, job_id in enumerate(ids, 1):
        over -= sizes[job_id]
        if over <= 0:
            return count
    return len(ids)


def _remove(tx: Transaction, doomed: Sequence[tuple[Any, ...]]) -> None:
    """Deletes the jobs of these rows of `_DOOMED`, and tells the feed."""
    connection, ledger = tx.connection, tx.ledger
    specs = [replace(decode_spec(row[6]), payload=EMPTY_OBJECT) for row in doomed]
    seqs = ledger.take_seqs(len(doomed))
    connection.executemany(
        "insert into feed (seq, gone) values (?, ?)",
        [(seq, bytearray(encode_spec(spec))) for seq, spec in zip(seqs, specs, strict=True)],
    )
    numbers = [(row[1],) for row in doomed]
    for table in ("state", "spec", "log", "output"):
        connection.executemany(f"delete from {table} where n = ?", numbers)  # noqa: S608 - constants
    connection.executemany(
        "delete from name where namespace = ? and request_id = ?",
        [(spec.namespace, spec.request_id) for spec in specs if spec.request_id],
    )
    ledger.count((Head(*row[1:6]).place(spec), None) for row, spec in zip(doomed, specs, strict=True))
    tx.gone += [spec.id for spec in specs]
