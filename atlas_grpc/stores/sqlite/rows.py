"""Between records and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...model import Content, Job, JobSpec, State
from ..codec import decode_job, decode_spec, encode_spec, encode_state

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

JOB = "s.doc, cast(s.result as blob), p.doc, cast(p.payload as blob)"
"""The columns of a whole job, of `state s` and `spec p`."""

# A parameter that is None, a bool or bytes makes the sqlite3 module look for an adapter, which costs more than all the
# rest of a row. So what is absent comes as another value and becomes null here, and bytes come as bytearrays.
_NO_TIME = -(2**63)
_STATE = (
    f"?, ?, ?, ?, nullif(?, {_NO_TIME}), nullif(?, ''), ?, ?, nullif(?, 0), nullif(?, {_NO_TIME}), ?,"
    " nullif(cast(? as text), ''), nullif(?, ''), ?"
)
# ruff: noqa: S608 - statements are put together from constants
INSERT_STATE = (
    "insert into state (version, state, ready, next_start, due, session, fence, attempt, started, finished, doc, result,"
    f" error, n, id, namespace, type, queue, priority, created) values ({_STATE}, ?, ?, ?, ?, ?, ?)"
)
INSERT_SPEC = "insert into spec (n, doc, payload) values (?, ?, nullif(cast(? as text), ''))"
UPDATE_STATE = (
    "update state set (version, state, ready, next_start, due, session, fence, attempt, started, finished, doc, result,"
    f" error) = ({_STATE[:-3]}) where n = ?"
)
_NOTHING = bytearray()

_Row = tuple[Any, ...]


def job_of(row: Sequence[Any]) -> Job:
    """The job of the columns `JOB`."""
    state, result, spec, payload = row
    return decode_job(
        decode_spec(spec, None if payload is None else Content(payload)),
        state,
        None if result is None else Content(result),
    )


def state_row(job: Job, n: int) -> _Row:
    """The parameters of `UPDATE_STATE`, and the first ones of `INSERT_STATE`."""
    due, finished, result, error = job.due, job.finish_time, job.result, job.error
    apart = result is not None and _stands_apart(result)
    return (
        job.version,
        int(job.state),
        1 if job.ready else 0,
        job.next_start,
        _NO_TIME if due is None else due,
        job.session if job.state is State.RUNNING else "",
        job.fence,
        job.attempt,
        job.attempt_start,
        _NO_TIME if finished is None else finished,
        bytearray(encode_state(job, result=not apart)),
        bytearray(result.data) if result is not None and apart else _NOTHING,
        "" if error is None else f"{error.reason}: {error.message}",
        n,
    )


def _stands_apart(content: Content) -> bool:
    """Whether a payload or result has a column of its own, for people to read."""
    return content.is_json and content.data != b""


def insert_row(job: Job, n: int) -> _Row:
    """The parameters of `INSERT_STATE`."""
    spec = job.spec
    return (*state_row(job, n), spec.id, spec.namespace, spec.type, spec.queue, spec.priority, spec.create_time)


def spec_row(spec: JobSpec, n: int) -> _Row:
    """The parameters of `INSERT_SPEC`."""
    payload = spec.payload
    apart = _stands_apart(payload)
    return n, bytearray(encode_spec(spec, payload=not apart)), bytearray(payload.data) if apart else _NOTHING


def insert_jobs(connection: sqlite3.Connection, numbered: Iterable[tuple[int, Job]]) -> None:
    """Writes new jobs, and their names."""
    jobs = list(numbered)
    connection.executemany(INSERT_STATE, [insert_row(job, n) for n, job in jobs])
    connection.executemany(INSERT_SPEC, [spec_row(job.spec, n) for n, job in jobs])
    names = [(job.spec.namespace, job.spec.request_id, n) for n, job in jobs if job.spec.request_id]
    if names:
        connection.executemany("insert into name (namespace, request_id, n) values (?, ?, ?)", names)
