"""gRPC reflection under both of its names: grpcurl and others ask v1 first, the package brings v1alpha only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def _parsed(data: bytes) -> reflection_pb2.ServerReflectionRequest:
    """A request; what is none becomes an empty one, which the servicer answers with an error of the protocol."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(data)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()


def handlers(services: Sequence[str]) -> list[grpc.GenericRpcHandler]:
    """Handlers that describe `services` and themselves. The two versions have the same messages, field by field."""
    servicer = aio.ReflectionServicer([*services, *NAMES])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=_parsed,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in NAMES]
