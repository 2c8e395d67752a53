"""Health and reflection are served by packages; hostile bytes must not get more out of them than out of JobService."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from atlas_grpc.server.reflection import NAMES
from atlas_grpc.stores.base import Counts
from atlas_grpc.testing import serving
from tests.support.refusals import refusal, refusal_of
from tests.support.waiting import until

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


def watch(rig: Rig, name: str) -> Any:
    return rig.channel.unary_stream(HEALTH + "Watch")(health_pb2.HealthCheckRequest(service=name).SerializeToString())


async def test_a_health_watcher_that_leaves_takes_nobodys_news_with_it(rig: Rig) -> None:
    leaves, stays = watch(rig, "readiness"), watch(rig, "readiness")
    await leaves.read()
    await stays.read()
    leaves.cancel()
    await until(lambda: rig.server.guard._streams == 1)
    await rig.server.stop(30)
    told = health_pb2.HealthCheckResponse.FromString(await asyncio.wait_for(stays.read(), 5))
    assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stays.read()
    assert refusal_of(ended.value).reason == "SERVER_DRAINING"


async def test_health_of_a_name_that_nobody_knows_is_watched_until_it_is_known(rig: Rig) -> None:
    call = watch(rig, "later")
    first = health_pb2.HealthCheckResponse.FromString(await call.read())
    rig.server._probes.set("later", serving=True)
    second = health_pb2.HealthCheckResponse.FromString(await call.read())
    known = health_pb2.HealthCheckResponse
    assert (first.status, second.status) == (known.SERVICE_UNKNOWN, known.SERVING)
    call.cancel()


@pytest.mark.parametrize("method", ["/atlas.v1.JobService/Nothing", "/no.Service/Method", HEALTH + "Nothing"])
async def test_an_unknown_method_is_refused_with_a_reason(rig: Rig, method: str) -> None:
    refused = await refusal(rig.channel.unary_unary(method)(b"", timeout=5))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_queues_that_callers_make_up_are_bounded_in_the_metrics(rig: Rig) -> None:
    for n in range(120):
        await rig.submit(queue=f"queue-{n}")
    rig.server.engine.counts = await rig.server.engine.store.counts()
    lines = [line for line in rig.server.metrics.render()[0].decode().splitlines() if "atlas_queue_depth{" in line]
    assert len(lines) == 101
    assert 'atlas_queue_depth{queue="other"} 20.0' in lines
    rig.server.engine.counts = Counts({}, (), 0)
    assert 'atlas_queue_depth{queue="queue-0"} 0.0' in rig.server.metrics.render()[0].decode()


async def test_without_metrics_there_are_none() -> None:
    async with (
        serving(worker=False, metrics=False, http_address="127.0.0.1:0", grace=0) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http.port}") as client,
    ):
        assert (await client.get("/metrics")).status_code == 404
        assert "/metrics" not in (await client.get("/")).text
