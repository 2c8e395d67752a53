"""Calls of methods that there are not: gRPC's own refusal says nothing that a program could go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from ..errors import Unimplemented
from ..status import to_status
from .calls import DETAILS_KEY

if TYPE_CHECKING:
    from .calls import Context


class UnknownMethods(grpc.GenericRpcHandler):
    """Refuses whatever no handler before it took, with the same details as any other error."""

    def __init__(self) -> None:
        status = to_status(Unimplemented("the server has no such method"))
        details = ((DETAILS_KEY, status.SerializeToString()),)

        async def refuse(_: object, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, status.message, details)

        # A stream of each kind is what any caller's messages fit.
        self._method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:  # noqa: ARG002 - all alike
        return self._method
