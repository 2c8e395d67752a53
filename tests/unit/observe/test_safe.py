"""Whatever is logged becomes small, plain and printable."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.model import Content, State
from atlas_grpc.observe import safe


class Unprintable:
    def __str__(self):
        raise SystemExit("no text for you")

    __repr__ = __str__


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


class Liar(str):
    __slots__ = ()

    def __str__(self):
        return self

    def __getitem__(self, _key):
        raise RuntimeError("no characters for you")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, True),
        (7, 7),
        (2**80, hex(2**80)),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, None),
        (State.RUNNING, "RUNNING"),
        (b"secret", "<6 bytes>"),
        (Content(b"secret"), "<Content>"),
        (Unprintable(), "<Unprintable>"),
        (timedelta(seconds=90), "0:01:30"),
        ("a\ud800b", "a\\ud800b"),
        (Liar("text"), "text"),
        ((1, "two", {"three": 3}), [1, "two", {"three": 3}]),
        ({"payload": {"key": "secret"}, "id": 1}, {"payload": "<withheld>", "id": 1}),
    ],
)
def test_plain(value, shown):
    assert safe.plain(value) == shown


def test_text_is_bounded():
    assert safe.text("x" * 10_000_000, 10) == "x" * 10 + "…"
    assert len(safe.field("name", "x" * 10_000_000)) == safe.MAX_TEXT + 1


def test_containers_are_bounded():
    assert len(safe.plain(list(range(1000)))) == 51
    assert len(safe.plain({str(n): n for n in range(1000)})) == 51
    endless: list[object] = []
    endless.append(endless)
    assert safe.plain(endless) == [[[["<1 items>"]]]]


@pytest.mark.parametrize("name", ["payload", "result", "payload_data", "request"])
def test_what_jobs_carry_is_withheld(name):
    assert safe.field(name, {"card": "4111"}) == "<withheld>"


def test_an_exception_keeps_type_message_stack_and_cause():
    def fails():
        try:
            {}["inner"]
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        fails()
    described = safe.exception(caught.value)
    assert described["type"] == "builtins.ValueError"
    assert described["message"] == "outer"
    assert described["stack"][-1].endswith("fails")
    assert described["cause"]["type"] == "builtins.KeyError"


@pytest.mark.parametrize("error", [UnprintableError(), Exception(Unprintable()), Exception("x" * 50_000_000)])
def test_an_exception_that_cannot_be_printed_is_still_described(error):
    described = safe.exception(error)
    assert len(described["message"]) <= safe.MAX_MESSAGE + 1
    assert len(msgspec.json.encode(described)) < 2_000


def test_a_deep_stack_is_cut_in_the_middle():
    def descend(depth):
        if depth:
            descend(depth - 1)
        raise ValueError

    with pytest.raises(ValueError) as caught:
        descend(200)
    stack = safe.exception(caught.value)["stack"]
    assert len(stack) == 25
    assert stack[4] == "… 178 more"
    assert stack[0].endswith("test_a_deep_stack_is_cut_in_the_middle")


def test_a_chain_that_bites_its_tail_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "cause" not in safe.exception(one)["cause"]


def test_a_group_shows_its_first_members():
    described = safe.exception(ExceptionGroup("several", [ValueError(str(n)) for n in range(9)]))
    assert [one["message"] for one in described["exceptions"]] == ["0", "1", "2", "3"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


@given(ANYTHING)
def test_every_value_becomes_json(value):
    json.loads(msgspec.json.encode(safe.plain(value)))
