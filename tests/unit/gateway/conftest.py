"""A real gRPC server that echoes and fails on demand, with the gateway and uvicorn before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from atlas_grpc import errors, pb
from atlas_grpc._gen.atlas.v1 import job_service_pb2, job_service_pb2_grpc
from atlas_grpc.gateway import Gateway, HttpServer, create_app, serve_http
from atlas_grpc.status import to_status
from tests.support.echo import EchoHandler, echo_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc_health.v1._async import HealthServicer


async def _metrics(_accept: str) -> tuple[bytes, str]:
    return b"up 1\n", "text/plain; version=0.0.4"


@pytest.fixture(scope="session")
def echo() -> Any:
    """The descriptor of EchoService."""
    return echo_service()


@pytest.fixture(scope="session")
def everything(echo: Any) -> Any:
    return message_factory.GetMessageClass(echo.methods[0].input_type)


class Script(job_service_pb2_grpc.JobServiceServicer):
    """Answers with what the test prepared, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.all_metadata: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.time_remaining: float | None = None
        self.error: errors.AtlasError | None = None
        self.answer: Any = None
        self.initial: tuple[tuple[str, str | bytes], ...] = ()
        self.stream: asyncio.Queue[Any] = asyncio.Queue()
        self.cancelled = asyncio.Event()
        self.called = asyncio.Event()
        self.release: asyncio.Event | None = None

    async def _begin(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.all_metadata = list(context.invocation_metadata())
        self.metadata = dict(self.all_metadata)
        self.time_remaining = context.time_remaining()
        self.called.set()
        if self.initial:
            await context.send_initial_metadata(self.initial)

    async def _unary(self, request: Any, context: Any, answer: Any) -> Any:
        cancelled = self.cancelled
        await self._begin(request, context)
        try:
            if self.release is not None:
                await self.release.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        if self.error is not None:
            await abort(context, self.error)
        return self.answer if self.answer is not None else answer

    async def _streamed(self, request: Any, context: Any) -> None:
        """Writes what is put into `stream`: messages, then None for OK or an error."""
        cancelled, stream = self.cancelled, self.stream
        await self._begin(request, context)
        try:
            while (item := await stream.get()) is not None:
                if isinstance(item, errors.AtlasError):
                    await abort(context, item)
                await context.write(item)
                stream.task_done()
        except BaseException:
            # A write that blocks when the caller leaves fails with an error of its own.
            cancelled.set()
            raise

    async def SubmitJob(self, request: Any, context: Any) -> Any:
        job = pb.Job(id="j1", type=request.type, state=pb.Job.PENDING, version=1)
        return await self._unary(request, context, pb.SubmitJobResponse(job=job, deduplicated=True))

    async def SubmitJobs(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.SubmitJobsResponse())

    async def GetJob(self, request: Any, context: Any) -> Any:
        job = pb.Job(id=request.id, type="sleep", state=pb.Job.SUCCESS, version=2**60)
        job.payload.update({"seconds": 3})
        return await self._unary(request, context, pb.GetJobResponse(job=job))

    async def ListJobs(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.ListJobsResponse())

    async def CancelJob(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.CancelJobResponse(job=pb.Job(id=request.id)))

    async def RetryJob(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.RetryJobResponse(job=pb.Job(id=request.id)))

    async def DeleteJob(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.DeleteJobResponse())

    async def ExplainJob(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.ExplainJobResponse(jobs_ahead=7))

    async def ListJobTypes(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.ListJobTypesResponse())

    async def RunJob(self, request: Any, context: Any) -> None:
        await self._streamed(request, context)

    async def WatchJob(self, request: Any, context: Any) -> None:
        await self._streamed(request, context)

    async def ListJobLogs(self, request: Any, context: Any) -> Any:
        return await self._unary(request, context, pb.ListJobLogsResponse())

    async def TailJobLogs(self, request: Any, context: Any) -> None:
        await self._streamed(request, context)

    async def WatchJobs(self, request: Any, context: Any) -> None:
        await self._streamed(request, context)


async def abort(context: Any, error: errors.AtlasError) -> None:
    status = to_status(error)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
    await context.abort(code, error.message)


class Stack:
    """Everything that runs: the scripted backend, the gateway, and a client of it."""

    def __init__(
        self, script: Script, backend: grpc.aio.Server, health: HealthServicer, app: Gateway, http: HttpServer
    ) -> None:
        self.backend = backend
        self.script = script
        self.health = health
        self.app = app
        self.http = http
        self.url = f"http://127.0.0.1:{http.port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False)

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = await self.client.request(method, path, **options)
        return answer.status_code, answer.json()


@contextlib.asynccontextmanager
async def running(echo: Any) -> AsyncIterator[Stack]:
    script = Script()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    job_service_pb2_grpc.add_JobServiceServicer_to_server(script, server)
    server.add_generic_rpc_handlers((EchoHandler(),))
    checks = health.aio.HealthServicer()
    await checks.set("readiness", HealthCheckResponse.SERVING)
    add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        services = [job_service_pb2.DESCRIPTOR.services_by_name["JobService"], echo]
        app = create_app(
            channel,
            services=services,
            metrics=_metrics,
            max_body=256 * 1024,
            allowed_hosts=["atlas.example"],
        )
        http = await serve_http(app, "127.0.0.1", 0)
        made = Stack(script, server, checks, app, http)
        yield made
        await made.client.aclose()
        await http.stop(grace=0.1)
    await server.stop(0)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _shared(echo: Any) -> AsyncIterator[Stack]:
    async with running(echo) as stack:
        yield stack


@pytest.fixture
def stack(_shared: Stack) -> Stack:
    """The servers of all tests, with a script that has forgotten the test before."""
    Script.__init__(_shared.script)
    return _shared


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(echo: Any) -> AsyncIterator[Stack]:
    """Servers of its own, for a test that stops them."""
    async with running(echo) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _no_faults(caplog: pytest.LogCaptureFixture) -> Any:
    """No test may bring the gateway or uvicorn to log a fault."""
    yield
    ours = ("atlas", "uvicorn", "asyncio")
    faults = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR and one.name.startswith(ours)]
    assert faults == []
