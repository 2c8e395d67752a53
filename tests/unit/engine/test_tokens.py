"""Tokens are opaque, whole, and of the kind that is asked for."""

from __future__ import annotations

import base64
import string
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.engine.tokens import FeedToken, JobToken, PageToken, decode, encode
from atlas_grpc.errors import InvalidArgument

texts = st.text(max_size=40)
numbers = st.integers(-(2**63), 2**64 - 1)
tokens = st.one_of(
    st.builds(PageToken, texts, st.binary(max_size=16)),
    st.builds(JobToken, texts, numbers, numbers),
    st.builds(FeedToken, texts, numbers, st.binary(max_size=16)),
)
KINDS = (PageToken, JobToken, FeedToken)
SAMPLE = JobToken("018bcfe5-6800-7004-b48f-c209128b2f33", 7, 3)


def refused(text: str, kind: type[Any]) -> bool:
    caught: InvalidArgument | None = None
    try:
        decode(text, kind, "page_token")
    except InvalidArgument as error:
        caught = error
    assert caught is None or caught.reason == "INVALID_TOKEN"
    assert caught is None or [violation.field for violation in caught.violations] == ["page_token"]
    return caught is not None


@given(tokens)
def test_a_token_comes_back_as_it_was(token: Any) -> None:
    text = encode(token)
    assert decode(text, type(token), "f") == token
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@given(tokens)
def test_a_token_of_another_kind_is_refused(token: Any) -> None:
    text = encode(token)
    assert [refused(text, kind) for kind in KINDS] == [not isinstance(token, kind) for kind in KINDS]


@given(tokens, st.randoms(use_true_random=False))
def test_a_damaged_token_is_refused(token: Any, rng: Any) -> None:
    text = encode(token)
    at = rng.randrange(len(text))
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    assert refused(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), type(token))
    assert refused(text[:at], type(token)), "a part of it"
    assert refused(text + text[: at + 1], type(token)), "more than it"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "A",
        "AA",
        "AAAAAA",
        "not a token",
        "Ünïcode",
        "\x00",
        "\ud800",
        " " * 4,
        "A" * 100_000,
        "AQ" + "A" * 5,
        "\n",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    assert all(refused(text, kind) for kind in KINDS)


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_whatever_is_sent_there_is_no_other_error(text: str) -> None:
    for kind in KINDS:
        refused(text, kind)


def _packed(version: int, body: bytes) -> str:
    raw = bytes([version]) + zlib.crc32(body).to_bytes(4, "big") + body
    return base64.urlsafe_b64encode(raw).decode()


@pytest.mark.parametrize(
    "content",
    [
        ["j"],
        ["j", 5, 7],
        ["j", "id", "7"],
        ["j", "id", 7, None],
        ["x", "id", 7],
        {"type": "j"},
        None,
        7,
        ["j", "id", 2.5],
    ],
)
def test_a_forged_token_of_the_wrong_shape_is_refused(content: object) -> None:
    assert refused(_packed(1, msgspec.msgpack.encode(content)), JobToken)


def test_a_token_of_another_version_is_refused() -> None:
    body = msgspec.msgpack.encode(SAMPLE)
    assert decode(_packed(1, body), JobToken, "f") == SAMPLE
    assert refused(_packed(2, body), JobToken)
    assert refused(_packed(0, body), JobToken)


def test_tokens_are_short() -> None:
    assert len(encode(SAMPLE)) <= 70
