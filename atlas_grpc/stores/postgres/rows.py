"""Rows to jobs; the other way is in `columns`.

A claim does not rewrite a job's document: it sets a few columns and raises the version by one, and whoever reads the
row applies `lifecycle.started` to the document, with what the columns say. The next step stores a whole document again.
Payloads and results that are JSON stand in columns of text, for people; the document then has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ... import lifecycle
from ...model import Content
from .. import codec

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

    from ...model import Job

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    """Whether a job can have this id here: ids are UUIDs in their usual form."""
    return _ID.fullmatch(text) is not None


def known_ids(ids: Iterable[str]) -> list[str]:
    """The ids that jobs can have, each once, in the order in which rows are locked."""
    return sorted({job_id for job_id in ids if is_id(job_id)})


def decode(row: asyncpg.Record) -> Job:
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


def by_id(rows: Iterable[asyncpg.Record]) -> dict[str, Job]:
    """The jobs of rows."""
    return {job.spec.id: job for job in map(decode, rows)}


def claimed(row: asyncpg.Record, session: str, worker: str, now: int) -> Job:
    """The job of a row that a claim answered: its document is of the version before."""
    fence, state, spec, payload = row[:4]
    job = codec.decode_job(codec.decode_spec(spec, None if payload is None else Content(payload.encode())), state)
    return lifecycle.started(job, now, session=session, worker=worker, fence=fence)
