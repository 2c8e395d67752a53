"""The validator of payloads and results: what it admits can be read back in every way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.model import Content
from atlas_grpc.server.admission import MAX_DEPTH, MAX_KEY, MAX_VALUES, _is_plain, _object_to, objection
from atlas_grpc.server.structs import fill_value

LIMIT = 1 << 20


def nested(depth: int, *, list_too: bool = False) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if list_too and level % 2 else {"a": value}
    return value


def judged(value: Any) -> str | None:
    return objection(Content(msgspec.json.encode(value)), LIMIT)


@pytest.mark.parametrize("list_too", [False, True])
def test_depth(list_too: bool):
    assert judged(nested(MAX_DEPTH, list_too=list_too)) is None
    for depth in (MAX_DEPTH + 1, 33, 100, 900):
        assert "nested deeper" in str(judged(nested(depth, list_too=list_too)))


def test_depth_of_something_wide_and_large():
    wide = {f"k{n}": nested(MAX_DEPTH - 1) for n in range(100)}
    assert judged(wide) is None
    wide["last"] = nested(MAX_DEPTH)
    assert "nested deeper" in str(judged(wide))


@pytest.mark.parametrize("value", [{"a": "x\0y"}, {"a\0": 1}, ["\0"], "\0", {"a": {"b": ["c", {"\0": 1}]}}])
def test_nul(value: Any):
    assert "NUL" in str(judged(value))
    assert "NUL" in str(judged({"long": "x" * 2000, "v": value}))


def test_what_only_looks_like_nul_is_admitted():
    assert judged({"a": "\\u0000 is how JSON writes it", "b": "u0000", "c": "{[" * 30}) is None


def test_keys_values_and_sizes():
    assert judged({"k" * MAX_KEY: 1}) is None
    assert "key of" in str(judged({"k" * (MAX_KEY + 1): 1}))
    assert judged([0] * MAX_VALUES) is None
    assert "more than" in str(judged([0] * (MAX_VALUES + 1)))
    assert "more than" in str(judged([[0] * 1000] * 60))
    assert objection(Content(b"x" * 10, ""), 10) is None
    assert "11 bytes" in str(objection(Content(b"x" * 11, ""), 10))
    assert "at most 10" in str(objection(Content(b'"' + b"x" * 20 + b'"'), 10))


def test_bytes_may_be_anything():
    assert objection(Content(b"\0\xff{[" * 100, "application/json"), LIMIT) is None


def test_broken_json_is_no_crash():
    for data in (b"[" * 100_000, b'{"a":' * 5_000, b"{" + b" " * 5_000, b'"\xff' + b" " * 5_000):
        assert objection(Content(data), LIMIT) is not None


@pytest.mark.parametrize("number", [10**308, -(10**308), 10**309, 10**400, -(10**400)])
@pytest.mark.parametrize("pad", ["", "x" * 2_000])
def test_a_number_beyond_doubles_is_refused(number: int, pad: str):
    data = f'{{"n":[{number}],"pad":"{pad}"}}'.encode()
    problem = objection(Content(data), LIMIT)
    assert (problem is None) == (abs(number) <= 10**308)
    if problem is None:
        value = Value()
        fill_value(value, msgspec.json.decode(data))


TEXTS = st.text(max_size=5) | st.just("\0") | st.just("\\u0000")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=40,
)


@given(JSON, st.integers(0, 30))
def test_what_is_admitted_can_be_read_in_every_way(value: Any, depth: int):
    for _ in range(depth):
        value = [value]
    data = msgspec.json.encode(value)
    problem = objection(Content(data), LIMIT)
    assert (problem is None) == (_object_to(msgspec.json.decode(data)) is None), "the short cut is no other rule"
    if problem is None:
        message = Value()
        fill_value(message, msgspec.json.decode(data))
        assert Value.FromString(message.SerializeToString()) == message
        MessageToJson(message)
        assert "\\u0000" not in MessageToJson(message).replace("\\\\", "")
    else:
        assert not _is_plain(data)
