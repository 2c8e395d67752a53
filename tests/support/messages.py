"""Random messages of the contract, made from the descriptors: sane and absurd, always on the wire's terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from atlas_grpc import pb

if TYPE_CHECKING:
    import random

    from google.protobuf.message import Message

REQUESTS = (
    pb.SubmitJobRequest,
    pb.SubmitJobsRequest,
    pb.RunJobRequest,
    pb.GetJobRequest,
    pb.ListJobsRequest,
    pb.WatchJobRequest,
    pb.WatchJobsRequest,
    pb.CancelJobRequest,
    pb.RetryJobRequest,
    pb.DeleteJobRequest,
    pb.ExplainJobRequest,
    pb.ListJobLogsRequest,
    pb.TailJobLogsRequest,
    pb.ListJobTypesRequest,
)

_TEXTS = (
    "", "a", "sleep", "default", "REASON_ONE", "text/plain", "x" * 63, "x" * 64, "x" * 128, "x" * 129, "x" * 256,
    "Ünïcödé",
    "a b", "a\0b", "line\nbreak", "trailing\n", "\U0001f600" * 40, "../..", "%s%n", "-1", "\ufeff", "\x7f", "a.b-c_d/e",
)  # fmt: skip
_INTS = (0, 1, -1, 2, 5, 100, 101, -100, -101, 999, 1000, 1001, 2**31 - 1, -(2**31))
_LONGS = (*_INTS, 600, 601, 604800, 604801, 2592000, 31622400, 31622401, 315360000, 2**53, 2**62, 2**63 - 1, -(2**63))
_DOUBLES = (0.0, 1.0, 0.5, -0.0, -1.0, 2.0, 100.0, 100.5, 1e308, 5e-324, math.nan, math.inf, -math.inf, 2.0**53)
_BYTES = (b"", b"x", b"\0\xff", b"{}", b"x" * 5000)

_SCALARS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
    FieldDescriptor.CPPTYPE_INT32: _INTS,
    FieldDescriptor.CPPTYPE_INT64: _LONGS,
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, 1.5),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 5, 6, 99, -1),
}
"""What the fields of each type are filled with."""


def random_message(kind: type[Message], rng: random.Random) -> Any:
    """A message with some of its fields set."""
    message = kind()
    _fill(message, rng, depth=0)
    return message


def _fill(message: Any, rng: random.Random, depth: int) -> None:
    likely = rng.choice((0.1, 0.3, 0.6)) / (1 + depth / 3)
    for field in message.DESCRIPTOR.fields:
        if rng.random() < (0.9 if field.name in ("type", "id") else likely):
            _set(message, field, rng, depth)


def _set(message: Any, field: FieldDescriptor, rng: random.Random, depth: int) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        for _ in range(rng.choice((1, 2, 40))):
            _put(getattr(message, field.name), inner, rng, depth)
    elif field.is_repeated:
        for _ in range(rng.choice((1, 2, 3, 20))):
            if inner is None:
                getattr(message, field.name).append(_scalar(field, rng))
            elif depth < 12:
                _fill(getattr(message, field.name).add(), rng, depth + 1)
    elif inner is None:
        setattr(message, field.name, _scalar(field, rng))
    elif depth < 12:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill(target, rng, depth + 1)


def _put(target: Any, entry: Any, rng: random.Random, depth: int) -> None:
    value = entry.fields_by_name["value"]
    key = rng.choice(_TEXTS) + (str(rng.randrange(50)) if rng.random() < 0.5 else "")
    if value.message_type is None:
        target[key] = _scalar(value, rng)
    elif depth < 12:
        _fill(target[key], rng, depth + 1)


def _scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice(_BYTES)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and field.enum_type.is_closed:
        return rng.choice(field.enum_type.values).number
    return rng.choice(_SCALARS[field.cpp_type])
