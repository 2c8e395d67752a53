"""Each channel option of the server bites. Unknown names are ignored by gRPC, so each effect is looked at."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import grpc
import pytest

from atlas_grpc import pb
from atlas_grpc.config import Settings
from atlas_grpc.server.app import channel_options
from atlas_grpc.server.listening import AddressInUse
from atlas_grpc.testing import serving

PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
GOAWAY = 7
WATCH = "/atlas.v1.JobService/WatchJob"


def address(server: Any) -> tuple[str, int]:
    host, _, port = server.grpc_address.rpartition(":")
    return host, int(port)


async def frames(reader: asyncio.StreamReader) -> Any:
    """The HTTP/2 frames of a connection, until it is closed: type and payload."""
    while True:
        try:
            head = await reader.readexactly(9)
            yield head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def test_all_options_are_looked_at_here():
    names = {name for name, _ in channel_options(Settings())}
    assert names == {
        "grpc.so_reuseport",
        "grpc.max_receive_message_length",
        "grpc.max_send_message_length",
        "grpc.max_concurrent_streams",
        "grpc.keepalive_time_ms",
        "grpc.keepalive_timeout_ms",
        "grpc.http2.ping_timeout_ms",
        "grpc.keepalive_permit_without_calls",
        "grpc.http2.min_ping_interval_without_data_ms",
        "grpc.max_connection_idle_ms",
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
        "grpc.server_handshake_timeout_ms",
    }


async def test_a_port_is_not_shared():
    async with serving(worker=False) as server:
        with pytest.raises(AddressInUse):
            async with serving(worker=False, grpc_address=server.grpc_address):
                pass
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            await channel.unary_unary("/atlas.v1.JobService/ListJobs")(b"", timeout=5)


async def test_large_messages_are_refused_and_large_answers_are_not():
    async with (
        serving(worker=False, max_message_bytes=100_000) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        submit = channel.unary_unary("/atlas.v1.JobService/SubmitJob")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await submit(b"x" * 100_001, timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        request = pb.SubmitJobRequest(type="sleep", labels={f"k{n}": "x" * 250 for n in range(30)})
        request.payload["seconds"] = 1
        for _ in range(40):
            await submit(request.SerializeToString(), timeout=5)
        answer = await channel.unary_unary("/atlas.v1.JobService/ListJobs")(b"", timeout=5)
        assert len(answer) > 250_000


async def test_streams_of_a_connection_are_bounded():
    async with serving(worker=False, max_streams=2) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(PREFACE)
        async for kind, payload in frames(reader):
            if kind == 4:
                settings = {
                    int.from_bytes(payload[at : at + 2], "big"): payload[at + 2 : at + 6]
                    for at in range(0, len(payload), 6)
                }
                if 3 in settings:
                    assert int.from_bytes(settings[3], "big") == 2
                    break
        else:
            pytest.fail("the server announced no limit")
        writer.close()


async def test_a_client_that_pings_too_much_is_sent_away():
    async with serving(worker=False, min_ping_interval=60.0) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(PREFACE + PING)
        reason = b""
        async for kind, payload in frames(reader):
            if kind == GOAWAY:
                reason = payload[8:]
            elif kind == 6:
                writer.write(PING)
        assert reason == b"too_many_pings"
        writer.close()


async def test_a_patient_pinger_is_not_sent_away():
    async with serving(worker=False, min_ping_interval=0.001) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(PREFACE)
        answered = 0
        writer.write(PING)
        async for kind, _payload in frames(reader):
            assert kind != GOAWAY
            if kind == 6:
                answered += 1
                if answered == 8:
                    break
                await asyncio.sleep(0.005)
                writer.write(PING)
        assert answered == 8
        writer.close()


async def test_a_connection_that_says_nothing_is_closed():
    async with serving(worker=False, handshake_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        began = time.monotonic()
        await asyncio.wait_for(reader.read(), 5)
        assert time.monotonic() - began < 3
        writer.close()


async def test_an_idle_connection_is_closed():
    async with serving(worker=False, max_connection_idle=0.2) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(PREFACE)
        kinds = [kind async for kind, _ in _bounded(frames(reader))]
        assert GOAWAY in kinds
        writer.close()


async def _bounded(source: Any) -> Any:
    async with asyncio.timeout(5):
        async for one in source:
            yield one
            if one[0] == GOAWAY:
                return


@pytest.mark.slow
async def test_a_reader_that_is_dead_is_noticed():
    """Keepalive: a client whose machine is gone answers no ping, also when it has no call open."""
    async with serving(worker=False, keepalive_time=1.0, keepalive_timeout=0.2, max_connection_idle=60.0) as server:
        with socket.create_connection(address(server)) as raw:
            raw.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=raw)
            writer.write(PREFACE)
            pinged = False
            async with asyncio.timeout(6):
                async for kind, _ in frames(reader):
                    pinged = pinged or kind == 6
            assert pinged, "it was asked, did not answer, and the connection was closed"
            writer.close()


async def test_an_old_connection_is_ended_and_its_watch_resumes():
    async with (
        serving(worker=False, max_connection_age=0.3, connection_age_grace=0.1) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        request = pb.SubmitJobRequest(type="sleep")
        request.payload["seconds"] = 1
        submit = channel.unary_unary("/atlas.v1.JobService/SubmitJob")
        job_id = pb.SubmitJobResponse.FromString(await submit(request.SerializeToString(), timeout=5)).job.id
        versions: list[int] = []
        token, cuts = "", 0
        while cuts < 2:
            watch = pb.WatchJobRequest(id=job_id, resume_token=token)
            try:
                async for data in channel.unary_stream(WATCH)(watch.SerializeToString(), timeout=10):
                    update = pb.WatchJobResponse.FromString(data)
                    token = update.resume_token
                    versions += [step.version for step in update.transitions]
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                cuts += 1
        cancel = channel.unary_unary("/atlas.v1.JobService/CancelJob")
        await cancel(pb.CancelJobRequest(id=job_id).SerializeToString(), timeout=5, wait_for_ready=True)
        watch = pb.WatchJobRequest(id=job_id, resume_token=token)
        async for data in channel.unary_stream(WATCH)(watch.SerializeToString(), timeout=10, wait_for_ready=True):
            versions += [step.version for step in pb.WatchJobResponse.FromString(data).transitions]
        assert versions == [1, 2]
