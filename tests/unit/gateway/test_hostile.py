"""Whatever is sent, the answer is well-formed and never a fault of the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.asyncio(loop_scope="session")

hostile = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"type",
        b"payload",
        b'"type"',
        b"null",
        b"1e999",
        b"NaN",
        b"\\ud800",
        b"\\u0000",
        b"\x00",
        b"\xff",
        b"-",
        b"9" * 400,
        b"{}",
        b'{"payload":',
        b"[" * 40,
        b"true",
    ]
)
BODIES = st.one_of(st.binary(max_size=64), st.lists(PIECES, max_size=12).map(b"".join))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["type", "payload", "payloadData", "labels", "priority", "startTime", "startDelay", "retryPolicy", "requestId", "x"]
)
WORDS = st.sampled_from(
    ["filter", "states", "labels", "ids", ".", "[", "]", "=", "&", "%", "%ff", "page_size", "view", "1", "a"]
)


def check(answer: Any) -> None:
    assert answer.status_code in (200, 204, 400, 404, 405, 413, 415, 422)
    if answer.content and "json" in answer.headers["content-type"]:
        body = answer.json()
        if answer.status_code >= 400 and "detail" not in body:
            assert set(body) == {"code", "message", "details"}
            assert body["details"][0]["@type"].endswith("ErrorInfo")


@given(body=BODIES)
@hostile
async def test_bodies(stack: Any, body: bytes) -> None:
    for path in ("/v1/jobs", "/v1/jobs:batchSubmit", "/v1/echo/x", "/jobs"):
        check(await stack.client.post(path, content=body))


@given(body=st.dictionaries(FIELDS, VALUES, max_size=4))
@hostile
async def test_fields_of_any_value(stack: Any, body: Any) -> None:
    content = json.dumps(body).encode()
    check(await stack.client.post("/v1/jobs", content=content))
    check(await stack.client.post("/jobs", content=content))


@given(query=st.lists(WORDS, max_size=10).map("".join))
@hostile
async def test_queries(stack: Any, query: str) -> None:
    check(await stack.client.get(f"/v1/jobs?{query}"))


@given(path=st.text(st.sampled_from("/:%{}*.abv1jobs~\\"), max_size=20))
@hostile
async def test_paths(stack: Any, path: str) -> None:
    check(await stack.client.get("/v1/jobs" + path.replace("\\", "%5C")))
    check(await stack.client.get("/" + path.lstrip("/").replace("\\", "%00")))


@given(
    name=st.sampled_from(["grpc-timeout", "grpc-metadata-x", "grpc-metadata-x-bin", "authorization", "accept"]),
    value=st.binary(max_size=12),
)
@hostile
async def test_headers(stack: Any, name: str, value: bytes) -> None:
    clean = bytes(one for one in value if one >= 32 and one != 127).strip()
    answer = await stack.client.get("/v1/jobs/x", headers=[(name.encode(), clean)])
    assert answer.status_code in (200, 400, 504)
