"""From records to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...model import State
from ..codec import encode_spec, encode_state
from .batches import write_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from ...model import Content, Job, JobSpec

# A parameter that is None, a bool or bytes makes the sqlite3 module look for an adapter, which costs more than all the
# rest of a row. So what is absent comes as another value and becomes null here, and bytes come as bytearrays.
_NO_TIME = -(2**63)
_STATE = (
    f"?, ?, ?, ?, nullif(?, {_NO_TIME}), nullif(?, ''), ?, ?, nullif(?, 0), nullif(?, {_NO_TIME}), ?,"
    " nullif(cast(? as text), ''), nullif(?, ''), ?"
)
_CHANGING = (
    "version", "state", "ready", "next_start", "due", "session", "fence", "attempt", "started", "finished", "doc",
    "result", "error",
)  # fmt: skip
# ruff: noqa: S608 - statements are put together from constants
_INSERT_STATE = (
    f"insert into state ({', '.join(_CHANGING)}, n, id, namespace, type, queue, priority, created) values ?*"
)
_INSERT_STATE_MARKS = f"({_STATE}, ?, ?, ?, ?, ?, ?)"
_INSERT_SPEC = "insert into spec (n, doc, payload) values ?*"
_INSERT_SPEC_MARKS = "(?, ?, nullif(cast(? as text), ''))"
_UPDATE_STATE = (
    "update state set "
    + ", ".join(f"{column} = v.column{at}" for at, column in enumerate(_CHANGING, 1))
    + f" from (values ?*) v where state.n = v.column{len(_CHANGING) + 1}"
)
_UPDATE_STATE_MARKS = f"({_STATE})"
_NOTHING = bytearray()

_Row = tuple[Any, ...]


def _state_row(job: Job, n: int) -> _Row:
    """The values of `_CHANGING`, and the number."""
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


def _insert_row(job: Job, n: int) -> _Row:
    spec = job.spec
    return (*_state_row(job, n), spec.id, spec.namespace, spec.type, spec.queue, spec.priority, spec.create_time)


def _spec_row(spec: JobSpec, n: int) -> _Row:
    payload = spec.payload
    apart = _stands_apart(payload)
    return n, bytearray(encode_spec(spec, payload=not apart)), bytearray(payload.data) if apart else _NOTHING


def insert_jobs(connection: sqlite3.Connection, jobs: Sequence[tuple[int, Job]]) -> None:
    """Writes new jobs under their numbers, and their names."""
    write_rows(connection, _INSERT_STATE, _INSERT_STATE_MARKS, [_insert_row(job, n) for n, job in jobs])
    write_rows(connection, _INSERT_SPEC, _INSERT_SPEC_MARKS, [_spec_row(job.spec, n) for n, job in jobs])
    names = [(job.spec.namespace, job.spec.request_id, n) for n, job in jobs if job.spec.request_id]
    write_rows(connection, "insert into name (namespace, request_id, n) values ?*", "(?, ?, ?)", names)


def update_jobs(connection: sqlite3.Connection, jobs: Mapping[int, Job]) -> None:
    """Writes the next records of stored jobs, by number."""
    write_rows(connection, _UPDATE_STATE, _UPDATE_STATE_MARKS, [_state_row(job, n) for n, job in jobs.items()])
