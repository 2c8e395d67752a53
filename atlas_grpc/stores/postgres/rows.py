"""Jobs to columns, and back.

A claim does not rewrite a job's document: it sets a few columns and raises the version by one, and whoever reads the row
applies `lifecycle.started` to the document, with what the columns say. The next step stores a whole document again.
Payloads and results that are JSON stand in columns of text, for people; the document then has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ... import lifecycle
from ...model import Content, State
from .. import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...model import Job

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_encode_labels = msgspec.json.Encoder().encode
_NUL = "\x00"
_NUL_SHOWN = "\N{SYMBOL FOR NULL}"


def is_id(text: str) -> bool:
    """Whether a job can have this id here: ids are UUIDs in their usual form."""
    return _ID.fullmatch(text) is not None


def known_ids(ids: Iterable[str]) -> list[str]:
    """The ids that jobs can have, each once, in the order in which rows are locked."""
    return sorted({job_id for job_id in ids if is_id(job_id)})


def text(value: str) -> str:
    """As PostgreSQL can keep it: it has no NUL."""
    return value.replace(_NUL, _NUL_SHOWN) if _NUL in value else value


def decode(row: Sequence[Any]) -> Job:
    """The job of a row that begins with the columns of `{job}`."""
    version, session, worker, fence, attempt_start, result, state, spec, payload = row[:9]
    job = codec.decode_job(
        codec.decode_spec(spec, None if payload is None else Content(payload.encode())),
        state,
        None if result is None else Content(result.encode()),
    )
    if job.version == version:
        return job
    return lifecycle.started(job, attempt_start, session=session, worker=worker, fence=fence)


def by_id(rows: Iterable[Sequence[Any]]) -> dict[str, Job]:
    """The jobs of rows."""
    return {job.spec.id: job for job in map(decode, rows)}


def _readable(content: Content | None) -> str | None:
    """The text of JSON that can stand in a column."""
    if content is None or content.content_type is not None or b"\x00" in content.data:
        return None
    try:
        return content.data.decode()
    except UnicodeDecodeError:
        return None


def new_columns(jobs: Sequence[Job], places: Sequence[int]) -> tuple[Sequence[Any], ...]:
    """The arguments of insert.sql."""
    specs = [job.spec for job in jobs]
    payloads = [_readable(spec.payload) for spec in specs]
    return (
        [spec.id for spec in specs],
        [spec.namespace for spec in specs],
        [spec.type for spec in specs],
        [spec.queue for spec in specs],
        [spec.priority for spec in specs],
        [spec.request_id or None for spec in specs],
        [_encode_labels(spec.labels).decode() if spec.labels else None for spec in specs],
        [spec.create_time for spec in specs],
        [spec.retention for spec in specs],
        payloads,
        [codec.encode_spec(spec, payload=shown is None) for spec, shown in zip(specs, payloads, strict=True)],
        [job.version for job in jobs],
        [job.next_start for job in jobs],
        [job.due for job in jobs],
        [spec.attempt_timeout for spec in specs],
        [lifecycle.deadline(job) for job in jobs],
        [job.ready for job in jobs],
        places,
        [codec.encode_state(job) for job in jobs],
    )


def is_new(job: Job) -> bool:
    """Whether insert.sql keeps all of a job: it has not begun."""
    return job.state is State.PENDING and job.attempt == 0 and job.fence == 0 and job.result is None and job.error is None


def moved_columns(jobs: Sequence[Job], expected: Sequence[int], places: Sequence[int]) -> tuple[Sequence[Any], ...]:
    """The arguments of put.sql."""
    results = [_readable(job.result) for job in jobs]
    errors = [job.error for job in jobs]
    return (
        [job.spec.id for job in jobs],
        expected,
        [job.version for job in jobs],
        [int(job.state) for job in jobs],
        [job.ready for job in jobs],
        [job.next_start for job in jobs],
        [job.due for job in jobs],
        [job.session for job in jobs],
        [text(job.worker) for job in jobs],
        [job.fence for job in jobs],
        [job.attempt for job in jobs],
        [job.attempt_start for job in jobs],
        [lifecycle.deadline(job) for job in jobs],
        results,
        [None if error is None else text(error.reason) for error in errors],
        [None if error is None else text(error.message) for error in errors],
        [codec.encode_state(job, result=shown is None) for job, shown in zip(jobs, results, strict=True)],
        places,
    )
