"""The operations that only read, each a function on a reader's connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ResumeTokenExpired
from ...model import SECOND, State
from ..base import Change, Page, QueueCount
from ..codec import decode_spec
from .connection import select_in
from .rows import JOB, job_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from ...model import Job
    from ..base import Filter
    from .ledger import Line

_FIND_BUDGET = 20_000
"""Jobs looked at in one call of `find`."""
_AHEAD_BOUND = 10_000
"""How far `ahead` counts."""
_MOST = 2**63 - 1

_FROM = "from state s join spec p on p.n = s.n"
# ruff: noqa: S608 - statements are put together from constants and marks for parameters
_BY_ID = f"select {JOB} {_FROM} where s.id in (?*)"
_BY_NUMBER = f"select {JOB} {_FROM} where s.n in (?*)"
_HELD = f"select {JOB} {_FROM} where s.session = ? limit ?"
_CHANGES = (
    f"select f.seq, f.gone, {JOB} from feed f left join state s on s.n = f.n and s.version = f.version"
    " left join spec p on p.n = s.n where f.seq >= ? order by f.seq limit ?"
)
_DUE = (
    "select due, id, n from (select due, id, n from state where due <= ?1 and state < 3 order by due, id limit ?2)"
    " union all"
    " select due, id, n from (select due, id, n from state where due <= ?1 and state >= 3 order by due, id limit ?2)"
    " order by due, id limit ?2"
)
_NEXT_DUE = (
    "select min(due) from (select min(due) as due from state where due > ?1 and state < 3"
    " union all select min(due) from state where due > ?1 and state >= 3)"
)
_AHEAD = (
    "select count(*) from (select 1 from state indexed by state_ready"
    " where ready and type = ? and priority = ? and (next_start, id) < (?, ?) limit ?)"
)
_OLDEST = (
    "select next_start from state indexed by state_queue"
    " where ready and type = ? and queue = ? and priority = ? order by next_start limit 1"
)


def get(connection: sqlite3.Connection, ids: Sequence[str]) -> list[Job | None]:
    """`Store.get`."""
    found = {job.spec.id: job for job in map(job_of, select_in(connection, _BY_ID, ids))}
    return [found.get(job_id) for job_id in ids]


def find(connection: sqlite3.Connection, where: Filter, after: str | None, limit: int) -> Page:
    """`Store.find`."""
    if where.ids:
        return _find_named(connection, where, after, limit)
    last = _end_of_budget(connection, where.namespace, after)
    found: list[Job] = []
    for row in connection.execute(*_listing(where, after, last)):
        if len(found) >= limit:
            return Page(tuple(found), found[-1].spec.id)
        job = job_of(row)
        if where.matches(job.spec, job.state):
            found.append(job)
    return Page(tuple(found), last)


def _end_of_budget(connection: sqlite3.Connection, namespace: str, after: str | None) -> str | None:
    """The last job that one call looks at, unless it comes to the end."""
    sql, values = "select id from state where namespace = ?", [namespace]
    if after is not None:
        sql, values = f"{sql} and id < ?", [namespace, after]
    row = connection.execute(f"{sql} order by id desc limit 1 offset ?", (*values, _FIND_BUDGET - 1)).fetchone()
    return None if row is None else str(row[0])


def _listing(where: Filter, after: str | None, last: str | None) -> tuple[str, list[Any]]:
    """The statement for the jobs of a filter, but for its labels, newest first, between two places."""
    terms, values = ["s.namespace = ?"], [where.namespace]
    for term, bound in (
        ("s.id < ?", after),
        ("s.id >= ?", last),
        ("s.created >= ?", where.created_from),
        ("s.created < ?", where.created_before),
    ):
        if bound is not None:
            terms.append(term)
            values.append(bound)
    for column, chosen in (
        ("s.state", [int(s) for s in where.states]),
        ("s.type", where.types),
        ("s.queue", where.queues),
    ):
        if chosen:
            terms.append(f"+{column} in ({','.join('?' * len(chosen))})")
            values += chosen
    return f"select {JOB} {_FROM} where {' and '.join(terms)} order by s.id desc", values


def _find_named(connection: sqlite3.Connection, where: Filter, after: str | None, limit: int) -> Page:
    ids = sorted((job_id for job_id in where.ids if after is None or job_id < after), reverse=True)
    found: list[Job] = []
    start = 0
    while start < len(ids) and len(found) <= limit:
        some = get(connection, ids[start : start + max(limit, 1)])
        found += [job for job in some if job is not None and where.matches(job.spec, job.state)]
        start += max(limit, 1)
    more = len(found) > limit
    return Page(tuple(found[:limit]), found[limit - 1].spec.id if more and limit else None)


def due(connection: sqlite3.Connection, now: int, limit: int) -> tuple[list[Job], int | None]:
    """`Store.due`."""
    rows = connection.execute(_DUE, (now, limit + 1)).fetchall()
    jobs = {
        job.spec.id: job for job in map(job_of, select_in(connection, _BY_NUMBER, [row[2] for row in rows[:limit]]))
    }
    # A job that moved between the two statements is told as it is now, or not at all.
    found = [job for row in rows[:limit] if (job := jobs.get(row[1])) is not None]
    found = [job for job in found if job.due is not None and job.due <= now]
    if len(rows) > limit:
        return found, now
    (following,) = connection.execute(_NEXT_DUE, (now,)).fetchone()
    return found, following


def held(connection: sqlite3.Connection, session: str, limit: int) -> list[Job]:
    """`Store.held`."""
    return [job_of(row) for row in connection.execute(_HELD, (session, limit))]


def ahead(connection: sqlite3.Connection, job: Job) -> int:
    """How many ready jobs of the same type and priority come before a job; counts up to a bound."""
    place = (job.spec.type, job.spec.priority, job.next_start, job.spec.id)
    return int(connection.execute(_AHEAD, (*place, _AHEAD_BOUND)).fetchone()[0])


def changes(connection: sqlite3.Connection, after: int, limit: int) -> tuple[list[Change], int]:
    """`Store.changes`. A cursor is good if its own row is still there: that alone tells that none after it is gone."""
    rows = connection.execute(_CHANGES, (after, limit + 1)).fetchall() if 0 <= after <= _MOST else []
    if not rows or rows[0][0] != after:
        msg = "changes after this position are no longer kept"
        raise ResumeTokenExpired(msg)
    found: list[Change] = []
    for _, gone, *row in rows[1:]:
        if gone is not None:
            found.append(Change(decode_spec(gone), None))
        elif row[0] is not None:
            job = job_of(row)
            found.append(Change(job.spec, job))
    return found, rows[-1][0]


def queue_counts(connection: sqlite3.Connection, lines: Iterable[tuple[Line, int]]) -> tuple[QueueCount, ...]:
    """What waits, line by line, joined by queue and type."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (job_type, queue, priority), depth in lines:
        row = connection.execute(_OLDEST, (job_type, queue, priority)).fetchone()
        if row is not None:
            known, oldest = found.get((queue, job_type), (0, row[0]))
            found[queue, job_type] = known + depth, min(oldest, row[0])
    return tuple(QueueCount(*place, *count) for place, count in found.items())
