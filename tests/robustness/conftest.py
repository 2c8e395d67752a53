"""One server over real gRPC for the tests of a module's function, and a stub for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from atlas_grpc import pb
from atlas_grpc.testing import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Rig:
    """A server in this process, a channel to it and the generated stub."""

    def __init__(self, server: Any, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub: Any = pb.JobServiceStub(channel)

    def raw(self, method: str, data: bytes, **more: Any) -> Any:
        """A unary call with bytes as they are."""
        return self.channel.unary_unary(f"/atlas.v1.JobService/{method}")(data, **{"timeout": 10, **more})

    async def submit(self, type: str = "sleep", payload: dict[str, Any] | None = None, **more: Any) -> str:
        request = pb.SubmitJobRequest(type=type, **more)
        request.payload.update({"seconds": 0} if payload is None else payload)
        return (await self.stub.SubmitJob(request, timeout=10)).job.id


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Without a worker: jobs stay as they are submitted."""
    async with serving(worker=False, grace=0) as server, grpc.aio.insecure_channel(server.grpc_address) as channel:
        yield Rig(server, channel)
