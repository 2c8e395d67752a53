"""Many rows in few steps.

Python's sqlite3 lets go of the interpreter lock for each step of a statement: each row that is read, each row of an
`executemany`. While the event loop is busy, taking it back costs up to 5 ms, each time. So rows are written by
statements with many value lists, and read as one row that holds them all: lists of numbers and names as JSON, records
as one long blob and the lengths of its parts. That costs the engine no more than row by row.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from ...model import Content
from ..codec import decode_job, decode_spec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from ...model import Job

_SIZES = (64, 16, 4, 1)
"""Of value lists in a statement: few sizes, so that statements stay prepared."""
_LIST_SIZES = (1, 8, 64, 512)

_JOBS = (
    "select json_group_array(json_array(length(s.doc), ifnull(length(cast(s.result as blob)), -1), length(p.doc),"
    " ifnull(length(cast(p.payload as blob)), -1))),"
    " cast(group_concat(s.doc || ifnull(s.result, '') || p.doc || ifnull(p.payload, ''), '') as blob)"
    " from state s join spec p on p.n = s.n where {key} in (?*)"
)
_BY_ID = _JOBS.replace("{key}", "s.id")
_BY_NUMBER = _JOBS.replace("{key}", "s.n")
_JOBS_AT_ONCE = 64
"""A job may take some MiB."""

_lengths = msgspec.json.Decoder(list[tuple[int, int, int, int]]).decode
_rows = msgspec.json.Decoder(list[list[Any]]).decode


@lru_cache(256)
def repeated(sql: str, what: str, count: int) -> str:
    """A statement in which `?*` became a list of so many marks."""
    return sql.replace("?*", ",".join([what] * count))


def write_rows(connection: sqlite3.Connection, sql: str, marks: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Executes a statement for all rows; in it, `?*` stands for the lists of parameters, each like `marks`."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            values = list(chain.from_iterable(rows[start : start + size]))
            connection.execute(repeated(sql, marks, size), values)
            start += size


def lists(keys: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """The keys in lists of few sizes; the last one is filled up with a repeat."""
    for start in range(0, len(keys), most):
        chunk = list(keys[start : start + most])
        size = next(size for size in _LIST_SIZES if size >= len(chunk))
        yield chunk + [chunk[-1]] * (size - len(chunk))


def for_all(connection: sqlite3.Connection, sql: str, keys: Sequence[Any], *before: Any) -> None:
    """Executes a statement in which `?*` stands for the keys; `before` are the parameters before these."""
    for some in lists(keys, _LIST_SIZES[-1]):
        connection.execute(repeated(sql, "?", len(some)), (*before, *some))


def select_list(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[list[Any]]:
    """The rows of a query whose only row is a JSON array of them."""
    (text,) = connection.execute(sql, parameters).fetchone()
    return _rows(text)


def select_in(connection: sqlite3.Connection, sql: str, keys: Sequence[Any], *before: Any) -> Iterator[list[Any]]:
    """The same for all keys, which `?*` stands for; in no order."""
    for some in lists(keys, _LIST_SIZES[-1]):
        yield from select_list(connection, repeated(sql, "?", len(some)), *before, *some)


def rows_in(connection: sqlite3.Connection, sql: str, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of an ordinary query for all keys, one by one; in no order."""
    for some in lists(keys, _LIST_SIZES[-1]):
        yield from connection.execute(repeated(sql, "?", len(some)), some).fetchall()


def jobs_by_id(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Job]:
    """Stored jobs."""
    return {job.spec.id: job for job in _jobs(connection, _BY_ID, ids)}


def jobs_by_number(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[str, Job]:
    """Stored jobs, by id."""
    return {job.spec.id: job for job in _jobs(connection, _BY_NUMBER, numbers)}


def _jobs(connection: sqlite3.Connection, sql: str, keys: Sequence[Any]) -> Iterator[Job]:
    for some in lists(keys, _JOBS_AT_ONCE):
        lengths, blob = connection.execute(repeated(sql, "?", len(some)), some).fetchone()
        at = 0
        for state, result, spec, payload in _lengths(lengths):
            after_state = at + state
            after_result = after_state + max(result, 0)
            after_spec = after_result + spec
            end = after_spec + max(payload, 0)
            yield decode_job(
                decode_spec(blob[after_result:after_spec], None if payload < 0 else Content(blob[after_spec:end])),
                blob[at:after_state],
                None if result < 0 else Content(blob[after_state:after_result]),
            )
            at = end
