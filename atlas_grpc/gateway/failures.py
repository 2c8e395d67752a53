"""What goes wrong, as HTTP: a `google.rpc.Status` in JSON, with the status code that grpc-gateway gives it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from ..errors import (
    BY_CODE,
    HTTP_STATUS,
    AtlasError,
    Code,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RequestTooLarge,
    Unimplemented,
)
from ..status import to_status
from .printing import print_any

if TYPE_CHECKING:
    import grpc.aio

    from .scalars import Malformed

Headers = list[tuple[bytes, bytes]]
DETAILS_KEY = "grpc-status-details-bin"
_PRIVATE = {Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}
_NEUTRAL = {
    Code.UNKNOWN: "the server failed",
    Code.INTERNAL: "the server failed",
    Code.DATA_LOSS: "the server failed",
    Code.UNAVAILABLE: "the server cannot be reached now",
    Code.RESOURCE_EXHAUSTED: "a limit of the server is reached",
}


class Failure(Exception):
    """Ends a request. `status` is its answer, `http` the status code, `headers` go with it."""

    def __init__(self, status: Status, http: int | None = None, headers: Headers | None = None) -> None:
        super().__init__(status.code)
        self.status = status
        self.http = http or http_status(status.code)
        self.headers = [*(headers or []), *_standing_headers(status, self.http)]

    @classmethod
    def of(cls, err: AtlasError, http: int | None = None, headers: Headers | None = None) -> Failure:
        return cls(to_status(err), http, headers)

    def body(self) -> bytes:
        return msgspec.json.encode(error_object(self.status))


class Disconnected(Exception):
    """The client went away; nobody reads an answer."""


def http_status(code: int) -> int:
    """The HTTP status of a gRPC code, also of one that does not exist."""
    try:
        return HTTP_STATUS[Code(code)]
    except ValueError:
        return 500


def error_object(status: Status) -> dict[str, object]:
    """The error body of grpc-gateway."""
    return {"code": status.code, "message": status.message, "details": [print_any(one) for one in status.details]}


def malformed(err: Malformed) -> Failure:
    """400 for a body, query or path that does not fit the request message."""
    if err.path:
        return Failure.of(InvalidArgument.of(err.path, err.description))
    return Failure.of(InvalidArgument.of("body", err.description))


def unknown_path() -> Failure:
    """404, code 5."""
    return Failure.of(NotFound("there is nothing at this path", reason="PATH_NOT_FOUND"))


def wrong_method(allowed: list[str]) -> Failure:
    """405. The Go gateway answers 501 here; the gRPC code is the same."""
    allow = ", ".join(allowed)
    error = Unimplemented(f"this path takes only {allow}", reason="METHOD_NOT_ALLOWED", metadata={"allow": allow})
    return Failure.of(error, 405, [(b"allow", allow.encode())])


def wrong_content_type() -> Failure:
    """415. The Go gateway takes any content type, and so what a page of another site can send unasked."""
    error = InvalidArgument("the content type must be application/json", reason="UNSUPPORTED_MEDIA_TYPE")
    return Failure.of(error, 415, [(b"accept", b"application/json")])


def too_large(limit: int) -> Failure:
    """413, where gRPC's code alone would say 429."""
    error = RequestTooLarge(f"a request may have at most {limit} bytes", metadata={"limit": str(limit)})
    return Failure.of(error, 413)


def forbidden(message: str, reason: str, http: int = 403) -> Failure:
    """403, or another status for PERMISSION_DENIED."""
    return Failure.of(PermissionDenied(message, reason=reason), http)


def status_of(err: grpc.aio.AioRpcError) -> Status:
    """The status of a failed call. One that did not come from a handler of ours gets a neutral text and an ErrorInfo.

    gRPC itself names addresses and exceptions in its messages; those do not leave the machine.
    """
    code = Code(err.code().value[0])
    for key, value in err.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                rich = Status.FromString(value)
            except DecodeError:
                break
            if rich.code == code:
                return rich
    message = _NEUTRAL[code] if code in _PRIVATE else err.details() or code.name
    status = to_status(BY_CODE.get(code, AtlasError)(message, reason=code.name))
    status.code = code
    return status


def status_as(code: Code) -> Status:
    """A neutral status of this code."""
    return to_status(BY_CODE[code](_NEUTRAL.get(code, code.name)))


def _standing_headers(status: Status, http: int) -> Headers:
    if http == 401:
        return [(b"www-authenticate", b"Bearer")]
    for detail in status.details:
        if detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo.FromString(detail.value)
            delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            return [(b"retry-after", str(max(1, math.ceil(delay))).encode())]
    return []
