"""The standard health service, behind the same guard as everything else.

Not the servicer of grpcio-health-checking: there, the first watcher of a name that leaves takes the others' news with
it, and one that does not read holds up whoever sets a status.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from ..errors import NotFound, ServerDraining

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .calls import Call, Guard

SERVICE = "grpc.health.v1.Health"


class Probes:
    """Health by name. `set` changes it and wakes who watches; `close` ends their watches."""

    def __init__(self) -> None:
        self._statuses: dict[str, HealthCheckResponse] = {}
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, name: str, *, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        self._statuses[name] = HealthCheckResponse(status=status)
        self._wake()

    def close(self) -> None:
        """Tells watchers what they do not know yet, and ends their streams."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, _: Call, request: HealthCheckRequest) -> HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFound("the health of no such service is known", metadata={"service": request.service})
        return status

    async def _watch(self, _: Call, request: HealthCheckRequest, write: Callable[[bytes], Awaitable[None]]) -> None:
        unknown = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        told: HealthCheckResponse | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, unknown)
            if status != told:
                await write(status.SerializeToString())
                told = status
            elif self._closed:
                raise ServerDraining("the server is about to stop", retry_after=1.0)
            else:
                await changed.wait()

    def handlers(self, guard: Guard) -> grpc.GenericRpcHandler:
        """Check and Watch, guarded."""
        methods = {
            "Check": guard.unary(f"/{SERVICE}/Check", HealthCheckRequest, self._check, essential=True),
            "Watch": guard.streaming(f"/{SERVICE}/Watch", HealthCheckRequest, self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)
