"""Health and reflection are served by packages; hostile bytes must not get more out of them than out of JobService."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from atlas_grpc.server.reflection import NAMES
from tests.support.refusals import refusal

if TYPE_CHECKING:
    from tests.robustness.conftest import Rig

HEALTH = "/grpc.health.v1.Health/"
GARBAGE = b"\xff\xff\xff garbage"


async def test_malformed_health_check(rig: Rig) -> None:
    refused = await refusal(rig.channel.unary_unary(HEALTH + "Check")(GARBAGE))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_malformed_health_watch(rig: Rig) -> None:
    call = rig.channel.unary_stream(HEALTH + "Watch")(GARBAGE)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_of_each_name(rig: Rig) -> None:
    check = rig.channel.unary_unary(HEALTH + "Check")
    for name in ("", "atlas.v1.JobService", "readiness"):
        answer = await check(health_pb2.HealthCheckRequest(service=name).SerializeToString())
        assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await check(health_pb2.HealthCheckRequest(service="nobody").SerializeToString())
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_can_be_watched(rig: Rig) -> None:
    call = rig.channel.unary_stream(HEALTH + "Watch")(health_pb2.HealthCheckRequest().SerializeToString())
    first = health_pb2.HealthCheckResponse.FromString(await call.read())
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    call.cancel()


@pytest.mark.parametrize("service", NAMES)
async def test_malformed_reflection_request(rig: Rig, service: str) -> None:
    call = rig.channel.stream_stream(f"/{service}/ServerReflectionInfo")()
    await call.write(GARBAGE)
    answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    await call.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    answer = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
    assert "atlas.v1.JobService" in {one.name for one in answer.list_services_response.service}
    await call.done_writing()
