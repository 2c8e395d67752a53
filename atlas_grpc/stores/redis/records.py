"""How a job lies in Redis.

Two strings for each job, because they go by different ways: `{prefix}:spec:<id>`, which never changes and may hold a
large payload, and `{prefix}:job:<id>`, which each step replaces. The second is a msgpack array: a head of those fields
that the scripts decide by and that say in which indexes the job stands, and behind it the state as `codec` encodes it.
Strings,
not hashes: a script reads or writes those of a hundred jobs with one MGET or MSET, and one that has fields longer than
64 bytes takes three times the memory as a hash.

A claim, the hottest step, writes a new head in front of the old state: the script need not understand the state, and
whoever reads a head that is one version ahead applies `lifecycle.started`, the one place where that rule stands.

`span` and `deadline` tell the claim when the attempt will be due; they are set while the job is ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import msgpack

from ... import lifecycle
from ..codec import decode_job, decode_spec, encode_state

if TYPE_CHECKING:
    from ...model import Job, JobSpec

_EXACT = 2**53
_JOB_OVERHEAD = 1_000
"""Bytes that a job takes in keys and indexes beside its strings; docs/stores/redis.md tells how it was measured."""


class Stored(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The string of a job. The scripts know the order of the fields (lua/prelude.lua)."""

    version: int
    state: int
    type: str
    queue: str
    priority: int
    ready_since: str | None
    due: str | None
    """Instants as text: scripts hand them on as scores."""
    session: str
    fence: int | str
    """As text when it is larger than a script's numbers are exact."""
    attempt: int
    span: int | None
    deadline: int | None
    worker: str | None
    """Of a claim whose step is not in `doc`."""
    began: int | None
    """The same."""
    size: int
    """About how many bytes the job takes beside this string."""
    doc: msgspec.Raw


_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(Stored).decode


def encode(job: Job) -> bytes:
    """The string of a job."""
    spec = job.spec
    ready = job.ready
    return _encode(
        Stored(
            job.version,
            job.state,
            spec.type,
            spec.queue,
            spec.priority,
            str(job.next_start) if ready else None,
            None if job.due is None else str(job.due),
            job.session,
            token(job.fence),
            job.attempt,
            spec.attempt_timeout if ready else None,
            lifecycle.deadline(job) if ready else None,
            None,
            None,
            size(spec),
            msgspec.Raw(encode_state(job)),
        )
    )


def decode(spec: bytes, stored: bytes) -> Job:
    """The job of both strings."""
    return decode_with(decode_spec(spec), stored)


def decode_with(spec: JobSpec, stored: bytes) -> Job:
    """The same, for a spec that is known."""
    head = _decode(stored)
    job = decode_job(spec, head.doc)
    if job.version == head.version or head.worker is None or head.began is None:
        return job
    return lifecycle.started(job, head.began, session=head.session, worker=head.worker, fence=int(head.fence))


def token(fence: int) -> int | str:
    """A token as scripts compare it."""
    return fence if fence < _EXACT else str(fence)


def size(spec: JobSpec) -> int:
    """About how many bytes the part of a job takes that never changes."""
    return _JOB_OVERHEAD + len(spec.payload.data) + 100 * len(spec.labels)
