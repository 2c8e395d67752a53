"""The operations that change jobs, each a function in the writer's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codec import encode_spec
from .batches import for_all, jobs_by_number, select_in, select_list, write_rows
from .ledger import place_of
from .rows import insert_jobs, update_jobs
from .transaction import Known

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ...model import Job
    from .transaction import Transaction

_JOB_BYTES = 1_500
"""What a job takes in the file beside payload and result, with its share of the indexes; rather too much."""
_LARGEST = 4 << 10
"""Bytes of payload and result up to which a record is kept in memory."""
_EVICTED_AT_ONCE = 50
_FORGOTTEN_AT_ONCE = 250

_BY_NAME = "select json_group_array(json_array(n)) from name where namespace = ? and request_id in (?*)"
_HEADS = (
    "select json_group_array(json_array("
    "id, n, version, fence, state, ready, ifnull(session, ''), type, queue, priority))"
    " from state where id in (?*)"
)
_FEED = "insert into feed (seq, n, version) values ?*"
_OLDEST = (
    "select json_group_array(json_array(n)) from"
    " (select n from state indexed by state_finished where finished is not null order by finished, id limit ?)"
)
_SIZES = (
    "select json_group_array(json_array(s.n, length(s.doc) + length(p.doc) + ifnull(length(cast(s.result as blob)), 0)"
    " + ifnull(length(cast(p.payload as blob)), 0))) from state s join spec p on p.n = s.n where s.n in (?*)"
)


def known_as(n: int, job: Job) -> Known:
    """What to know of a record that is stored under that number."""
    return Known(n, job.version, job.fence, place_of(job))


def _stored(tx: Transaction, ids: Sequence[str]) -> dict[str, Known]:
    """What is known of stored jobs, by id."""
    found: dict[str, Known] = {}
    unknown: list[str] = []
    for job_id in ids:
        known = tx.known.get(job_id)
        if known is None:
            unknown.append(job_id)
        else:
            found[job_id] = known
    for job_id, n, version, fence, *place in select_in(tx.connection, _HEADS, unknown):
        found[job_id] = Known(n, version, fence, (place[0], place[1], place[2], place[3], place[4], place[5]))
    return found


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
        numbers += [n for (n,) in select_in(connection, _BY_NAME, names, namespace)]
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
    numbered = list(zip(tx.ledger.take_seqs(len(jobs)), jobs, strict=True))
    insert_jobs(tx.connection, numbered)
    write_rows(tx.connection, _FEED, "(?, ?, ?)", [(n, n, job.version) for n, job in numbered])
    new = [(known_as(n, job), job) for n, job in numbered]
    tx.ledger.count((None, known.place) for known, _ in new)
    _note(tx, new)


def _note(tx: Transaction, written: Sequence[tuple[Known, Job]]) -> None:
    """These records were written."""
    known, kept = tx.known, tx.kept
    for now, job in written:
        job_id = job.spec.id
        result = job.result
        size = len(job.spec.payload.data)
        small = (size if result is None else size + len(result.data)) <= _LARGEST
        if small:
            kept[job_id] = job
        else:
            kept.pop(job_id, None)
            tx.large.add(job_id)
        if job.finish_time is None:
            known.set(job_id, Known(now.n, now.version, now.fence, now.place, job) if small else now)
        else:
            # It is hardly ever written again.
            known.drop(job_id)
    tx.written += [job for _, job in written]


def put(tx: Transaction, jobs: Sequence[Job], expected: Sequence[int]) -> list[bool]:
    """`Store.put`."""
    tx.begin()
    stored = _stored(tx, [job.spec.id for job in jobs])
    answers: list[bool] = []
    moves: list[tuple[Known, Job]] = []
    for job, version in zip(jobs, expected, strict=True):
        before = stored.get(job.spec.id)
        fits = before is not None and before.accepts(job, version)
        answers.append(fits)
        if before is not None and fits:
            moves.append((before, job))
            stored[job.spec.id] = known_as(before.n, job)
    move(tx, moves)
    return answers


def move(tx: Transaction, moves: Sequence[tuple[Known, Job]]) -> None:
    """Writes the next records of jobs that are known as stored."""
    ledger = tx.ledger
    # Of several for one job the last one stays.
    update_jobs(tx.connection, {before.n: job for before, job in moves})
    seqs = ledger.take_seqs(len(moves))
    changes = [(seq, before.n, job.version) for seq, (before, job) in zip(seqs, moves, strict=True)]
    write_rows(tx.connection, _FEED, "(?, ?, ?)", changes)
    after = [known_as(before.n, job) for before, job in moves]
    ledger.count((before.place, now.place) for (before, _), now in zip(moves, after, strict=True))
    _note(tx, [(now, job) for now, (_, job) in zip(after, moves, strict=True)])


def delete(tx: Transaction, jobs: Sequence[Job]) -> list[bool]:
    """`Store.delete`."""
    tx.begin()
    stored = _stored(tx, [job.spec.id for job in jobs])
    answers: list[bool] = []
    doomed: list[tuple[Known, Job]] = []
    for job in jobs:
        known = stored.get(job.spec.id)
        fits = known is not None and known.version == job.version
        answers.append(fits)
        if known is not None and fits:
            del stored[job.spec.id]
            doomed.append((known, job))
    _remove(tx, doomed)
    return answers


def forget(tx: Transaction, limit: int = _FORGOTTEN_AT_ONCE, more: int = 0) -> bool:
    """Deletes finished jobs beyond the bounds; no more than `limit`, and where there should be room for so many bytes
    `more`, no more than it takes. False when there are none."""
    ledger, limits = tx.ledger, tx.limits
    surplus = max(0, ledger.finished - limits.max_finished)
    over = ledger.size + more - limits.max_bytes
    tx.begin()
    numbers = [n for (n,) in select_list(tx.connection, _OLDEST, limit if over > 0 else min(limit, surplus))]
    if over > 0:
        numbers = numbers[: max(_how_many(tx, numbers, over), surplus)]
    jobs = jobs_by_number(tx.connection, numbers)
    stored = _stored(tx, list(jobs))
    place = {n: at for at, n in enumerate(numbers)}
    _remove(tx, sorted(((stored[job_id], job) for job_id, job in jobs.items()), key=lambda one: place[one[0].n]))
    if over > 0:
        ledger.size = ledger.measure(tx.connection)
    return bool(numbers)


def _how_many(tx: Transaction, numbers: Sequence[int], over: int) -> int:
    """How many of these jobs, the first ones, take so many bytes."""
    sizes = {row[0]: row[1] for row in select_in(tx.connection, _SIZES, numbers)}
    for count, n in enumerate(numbers, 1):
        over -= sizes[n]
        if over <= 0:
            return count
    return len(numbers)


def _remove(tx: Transaction, doomed: Sequence[tuple[Known, Job]]) -> None:
    """Deletes jobs, and tells the feed."""
    connection, ledger = tx.connection, tx.ledger
    specs = [job.spec for _, job in doomed]
    seqs = ledger.take_seqs(len(doomed))
    gone = [(seq, bytearray(encode_spec(spec, payload=False))) for seq, spec in zip(seqs, specs, strict=True)]
    write_rows(connection, "insert into feed (seq, gone) values ?*", "(?, ?)", gone)
    numbers = [known.n for known, _ in doomed]
    for table in ("state", "spec", "log", "output"):
        for_all(connection, f"delete from {table} where n in (?*)", numbers)  # noqa: S608 - constants
    names: dict[str, list[str]] = {}
    for spec in specs:
        if spec.request_id:
            names.setdefault(spec.namespace, []).append(spec.request_id)
    for namespace, some in names.items():
        for_all(connection, "delete from name where namespace = ? and request_id in (?*)", some, namespace)
    ledger.count((known.place, None) for known, _ in doomed)
    for spec in specs:
        tx.known.drop(spec.id)
        tx.gone.add(spec.id)
