"""The hottest answers as bytes, put together from parts that are encoded once.

The encoding of a message is the concatenation of the encodings of its fields, in any order. Jobs that were just
submitted differ from each other in little more than id and time, and a job is often read several times while it does
not change. Building the message anew costs a busy server a quarter of the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from .. import pb
from ..errors import AtlasError
from ..model import SECOND, Cause
from ..status import to_status
from .convert import fill_job, fill_submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor

    from ..engine.engine import Submitted
    from ..model import Job

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
_ID = _tag(pb.Job.DESCRIPTOR, "id")
_REQUEST_ID = _tag(pb.Job.DESCRIPTOR, "request_id")
_TIMES = [_tag(pb.Job.DESCRIPTOR, name) for name in ("start_time", "create_time", "update_time")]
_VARYING = ("id", "request_id", "start_time", "create_time", "update_time")

_parts: dict[tuple[object, ...], bytes] = {}


def submitted(answer: Submitted) -> bytes:
    """The encoded SubmitJobResponse."""
    job = answer.job
    if answer.deduplicated or not _is_plain(job):
        response = pb.SubmitJobResponse()
        fill_submitted(response, answer)
        return response.SerializeToString()
    spec = job.spec
    stamp = Timestamp(seconds=spec.create_time // SECOND, nanos=spec.create_time % SECOND * 1000).SerializeToString()
    time = bytes((len(stamp),)) + stamp
    first, second, third = _TIMES
    name = _nested(_ID, spec.id.encode())
    key = _nested(_REQUEST_ID, spec.request_id.encode()) if spec.request_id else b""
    return _nested(_JOB, b"".join((name, key, first, time, second, time, third, time, _constant(job))))


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


def _is_plain(job: Job) -> bool:
    """Whether a job is new, ready at once and without labels and deadlines."""
    spec = job.spec
    return (
        job.version == 1
        and job.ready
        and not spec.labels
        and spec.total_timeout is None
        and spec.start_timeout is None
        and job.history[-1].cause is Cause.SUBMITTED
    )


def _constant(job: Job) -> bytes:
    """The encoded fields that jobs of the same kind share."""
    spec = job.spec
    key = (spec.namespace, spec.type, spec.queue, spec.priority, spec.retry, spec.attempt_timeout, spec.retention)
    part = _parts.get(key)
    if part is None:
        message = pb.Job()
        fill_job(message, job)
        for name in _VARYING:
            message.ClearField(name)  # type: ignore[arg-type]
        part = message.SerializeToString()
        if len(_parts) >= _MAX_PARTS:
            _parts.clear()
        _parts[key] = part
    return part


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
