"""How stores that keep bytes keep jobs: the spec, which never changes, apart from the state, which does.

Both are msgpack arrays of the fields of their records (`model`). A store that wants people to read payloads and results
keeps them in columns of their own; it encodes without them and hands them in again when it decodes.
"""

from __future__ import annotations

from msgspec import msgpack
from msgspec.structs import replace

from ..model import EMPTY_OBJECT, Content, Job, JobSpec, RetryPolicy

_NO_SPEC = JobSpec("", "", "", "", EMPTY_OBJECT, RetryPolicy(), 0, 0, 0)

_encode = msgpack.Encoder().encode
_decode_spec = msgpack.Decoder(JobSpec).decode
_decode_job = msgpack.Decoder(Job).decode


def encode_spec(spec: JobSpec, *, payload: bool = True) -> bytes:
    """A spec, with an empty payload unless it is wanted."""
    return _encode(spec if payload or spec.payload is EMPTY_OBJECT else replace(spec, payload=EMPTY_OBJECT))


def decode_spec(data: bytes, payload: Content | None = None) -> JobSpec:
    """A spec, with this payload where it was kept apart."""
    spec = _decode_spec(data)
    return spec if payload is None else replace(spec, payload=payload)


def encode_state(job: Job, *, result: bool = True) -> bytes:
    """All of a job but its spec, and its result if that is kept apart."""
    if result or job.result is None:
        return _encode(replace(job, spec=_NO_SPEC))
    return _encode(replace(job, spec=_NO_SPEC, result=None))


def decode_job(spec: JobSpec, state: bytes, result: Content | None = None) -> Job:
    """The job of a spec, with this result where it was kept apart."""
    job = _decode_job(state)
    return replace(job, spec=spec) if result is None else replace(job, spec=spec, result=result)
