"""What a failed call says: its code, and the details of its status by type."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status


class Refusal(NamedTuple):
    code: grpc.StatusCode
    message: str
    reason: str
    fields: tuple[str, ...]
    retry_after: float | None
    info: Any


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """The parts of an error that a client can use."""
    status = Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, bad, retry = ErrorInfo(), BadRequest(), None
    for packed in status.details:
        for message in (info, bad):
            if packed.Is(message.DESCRIPTOR):
                packed.Unpack(message)
        if packed.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            packed.Unpack(retry)
    if status.details:
        assert (status.code, status.message, info.domain) == (error.code().value[0], error.details(), "atlas")
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        tuple(one.field for one in bad.field_violations),
        None if retry is None else retry.retry_delay.ToTimedelta().total_seconds(),
        info,
    )


async def refusal(call: Any) -> Refusal:
    """How a call was refused; fails when it was not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)
