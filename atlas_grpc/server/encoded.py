"""The hottest answers as bytes, put together from parts that are encoded once.

The encoding of a message is the concatenation of the encodings of its fields, in any order. Jobs that were just
submitted differ from each other in little more than id and time, and a job is often read several times while it does
not change. Building the message anew costs a busy server a quarter of the call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from .. import pb
from ..errors import AtlasError
from ..model import SECOND
from ..status import to_status
from .convert import fill_job, fill_submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor

    from ..engine.engine import Submitted
    from ..model import Job, RetryPolicy

_MAX_PARTS = 1_024
_MAX_READS = 2_048
_MAX_READ_BYTES = 8_192
_LENGTH_DELIMITED = 2


def _tag(descriptor: Descriptor, name: str) -> bytes:
    return _varint(descriptor.fields_by_name[name].number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_LENGTHS = [_varint(number) for number in range(4_096)]


def _nested(tag: bytes, body: bytes) -> bytes:
    size = len(body)
    return tag + (_LENGTHS[size] if size < len(_LENGTHS) else _varint(size)) + body


_OUTCOMES = _tag(pb.SubmitJobsResponse.DESCRIPTOR, "outcomes")
_RESPONSE = _tag(pb.SubmitJobsResponse.Outcome.DESCRIPTOR, "response")
_ERROR = _tag(pb.SubmitJobsResponse.Outcome.DESCRIPTOR, "error")
_JOB = _tag(pb.SubmitJobResponse.DESCRIPTOR, "job")
_FIELD = {name: _tag(pb.Job.DESCRIPTOR, name) for name in (
    "id", "request_id", "labels", "create_time", "update_time", "start_time", "next_start_time", "start_deadline",
    "deadline",
)}  # fmt: skip
"""What new jobs of a kind differ in, by name: the tags of these fields."""
_ID, _REQUEST_ID, _, _CREATED, _UPDATED, _START, _NEXT_START, _START_DEADLINE, _DEADLINE = _FIELD.values()

_parts: dict[tuple[object, ...], tuple[RetryPolicy, bytes]] = {}
"""Parts by what they depend on, the policy by its identity; it is kept so that no other one takes its place."""


def submitted(answer: Submitted) -> bytes:
    """The encoded SubmitJobResponse."""
    job = answer.job
    if answer.deduplicated or job.version > 1:
        response = pb.SubmitJobResponse()
        fill_submitted(response, answer)
        return response.SerializeToString()
    spec = job.spec
    times = _instants(spec.create_time, job.start_time, spec.start_timeout, spec.total_timeout, job.ready)
    parts = [_nested(_ID, spec.id.encode()), times, _constant(job)]
    if spec.request_id:
        parts.append(_nested(_REQUEST_ID, spec.request_id.encode()))
    if spec.labels:
        parts.append(pb.Job(labels=spec.labels).SerializeToString())
    return _nested(_JOB, b"".join(parts))


@lru_cache(maxsize=256)
def _instants(created: int, start: int, start_timeout: int | None, total_timeout: int | None, ready: bool) -> bytes:
    """The encoded instants of a new job. Those of a batch are often the same."""
    first = _stamp(start)
    parts = [_CREATED, (stamp := _stamp(created)), _UPDATED, stamp, _START, first]
    if not ready:
        parts += (_NEXT_START, first)
    if start_timeout is not None:
        parts += (_START_DEADLINE, _stamp(start + start_timeout))
    if total_timeout is not None:
        parts += (_DEADLINE, _stamp(start + total_timeout))
    return b"".join(parts)


def _stamp(at: int) -> bytes:
    """An encoded Timestamp behind its length."""
    seconds, rest = divmod(at, SECOND)
    return _nested(b"", Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString())


def outcomes(answers: Sequence[Submitted | AtlasError]) -> bytes:
    """The encoded SubmitJobsResponse."""
    return b"".join(
        _nested(
            _OUTCOMES,
            _nested(_ERROR, to_status(answer).SerializeToString())
            if isinstance(answer, AtlasError)
            else _nested(_RESPONSE, submitted(answer)),
        )
        for answer in answers
    )


def _constant(job: Job) -> bytes:
    """The encoded fields that new jobs of the same kind share."""
    spec = job.spec
    key = (
        spec.namespace,
        spec.type,
        spec.queue,
        spec.priority,
        id(spec.retry),
        spec.attempt_timeout,
        spec.total_timeout,
        spec.start_timeout,
        spec.retention,
        job.ready,
    )
    known = _parts.get(key)
    if known is None:
        message = pb.Job()
        fill_job(message, job)
        for name in _FIELD:
            message.ClearField(name)  # type: ignore[arg-type]
        if len(_parts) >= _MAX_PARTS:
            _parts.clear()
        known = _parts[key] = spec.retry, message.SerializeToString()
    return known[1]


class ReadCache:
    """Encoded answers to reads, by what they were made of. Bounded: when it is full it starts over."""

    def __init__(self) -> None:
        self._answers: dict[tuple[object, ...], bytes] = {}

    def get(self, key: tuple[object, ...]) -> bytes | None:
        return self._answers.get(key)

    def put(self, key: tuple[object, ...], answer: bytes) -> None:
        if len(answer) <= _MAX_READ_BYTES:
            if len(self._answers) >= _MAX_READS:
                self._answers.clear()
            self._answers[key] = answer
