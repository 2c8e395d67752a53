"""Request bytes, made once and completed per call by appending a field, so that the client does next to nothing."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from atlas_grpc import pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SERVICE = "/atlas.v1.JobService"
SUBMIT = f"{_SERVICE}/SubmitJob"
SUBMIT_MANY = f"{_SERVICE}/SubmitJobs"
RUN = f"{_SERVICE}/RunJob"
GET = f"{_SERVICE}/GetJob"
LIST = f"{_SERVICE}/ListJobs"
LIST_TYPES = f"{_SERVICE}/ListJobTypes"
WATCH = f"{_SERVICE}/WatchJob"
WATCH_MANY = f"{_SERVICE}/WatchJobs"
CANCEL = f"{_SERVICE}/CancelJob"
RAW = "/bench.Raw/Echo"
PACE = "/bench.Raw/Pace"

_LATER = 24 * 3600
"""Jobs that must not run start so many seconds from now."""
_ID_LENGTH = 36
_ID_FIELD = bytes((14 << 3 | 2, _ID_LENGTH))
"""The head of `request_id`, field 14 of SubmitJobRequest."""


def submit(kind: str, priority: int = 0) -> pb.SubmitJobRequest:
    """A job: `noop`, `nap` and `stamp` run at once, `behind` waits for one of its type that never ends (see
    stores/handlers.py), `later` does not start within the run, nor does `order`, which has a payload."""
    if kind not in ("later", "order"):
        return pb.SubmitJobRequest(type=kind, priority=priority)
    request = pb.SubmitJobRequest(type="order" if kind == "order" else "noop", priority=priority)
    request.start_delay.FromSeconds(_LATER)
    if kind == "order":
        request.payload.update(
            {"customer": "c-20417", "items": [3, 14, 15, 92], "total": 149.9, "paid": True, "note": "leave at the door"}
        )
    return request


def submits(kind: str, priority: int = 0) -> Iterator[bytes]:
    """SubmitJob requests, each with a request id of its own, as a good client library sends one."""
    template = submit(kind, priority).SerializeToString() + _ID_FIELD
    return (template + request_id for request_id in _request_ids())


def batches(kind: str, size: int, priority: int = 0) -> Iterator[bytes]:
    """SubmitJobs requests of so many jobs."""
    item = _item(kind, priority)
    ids = _request_ids()
    while True:
        yield b"".join([item + request_id for request_id in itertools.islice(ids, size)])


def runs(kind: str) -> Iterator[bytes]:
    """RunJob requests."""
    item = _item(kind)
    return (item + request_id for request_id in _request_ids())


def gets(ids: Sequence[str]) -> Iterator[bytes]:
    """GetJob requests for these jobs, round and round."""
    return itertools.cycle([pb.GetJobRequest(id=job_id).SerializeToString() for job_id in ids])


def _item(kind: str, priority: int = 0) -> bytes:
    """A SubmitJobRequest as field 1 of another message, up to its request id."""
    template = submit(kind, priority).SerializeToString() + _ID_FIELD
    return b"\x0a" + _varint(len(template) + _ID_LENGTH) + template


def _request_ids() -> Iterator[bytes]:
    start = os.urandom(10).hex().encode()
    return (b"%b%016d" % (start, number) for number in itertools.count())


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
