"""What else is on the port: pages, health, metrics, who may call, and the life of the server itself."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
from typing import Any

import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from atlas_grpc.gateway import docs, serve_http
from atlas_grpc.gateway.guard import Guard

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_index(stack: Any) -> None:
    answer = await stack.client.get("/")
    assert "/docs" in answer.json()["addresses"]
    page = await stack.client.get("/", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert '<a href="/docs">' in page.text
    assert page.headers["content-security-policy"]


async def test_health_and_readiness(stack: Any) -> None:
    assert (await stack.client.get("/healthz")).text == "ok\n"
    assert (await stack.client.get("/readyz")).status_code == 200
    await stack.health.set("readiness", HealthCheckResponse.NOT_SERVING)
    assert (await stack.client.get("/readyz")).status_code == 503
    assert (await stack.client.head("/healthz")).status_code == 200
    await stack.health.set("readiness", HealthCheckResponse.SERVING)


async def test_readiness_without_a_server_is_503(fresh: Any) -> None:
    fresh.app.calls.draining = True
    assert (await fresh.client.get("/readyz")).status_code == 503


async def test_metrics_and_icon(stack: Any) -> None:
    answer = await stack.client.get("/metrics")
    assert (answer.content, answer.headers["content-type"]) == (b"up 1\n", "text/plain; version=0.0.4")
    answer = await stack.client.get("/favicon.ico")
    assert (answer.status_code, answer.content) == (204, b"")


async def test_every_answer_forbids_sniffing(stack: Any) -> None:
    for path in ("/", "/v1/jobs", "/v1/none", "/jobs/x", "/docs"):
        answer = await stack.client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_swagger_ui_is_served_from_here(stack: Any) -> None:
    page = await stack.client.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text.replace("<!DOCTYPE", "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self';" in policy
    kinds = {
        "/docs/swagger-ui.css": "text/css; charset=utf-8",
        "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "/docs/start.js": "text/javascript; charset=utf-8",
        "/docs/favicon-32x32.png": "image/png",
    }
    for path, kind in kinds.items():
        answer = await stack.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        again = await stack.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in kinds:
        if not path.endswith(".png"):
            assert path in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/docs/../pyproject.toml",
        "/docs/%2e%2e/main.py",
        "/docs/..%2fmain.py",
        "/docs//etc/passwd",
        "/docs/__init__.py",
        "/docsx",
    ],
)
async def test_nothing_else_is_under_docs(stack: Any, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.http.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    writer.close()
    await writer.wait_closed()


async def test_without_the_package_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "_PACKAGE", "no_such_package_here")
    assets = docs.load()
    assert b"/openapi.json" in assets[b"/docs"].body
    assert set(assets) == {b"/docs", b"/docs/"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8080", 200),
        ("app.localhost", 200),
        ("atlas.example:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.0.1", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_hosts(stack: Any, host: str, status: int) -> None:
    answer = await stack.client.get("/healthz", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),
        ("POST", {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "cross-site"}, 200),
        ("POST", {"Origin": "https://atlas.example"}, 200),
        ("POST", {"Origin": "https://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "none"}, 200),
    ],
)
async def test_pages_of_other_sites(stack: Any, method: str, headers: dict[str, str], status: int) -> None:
    path = "/v1/jobs" if method == "POST" else "/v1/jobs/x"
    answer = await stack.client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    assert answer.status_code == status
    assert bool(stack.script.requests) == (status == 200)


async def test_a_star_allows_every_host_but_none() -> None:
    guard = Guard(["*"])
    assert guard._allows(b"anything.example")
    assert not guard._allows(b"")


async def test_a_port_in_use_is_refused(stack: Any) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1:{stack.http.port}") as caught:
        await serve_http(stack.app, "127.0.0.1", stack.http.port)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match="cannot resolve"):
        await serve_http(stack.app, "a" * 64, 0)


async def test_signals_stay_the_program_s(fresh: Any) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    http = await serve_http(fresh.app, "127.0.0.1", 0)
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    await http.stop(grace=0)
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_stopped_server_refuses_connections(fresh: Any) -> None:
    assert (await fresh.client.get("/healthz")).status_code == 200
    await fresh.http.stop(grace=1)
    with pytest.raises(httpx.TransportError):
        await fresh.client.get("/healthz")
    await fresh.http.stop(grace=1)


async def test_a_backend_that_is_gone_is_503_without_its_address(fresh: Any) -> None:
    await fresh.backend.stop(0)
    status, body = await fresh.json("GET", "/v1/jobs/x")
    assert (status, body["code"], body["message"]) == (503, 14, "the server cannot be reached now")
    assert "127.0.0.1" not in json.dumps(body)
    assert (await fresh.client.get("/readyz")).status_code == 503
