"""The operations that only read, each a function on a reader's connection.

Most find numbers first and then read the jobs of these. A job that is written between the two statements is told as it
is afterwards, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ResumeTokenExpired
from ..base import Change, Page, QueueCount
from ..codec import decode_spec
from .batches import jobs_by_id, jobs_by_number, select_list

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from ...model import Job
    from ..base import Filter
    from .ledger import Line

_FIND_BUDGET = 20_000
"""Jobs looked at in one call of `find`."""
_FIND_AT_ONCE = 500
_AHEAD_BOUND = 10_000
"""How far `ahead` counts."""
_MOST = 2**63 - 1

# ruff: noqa: S608 - statements are put together from constants and marks for parameters
_HELD = "select json_group_array(json_array(n)) from (select n from state where session = ? limit ?)"
_CHANGES = (
    "select json_group_array(json_array(f.seq, s.n, s.id, f.version, hex(f.gone)))"
    " from (select * from feed where seq >= ? order by seq limit ?) f"
    " left join state s on s.n = f.n and s.version = f.version"
)
_DUE = (
    "select json_group_array(json_array(due, id, n)) from ("
    "select due, id, n from (select due, id, n from state where due <= ?1 and state < 3 order by due, id limit ?2)"
    " union all"
    " select due, id, n from (select due, id, n from state where due <= ?1 and state >= 3 order by due, id limit ?2)"
    " order by due, id limit ?2)"
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
    found = jobs_by_id(connection, ids)
    return [found.get(job_id) for job_id in ids]


def find(connection: sqlite3.Connection, where: Filter, after: str | None, limit: int) -> Page:
    """`Store.find`."""
    if where.ids:
        return _find_named(connection, where, after, limit)
    last = _end_of_budget(connection, where.namespace, after)
    found: list[Job] = []
    at_once = min(limit + 1, _FIND_AT_ONCE)
    while len(found) <= limit:
        ids = sorted((row[0] for row in select_list(connection, *_listing(where, after, last, at_once))), reverse=True)
        found += [job for job in get(connection, ids) if job is not None and where.matches(job.spec, job.state)]
        if len(ids) < at_once:
            break
        after = ids[-1]
    if len(found) > limit:
        return Page(tuple(found[:limit]), found[limit - 1].spec.id if limit else after)
    return Page(tuple(found), last)


def _end_of_budget(connection: sqlite3.Connection, namespace: str, after: str | None) -> str | None:
    """The last job that one call looks at, unless it comes to the end."""
    term, place = ("", ()) if after is None else (" and id < ?", (after,))
    sql = f"select id from state where namespace = ?{term} order by id desc limit 1 offset ?"
    row = connection.execute(sql, (namespace, *place, _FIND_BUDGET - 1)).fetchone()
    return None if row is None else str(row[0])


def _listing(where: Filter, after: str | None, last: str | None, limit: int) -> tuple[Any, ...]:
    """The statement for the ids of a filter without its labels, newest first, between two places; its parameters."""
    terms = ["namespace = ?"]
    values: list[Any] = [where.namespace]
    for term, bound in (
        ("id < ?", after),
        ("id >= ?", last),
        ("created >= ?", where.created_from),
        ("created < ?", where.created_before),
    ):
        if bound is not None:
            terms.append(term)
            values.append(bound)
    states = sorted(int(state) for state in where.states)
    for column, chosen in (("state", states), ("type", sorted(where.types)), ("queue", sorted(where.queues))):
        if chosen:
            # The sign keeps the planner from another index than that of the namespace.
            terms.append(f"+{column} in ({','.join('?' * len(chosen))})")
            values += chosen
    inner = f"select id from state where {' and '.join(terms)} order by id desc limit ?"
    return f"select json_group_array(json_array(id)) from ({inner})", *values, limit


def _find_named(connection: sqlite3.Connection, where: Filter, after: str | None, limit: int) -> Page:
    ids = sorted((job_id for job_id in where.ids if after is None or job_id < after), reverse=True)
    found: list[Job] = []
    start = 0
    while start < len(ids) and len(found) <= limit:
        some = get(connection, ids[start : start + _FIND_AT_ONCE])
        found += [job for job in some if job is not None and where.matches(job.spec, job.state)]
        start += _FIND_AT_ONCE
    if len(found) > limit:
        return Page(tuple(found[:limit]), found[limit - 1].spec.id if limit else after)
    return Page(tuple(found), None)


def due(connection: sqlite3.Connection, now: int, limit: int) -> tuple[list[Job], int | None]:
    """`Store.due`."""
    rows = sorted(select_list(connection, _DUE, now, limit + 1))
    jobs = jobs_by_number(connection, [n for _, _, n in rows[:limit]])
    found = [job for _, job_id, _ in rows[:limit] if (job := jobs.get(job_id)) is not None]
    found = [job for job in found if job.due is not None and job.due <= now]
    if len(rows) > limit:
        return found, now
    (following,) = connection.execute(_NEXT_DUE, (now,)).fetchone()
    return found, following


def held(connection: sqlite3.Connection, session: str, limit: int) -> list[Job]:
    """`Store.held`."""
    jobs = jobs_by_number(connection, [n for (n,) in select_list(connection, _HELD, session, limit)])
    return [job for job in jobs.values() if job.session == session]


def ahead(connection: sqlite3.Connection, job: Job) -> int:
    """How many ready jobs of the same type and priority come before a job; counts up to a bound."""
    place = (job.spec.type, job.spec.priority, job.next_start, job.spec.id)
    return int(connection.execute(_AHEAD, (*place, _AHEAD_BOUND)).fetchone()[0])


def changes(connection: sqlite3.Connection, after: int, limit: int) -> tuple[list[Change], int]:
    """`Store.changes`. A cursor is good if its own row is still there: that alone tells that none after it is gone."""
    rows = sorted(select_list(connection, _CHANGES, after, limit + 1)) if 0 <= after <= _MOST else []
    if not rows or rows[0][0] != after:
        msg = "changes after this position are no longer kept"
        raise ResumeTokenExpired(msg)
    jobs = jobs_by_number(connection, [n for _, n, *_ in rows[1:] if n is not None])
    found: list[Change] = []
    for _, _, job_id, version, gone in rows[1:]:
        if gone:
            found.append(Change(decode_spec(bytes.fromhex(gone)), None))
        elif (job := jobs.get(job_id)) is not None and job.version == version:
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
