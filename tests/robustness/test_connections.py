"""Connections that do not behave. Some releases of grpcio crash on them; the versions that we allow must not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.robustness.conftest import Rig

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.mark.parametrize("said", [b"", PREFACE, PREFACE + SETTINGS, PREFACE + b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_connection_that_is_dropped_hurts_nobody(rig: Rig, said: bytes) -> None:
    host, _, port = rig.server.grpc_address.rpartition(":")
    for _ in range(20):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        await writer.drain()
        if said.startswith(PREFACE):
            await reader.read(9)
        writer.close()
    assert await rig.submit()
