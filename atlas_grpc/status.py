"""Errors on the wire: `AtlasError` <-> `google.rpc.Status` with its standard details. Imports no gRPC.

A status of a call travels in the trailers, once as `grpc-status-details-bin` (base64: 4/3 of its size) and once as
`grpc-message`, and many peers refuse more than 8 KiB of trailers. So a status is kept below `STATUS_LIMIT`: the message
and the descriptions are cut, and violations that do not fit are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from .errors import BY_CODE, BY_REASON, DOMAIN, AtlasError, FailedPrecondition, Unknown, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeVar

    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

MESSAGE_LIMIT = 2048
"""Bytes of UTF-8 in the message of a status."""
STATUS_LIMIT = 4096
"""Bytes of a whole status that answers a call."""
MAX_VIOLATIONS = 20
MAX_RETRY_AFTER = 315_576_000_000
"""Seconds that a `google.protobuf.Duration` can hold."""

_METADATA_LIMIT = 1024
_REASON_LIMIT = 63
_NAME_LIMIT = 128
_TEXT_LIMIT = 200


def to_status(err: AtlasError) -> Status:
    """The status that answers a call which raised `err`; at most `STATUS_LIMIT` bytes."""
    # A header carries the message percent-encoded, three bytes for each that is not ASCII.
    limit = MESSAGE_LIMIT if err.message.isascii() else MESSAGE_LIMIT // 3
    status = Status(code=err.code, message=cut(err.message, limit))
    _add(status, _error_info(err.reason, err.metadata))
    if err.resource is not None:
        kind, name = err.resource
        _add(status, ResourceInfo(resource_type=cut(kind, _NAME_LIMIT), resource_name=cut(name, _TEXT_LIMIT)))
    if err.retry_after is not None:
        _add(status, RetryInfo(retry_delay=_duration(err.retry_after)))
    if isinstance(err, FailedPrecondition):
        _add(status, _precondition_failure(err))
    if err.violations:
        _add(status, _bad_request(err.violations, STATUS_LIMIT - status.ByteSize() - 64))
    return status


def from_status(status: Status) -> AtlasError:
    """The exception that a status stands for; the inverse of `to_status`, for statuses of any origin.

    A reason of Atlas chooses the class; another origin or an unknown reason leaves it to the code.
    """
    info = _detail(status, ErrorInfo) or ErrorInfo()
    ours = info.domain == DOMAIN
    resource = _detail(status, ResourceInfo)
    retry = _detail(status, RetryInfo)
    bad = _detail(status, BadRequest) or BadRequest()
    return _class(status.code, info.reason if ours else "")(
        status.message,
        reason=(info.reason or None) if ours else None,
        metadata=info.metadata,
        violations=[Violation(v.field, v.description) for v in bad.field_violations],
        resource=(resource.resource_type, resource.resource_name) if resource else None,
        retry_after=_seconds(retry.retry_delay) if retry else None,
    )


def failure_status(code: int, reason: str, message: str) -> Status:
    """The status in `Job.error` and `Attempt.error`: why work failed, with an ErrorInfo of `reason`."""
    status = Status(code=code, message=cut(message, MESSAGE_LIMIT))
    _add(status, _error_info(reason, {}))
    return status


def reason_of(status: Status) -> str:
    """The reason in the ErrorInfo of a status, whatever its domain; empty when it has none."""
    info = _detail(status, ErrorInfo)
    return info.reason if info else ""


def cut(text: str, limit: int) -> str:
    """The text, as it is or cut to `limit` bytes of UTF-8 with an ellipsis; what cannot be encoded becomes `?`."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode("utf-8", "ignore") + "…"


def _class(code: int, reason: str) -> type[AtlasError]:
    named = BY_REASON.get(reason)
    if named is not None and named is not AtlasError and named.code == code:
        return named
    return next((cls for known, cls in BY_CODE.items() if known == code), Unknown)


def _add(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _error_info(reason: str, metadata: Mapping[str, str]) -> ErrorInfo:
    info = ErrorInfo(reason=cut(reason, _REASON_LIMIT), domain=DOMAIN)
    room = _METADATA_LIMIT
    for key, value in metadata.items():
        name, text = cut(key, _REASON_LIMIT), cut(value, _TEXT_LIMIT)
        room -= len(name.encode()) + len(text.encode()) + 8
        if room < 0:
            break
        info.metadata[name] = text
    return info


def _precondition_failure(err: AtlasError) -> PreconditionFailure:
    failure = PreconditionFailure()
    failure.violations.add(
        type=cut(err.reason, _REASON_LIMIT),
        subject=cut(err.metadata.get("job_id", ""), _REASON_LIMIT),
        description=cut(err.message, _NAME_LIMIT),
    )
    return failure


def _bad_request(violations: Iterable[Violation], room: int) -> BadRequest:
    bad = BadRequest()
    for index, violation in enumerate(violations):
        one = BadRequest.FieldViolation(
            field=cut(violation.field, _NAME_LIMIT), description=cut(violation.description, _TEXT_LIMIT)
        )
        room -= one.ByteSize() + 3
        if index == MAX_VIOLATIONS or room < 0:
            break
        bad.field_violations.append(one)
    return bad


def _duration(seconds: float) -> Duration:
    nanos = round(min(max(seconds, 0.0), MAX_RETRY_AFTER) * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _detail(status: Status, kind: type[M]) -> M | None:
    for packed in status.details:
        if packed.TypeName() == kind.DESCRIPTOR.full_name:
            detail = kind()
            try:
                packed.Unpack(detail)
            except DecodeError:
                return None
            return detail
    return None
