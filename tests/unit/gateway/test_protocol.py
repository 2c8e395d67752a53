"""HTTP/1.1 itself, byte by byte: offers to upgrade, limits on size and time, what is no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from atlas_grpc import pb
from atlas_grpc.gateway import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 5
OFFERS = {
    "java": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
}
BODY = b'{"type":"sleep","seconds":3}'
SUBMITTED = b'{"id":"j1","state":"PENDING"}'


class Wire:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)


@pytest_asyncio.fixture(loop_scope="session")
async def wire(stack: Any) -> AsyncIterator[Wire]:
    made = Wire(*await asyncio.open_connection("127.0.0.1", stack.http.port))
    yield made
    made.writer.close()
    with contextlib.suppress(ConnectionError):
        await made.writer.wait_closed()


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return line + b" HTTP/1.1\r\nHost: localhost\r\n" + length + b"".join(fields) + b"\r\n" + body


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_request_that_offers_to_upgrade_keeps_its_body(stack: Any, wire: Wire, offer: str) -> None:
    wire.send(request(b"POST /jobs", OFFERS[offer], body=BODY))
    assert await wire.answer() == (200, SUBMITTED)
    assert dict(stack.script.requests[0].payload) == {"seconds": 3}
    wire.send(request(b"GET /healthz", OFFERS[offer]) + request(b"GET /healthz"))
    assert await wire.answer() == (200, b"ok\n")
    assert await wire.answer() == (200, b"ok\n")


async def test_an_offer_in_pieces_and_in_chunks(wire: Wire) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    whole = request(b"POST /jobs", OFFERS["java"], b"Transfer-Encoding: chunked\r\n") + chunks
    wire.send(whole)
    assert await wire.answer() == (200, SUBMITTED)
    for at in range(len(whole)):
        wire.send(whole[at : at + 1])
        await asyncio.sleep(0)
    assert await wire.answer() == (200, SUBMITTED)


async def test_many_offers_at_once(wire: Wire) -> None:
    one = request(b"GET /healthz", OFFERS["java"])
    wire.send(one * 300)
    for _ in range(300):
        assert await wire.answer() == (200, b"ok\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request(b"GET /v1/jobs/\xc3\xa9"),
        request(b"GET v1/jobs"),
        request(b"CONNECT evil.example:443"),
        request(b"CONNECT /v1/jobs"),
        request(b"POST /v1/jobs", b"Content-Length: -1\r\n"),
        request(b"POST /v1/jobs", b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        request(b"POST /v1/jobs", b"Transfer-Encoding: chunked\r\n", b"\r\nzz\r\n"),
    ],
)
async def test_what_is_no_http_gets_a_typed_400(wire: Wire, data: bytes) -> None:
    wire.send(data)
    status, body = await wire.answer()
    assert (status, json.loads(body)["code"]) == (400, 3)
    assert await wire.rest() == b""


async def test_huge_headers_get_a_typed_431(wire: Wire) -> None:
    wire.send(request(b"GET /healthz")[:-2] + b"X-Big: " + b"a" * 200_000)
    status, body = await wire.answer()
    assert (status, json.loads(body)["code"]) == (431, 8)


CHUNKED = request(b"POST /jobs", b"Transfer-Encoding: chunked\r\n") + b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize("trailer", [b"X-Big: " + b"a" * 1000, b"X-Small: a\r\n"])
async def test_trailers_without_end_are_cut(wire: Wire, trailer: bytes) -> None:
    wire.send(CHUNKED + trailer)
    for _ in range(200):
        wire.send(trailer[-1000:] * (200_000 // len(trailer)))
        if wire.reader.at_eof() or wire.writer.is_closing():
            break
        with contextlib.suppress(ConnectionError):
            await wire.writer.drain()
    with contextlib.suppress(ConnectionError):
        assert (await wire.answer())[0] == 431


async def test_trailers_are_no_headers(stack: Any, wire: Wire) -> None:
    wire.send(CHUNKED + b"Host: evil.example\r\nAuthorization: Bearer forged\r\n\r\n")
    assert await wire.answer() == (200, SUBMITTED)
    assert "authorization" not in stack.script.metadata


async def test_a_body_in_many_small_chunks_is_taken(wire: Wire) -> None:
    body = b'{"type":"sleep","seconds":3,"x":"%b"}' % (b"a" * 100_000)
    wire.send(request(b"POST /jobs", b"Transfer-Encoding: chunked\r\n"))
    for at in range(0, len(body), 2):
        wire.send(b"%x\r\n%b\r\n" % (len(body[at : at + 2]), body[at : at + 2]))
    wire.send(b"0\r\n\r\n")
    assert await wire.answer() == (200, SUBMITTED)


async def test_many_small_requests_on_one_connection_are_not_huge_headers(wire: Wire) -> None:
    for _ in range(30):
        wire.send(request(b"GET /healthz", b"X-Pad: " + b"a" * 8000 + b"\r\n"))
        assert await wire.answer() == (200, b"ok\n")


async def test_no_error_ends_up_inside_an_answer(stack: Any, wire: Wire) -> None:
    wire.send(request(b"GET /v1/jobs/x:watch"))
    stack.script.stream.put_nowait(pb.WatchJobResponse(resume_token="a"))
    await asyncio.wait_for(wire.reader.readuntil(b'"resumeToken":"a"'), PATIENCE)
    wire.send(b"\x16\x03\x01\r\n\r\n")
    assert b"HTTP/1.1" not in await wire.rest()


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc"])
async def test_a_head_that_never_ends_is_cut(stack: Any, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.05)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", stack.http.port))
    wire.send(start)
    assert await wire.rest() == b""
    wire.writer.close()


@pytest.mark.parametrize("path", [b"/v1/jobs", b"/jobs", b"/healthz"])
async def test_a_body_that_never_ends_is_cut(
    stack: Any, wire: Wire, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr(protocol, "REQUEST_TIMEOUT", 0.1)
    wire.send(request(b"POST " + path, b"Content-Length: 100\r\n") + b"{")
    await wire.rest()
    assert stack.script.requests == []


async def test_a_request_that_came_in_time_may_take_its_time(
    stack: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.02)
    monkeypatch.setattr(protocol, "REQUEST_TIMEOUT", 0.04)
    stack.script.release = asyncio.Event()
    wire.send(request(b"POST /jobs", body=BODY))
    await stack.script.called.wait()
    asyncio.get_running_loop().call_later(0.2, stack.script.release.set)
    assert await wire.answer() == (200, SUBMITTED)
