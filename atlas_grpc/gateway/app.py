"""The ASGI application: guard, pages, the interface of 0.2, the REST mirror; one place where failures are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._gen.atlas.v1 import job_service_pb2, worker_service_pb2
from ..errors import Code
from . import openapi
from .calls import Calls
from .failures import Disconnected, Failure, malformed, status_as
from .faults import report
from .guard import Guard
from .http import Request
from .legacy import LegacyJobs
from .pages import Pages
from .rest import Router, make_bindings
from .scalars import Malformed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import grpc.aio
    from google.protobuf.descriptor import ServiceDescriptor

    from .http import Receive, Scope, Send

SERVICES = (
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"],
)
"""What is mirrored."""
MAX_BODY = 4 * 2**20
"""Bytes of a request body, and of the message made from it: what the server takes in one message."""


class Gateway:
    """The application; made by `create_app`."""

    def __init__(self, calls: Calls, guard: Guard, pages: Pages, legacy: LegacyJobs, router: Router) -> None:
        self.calls = calls
        self._guard = guard
        self._pages = pages
        self._legacy = legacy
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            msg = f"this application serves http, not {scope['type']}"
            raise RuntimeError(msg)
        request = Request(scope, receive, send)
        try:
            await self._serve(request)
        except Failure as failure:
            await request.fail(failure)
        except Malformed as err:
            await request.fail(malformed(err))
        except Disconnected:
            return
        except Exception as err:
            report(err, request.path)
            if request.started:
                raise
            await request.fail(Failure(status_as(Code.INTERNAL)))

    async def _serve(self, request: Request) -> None:
        self._guard(request)
        page = self._pages.find(request)
        if page is not None:
            await page(request)
        elif self._legacy.serves(request.path):
            await self._legacy(request)
        else:
            binding, groups = self._router.find(request.method, request.path)
            await binding(request, groups)


def create_app(
    channel: grpc.aio.Channel,
    *,
    metrics: Callable[[str], Awaitable[tuple[bytes, str]]] | None,
    services: Sequence[ServiceDescriptor] = (),
    max_body: int = MAX_BODY,
    allowed_hosts: Iterable[str] = (),
) -> Gateway:
    """The HTTP side of a server that `channel` reaches, as an ASGI application (HTTP only, no lifespan).

    `services`: descriptors whose methods with a `google.api.http` rule are mirrored; those of Atlas when left out.
    `metrics`: called for /metrics with the Accept header; answers the body and its content type. None: there is none.
    `max_body`: bytes; a larger request is refused with 413.
    `allowed_hosts`: names by which clients may call this server beside those of loopback, without port; `*` for any.

    Raises ValueError when a rule cannot be served. The channel stays the caller's.
    """
    services = services or SERVICES
    calls = Calls()
    return Gateway(
        calls,
        Guard(allowed_hosts),
        Pages(channel, calls, metrics, lambda: openapi.document(services, max_body)),
        LegacyJobs(channel, calls, max_body),
        Router(make_bindings(channel, services, calls, max_body)),
    )
