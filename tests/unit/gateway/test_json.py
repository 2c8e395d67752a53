"""Reading and printing JSON, against `json_format` as the oracle."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_grpc.gateway.printing import printer
from atlas_grpc.gateway.reading import encode, load_json, reader
from atlas_grpc.gateway.scalars import Malformed

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FLAT = {
    "text": TEXT,
    "number": INT32,
    "big": INT64.map(str),
    "natural": st.integers(0, 2**32 - 1),
    "huge": st.integers(0, 2**64 - 1).map(str),
    "zigzag": INT64.map(str),
    "fixed": st.integers(0, 2**64 - 1).map(str),
    "real": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    "single": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "colour": st.sampled_from(["RED", "BLUE", "COLOUR_UNSPECIFIED", 1, 77]),
    "maybe": INT32,
    "texts": st.lists(TEXT, max_size=3),
    "list": st.lists(INT64.map(str), max_size=3),
    "labels": st.dictionaries(TEXT, TEXT, max_size=3),
    "weights": st.dictionaries(st.sampled_from(["true", "false"]), st.floats(allow_nan=False, allow_infinity=False)),
    "at": st.datetimes().map(lambda at: at.isoformat() + "Z"),
    "wait": st.integers(-(10**9), 10**9).map(lambda s: f"{s}.25s"),
    "object": st.dictionaries(TEXT, JSON, max_size=3),
    "value": JSON,
    "values": st.lists(JSON, max_size=3),
    "wrappedBig": INT64.map(str),
    "wrappedText": TEXT,
    "wrappedFlag": st.booleans(),
    "mask": st.sampled_from(["", "fooBar,baz.quxQuux"]),
    "thirdOne": INT32,
    "other-name": TEXT,
    "nothing": st.none(),
}
MESSAGES = st.recursive(
    st.fixed_dictionaries({}, optional=FLAT),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "inner": inner,
            "many": st.lists(inner, max_size=2),
            "numbered": st.dictionaries(INT64.map(str), inner, max_size=2),
        },
    ),
    max_leaves=3,
)


def ours(cls: Any, value: Any) -> Any:
    message = cls()
    reader(cls.DESCRIPTOR)(message, load_json(json.dumps(value).encode()))
    return message


def same(one: Any, other: Any) -> bool:
    """Equal, with 3 and 3.0 the same and NaN equal to itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


@given(value=MESSAGES)
@settings(max_examples=60, deadline=None)
def test_reads_and_prints_as_json_format_does(everything: Any, value: Any) -> None:
    expected = json_format.ParseDict(value, everything())
    message = ours(everything, value)
    assert message.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    shown = printer(everything.DESCRIPTOR)(message)
    assert same(shown, json_format.MessageToDict(expected, always_print_fields_with_no_presence=True))


def test_integral_doubles_are_printed_as_integers(everything: Any) -> None:
    message = ours(everything, {"object": {"a": 3, "b": 2.5, "c": 1e300, "d": 2**53}, "real": 7})
    shown: Any = printer(everything.DESCRIPTOR)(message)
    assert {key: repr(value) for key, value in shown["object"].items()} == {
        "a": "3",
        "b": "2.5",
        "c": "1e+300",
        "d": "9007199254740992.0",
    }
    assert repr(shown["real"]) == "7"


def test_what_cannot_be_json_is_printed_still(everything: Any) -> None:
    message = everything(real=math.nan, single=-math.inf)
    message.value.number_value = math.inf
    message.at.seconds = 2**62
    shown: Any = printer(everything.DESCRIPTOR)(message)
    assert (shown["real"], shown["single"], shown["value"], shown["at"]) == ("NaN", "-Infinity", "Infinity", None)


def test_a_known_any_is_opened_and_an_unknown_one_kept(everything: Any) -> None:
    message = everything()
    message.any.Pack(ErrorInfo(reason="R", metadata={"a": "b"}))
    shown: Any = printer(everything.DESCRIPTOR)(message)
    url = "type.googleapis.com/google.rpc.ErrorInfo"
    assert shown["any"] == {"@type": url, "reason": "R", "domain": "", "metadata": {"a": "b"}}
    assert ours(everything, {"any": shown["any"]}) == message
    message.any.CopyFrom(AnyMessage(type_url="x/not.Known", value=b"\x00\xff"))
    shown = printer(everything.DESCRIPTOR)(message)
    assert shown["any"] == {"@type": "x/not.Known", "value": "AP8="}


def test_an_any_of_a_well_known_type_has_a_value(everything: Any) -> None:
    given_ = {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"}}
    message = ours(everything, given_)
    assert printer(everything.DESCRIPTOR)(message)["any"] == given_["any"]  # type: ignore[index]


def test_numbers_in_quotes_are_those_of_json(everything: Any) -> None:
    message = ours(everything, {"number": "1e2", "big": "-1.0", "real": "5e-1"})
    assert (message.number, message.big, message.real) == (100, -1, 0.5)


def test_both_names_and_unknown_fields(everything: Any) -> None:
    assert ours(everything, {"wrapped_text": "a", "nope": {"x": [1]}}) == ours(everything, {"wrappedText": "a"})
    assert ours(everything, {"renamed": "a"}) == ours(everything, {"other-name": "a"})


def test_null_means_unset_but_for_value(everything: Any) -> None:
    assert ours(everything, {"text": None, "inner": None, "list": None, "wrappedBig": None}) == everything()
    assert ours(everything, {"value": None}).HasField("value")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"number": "x"}, "number"),
        ({"number": 1.5}, "number"),
        ({"number": 2**31}, "number"),
        ({"number": True}, "number"),
        ({"number": "1_0"}, "number"),
        ({"number": "٣"}, "number"),
        ({"number": "+5"}, "number"),
        ({"number": "05"}, "number"),
        ({"number": "1.5"}, "number"),
        ({"real": ".5"}, "real"),
        ({"real": []}, "real"),
        ({"natural": -1}, "natural"),
        ({"big": "9" * 30}, "big"),
        ({"big": "9" * 5000}, "big"),
        ({"real": "1e999"}, "real"),
        ({"real": 10**400}, "real"),
        ({"real": False}, "real"),
        ({"single": 1e39}, "single"),
        ({"flag": "true"}, "flag"),
        ({"text": 5}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"data": "*"}, "data"),
        ({"data": "a"}, "data"),
        ({"data": "AP8=="}, "data"),
        ({"data": "+/88="}, "data"),
        ({"data": "===="}, "data"),
        ({"data": "é"}, "data"),
        ({"colour": "GREEN"}, "colour"),
        ({"colour": 2**40}, "colour"),
        ({"inner": []}, "inner"),
        ({"inner": "abc"}, "inner"),
        ({"inner": {"many": [{}, {"number": []}]}}, "inner.many[1].number"),
        ({"texts": "a"}, "texts"),
        ({"texts": [None]}, "texts[0]"),
        ({"labels": {"k": 1}}, 'labels["k"]'),
        ({"numbered": {"x": {}}}, 'numbered["x"]'),
        ({"numbered": {"1": {"flag": 0}}}, 'numbered["1"].flag'),
        ({"weights": {"maybe": 1}}, 'weights["maybe"]'),
        ({"weights": {"1": 1}}, 'weights["1"]'),
        ({"first": "a", "thirdOne": 1}, "third_one"),
        ({"wrapped_text": "a", "wrappedText": "a"}, "wrapped_text"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2024-13-45T99:99:99Z"}, "at"),
        ({"at": "0000-01-01T00:00:00Z"}, "at"),
        ({"at": "2024-01-01T00:00:00+24:00"}, "at"),
        ({"at": "2024-01-01T00:00:00-01:60"}, "at"),
        ({"at": 5}, "at"),
        ({"wait": "1"}, "wait"),
        ({"wait": "1m"}, "wait"),
        ({"wait": "01s"}, "wait"),
        ({"wait": ".s"}, "wait"),
        ({"wait": "1.0000000001s"}, "wait"),
        ({"wait": "999999999999s"}, "wait"),
        ({"object": {"a": {"b": "\ud800"}}}, "object.a.b"),
        ({"object": {"\ud800": 1}}, "object.?"),
        ({"object": []}, "object"),
        ({"object": {"n": 10**400}}, "object.n"),
        ({"values": {}}, "values"),
        ({"values": [[{"a": "\udfff"}]]}, "values[0][0].a"),
        ({"any": {"@type": "x/not.Known"}}, "any.@type"),
        ({"any": {"value": 1}}, "any"),
        ({"mask": "snake_case"}, "mask"),
        ({"wrappedBig": 1.5}, "wrapped_big"),
        ({"nothing": "null"}, "nothing"),
    ],
)
def test_refuses_with_the_path_of_the_field(everything: Any, value: Any, path: str) -> None:
    with pytest.raises(Malformed) as caught:
        ours(everything, value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"{'a':1}",
        b"\x00",
        b"[1,]",
        b"// x\n{}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_refuses_what_is_not_plain_json(body: bytes) -> None:
    with pytest.raises(Malformed):
        load_json(body)


def test_depth_that_the_wire_cannot_carry_is_refused(everything: Any) -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = {"a": value}
        return value

    assert encode(ours(everything, {"object": nested(24)}))
    for levels in (45, 100, 400):
        with pytest.raises(Malformed):
            encode(ours(everything, {"object": nested(levels)}))
