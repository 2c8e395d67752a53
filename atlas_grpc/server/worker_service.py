"""`atlas.v1.WorkerService`: workers elsewhere, by a stream or by unary calls. The contract is in proto/."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from .. import pb
from ..engine.remote import Keeper
from ..errors import ServerDraining
from ..model import SECOND, Ask, Released, Report
from . import worker_convert as convert
from .convert import fill_span, micros
from .fitting import fitting
from .validation import faults
from .words import told
from .work_stream import WorkStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..engine.engine import Engine
    from ..model import Assignment
    from .calls import Call, Guard

    Write = Callable[[bytes], Awaitable[None]]

SERVICE = "atlas.v1.WorkerService"

_MAX_WAIT = 60.0


class WorkerService:
    """The handlers of WorkerService over an engine. `max_result` in bytes."""

    def __init__(self, engine: Engine, *, max_result: int) -> None:
        self._engine = engine
        self._max_result = max_result
        self._keeper = Keeper(engine.leases)
        self._streams: set[WorkStream] = set()
        self._draining = False

    def handlers(self, guard: Guard) -> grpc.GenericRpcHandler:
        """All methods, guarded."""

        def name(method: str) -> str:
            return f"/{SERVICE}/{method}"

        methods = {
            "Work": guard.bidirectional(name("Work"), pb.WorkRequest, self.work, while_draining=False),
            "LeaseJobs": guard.unary(
                name("LeaseJobs"), pb.LeaseJobsRequest, self.lease, while_draining=False, patience=_MAX_WAIT
            ),
            "Heartbeat": guard.unary(name("Heartbeat"), pb.HeartbeatRequest, self.heartbeat, validate=False),
            "FinishJobs": guard.unary(name("FinishJobs"), pb.FinishJobsRequest, self.finish, validate=False),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def work(self, _: Call, requests: AsyncIterator[pb.WorkRequest], write: Write) -> None:
        stream = WorkStream(self._keeper.stream(), self._engine.leases.ttl, self._max_result, write)
        if self._draining:
            raise ServerDraining("the server is about to stop", retry_after=1.0)
        self._streams.add(stream)
        try:
            await stream.serve(requests)
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """Hands out no more jobs. Workers are sent to other servers, and take their sessions along."""
        self._draining = True
        for stream in list(self._streams):
            stream.end(ServerDraining("the server is about to stop", retry_after=1.0))
        self._keeper.drain()

    async def lease(self, call: Call, request: pb.LeaseJobsRequest) -> pb.LeaseJobsResponse:
        seconds = call.patience(micros(request.wait, "wait") / SECOND)
        limit = request.max_jobs or 1
        queues = frozenset(request.queues) or None
        types = convert.type_infos(request.types, "types")
        asks = [Ask(info.name, min(limit, info.concurrency or limit), queues) for info in types]
        holding = convert.held(request.holding) if request.return_others else None
        session, jobs = await self._keeper.lease(request.session, request.worker, types, asks, limit, seconds, holding)
        given = fitting(map(_assignment, jobs))
        if len(given) < len(jobs):
            await self._keeper.finish([Report(job.job_id, job.fence, Released()) for job in jobs[len(given) :]])
        response = pb.LeaseJobsResponse(session=session, jobs=given)
        fill_span(response.lease_duration, self._engine.leases.ttl)
        return response

    async def heartbeat(self, _: Call, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        wrong = faults(request, "updates")
        await self._keeper.keep_or_raise(request.session)
        response = pb.HeartbeatResponse()
        response.answers.extend(await told(request.updates, wrong, convert.update, self._keeper.update))
        if request.goodbye:
            await self._keeper.goodbye(request.session)
            return response
        fill_span(response.lease_duration, self._engine.leases.ttl)
        stops = await self._keeper.stops(request.session, convert.held(request.holding))
        response.stops.extend(convert.stop(*one) for one in stops)
        return response

    async def finish(self, _: Call, request: pb.FinishJobsRequest) -> pb.FinishJobsResponse:
        wrong = faults(request, "reports")
        await self._keeper.keep(request.session)

        def report(message: pb.JobReport) -> Report:
            return convert.report(message, self._max_result)

        return pb.FinishJobsResponse(answers=await told(request.reports, wrong, report, self._keeper.finish))


def _assignment(job: Assignment) -> pb.Assignment:
    message = pb.Assignment()
    convert.fill_assignment(message, job, json_text=False)
    return message
