"""The standard health service, behind the same guard as everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .calls import Call, Guard

SERVICE = "grpc.health.v1.Health"


class _Context:
    """What the servicer needs of a context whose messages are bytes."""

    def __init__(self, call: Call, write: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        self._call = call
        self._write = write

    async def write(self, message: health_pb2.HealthCheckResponse) -> None:
        assert self._write is not None
        await self._write(message.SerializeToString())

    async def abort(self, code: grpc.StatusCode) -> NoReturn:
        """An unknown service: the protocol asks for a plain NOT_FOUND."""
        await self._call.context.abort(code, "unknown service")
        raise AssertionError("abort returned")


class Probes:
    """Health by name. `set` changes it and tells who watches."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()

    async def set(self, name: str, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    def handlers(self, guard: Guard) -> grpc.GenericRpcHandler:
        """Check and Watch, guarded."""

        async def check(call: Call, request: health_pb2.HealthCheckRequest) -> Any:
            return await self._servicer.Check(request, _Context(call))

        async def watch(
            call: Call, request: health_pb2.HealthCheckRequest, write: Callable[[bytes], Awaitable[None]]
        ) -> None:
            await self._servicer.Watch(request, _Context(call, write))

        methods = {
            "Check": guard.unary(f"/{SERVICE}/Check", health_pb2.HealthCheckRequest, check),
            "Watch": guard.streaming(f"/{SERVICE}/Watch", health_pb2.HealthCheckRequest, watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)
