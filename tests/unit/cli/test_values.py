"""Arguments of the command line: payloads, pairs, time spans, instants."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import pytest

from atlas_grpc.cli.values import DURATION, INSTANT, PAIR, parse_json, read_payload

if TYPE_CHECKING:
    from pathlib import Path


def payload(*words: str, stdin: str = "") -> Any:
    return read_payload(words, None, "", lambda: io.BytesIO(stdin.encode())).json


def test_nothing_is_an_empty_object() -> None:
    assert payload() == {}


def test_an_object_as_it_is() -> None:
    assert payload(' {"seconds": 3, "deep": {"list": [1, 2.5, null, true]}}') == {
        "seconds": 3,
        "deep": {"list": [1, 2.5, None, True]},
    }


def test_pairs_are_json_where_they_parse_and_text_otherwise() -> None:
    words = ("a=3", "b=2.5", "c=true", "d=hello", 'e="3"', "f=[1,2]", "g=", "h=x=y", "i=NaN", "j={bad")
    assert payload(*words) == {
        "a": 3,
        "b": 2.5,
        "c": True,
        "d": "hello",
        "e": "3",
        "f": [1, 2],
        "g": "",
        "h": "x=y",
        "i": "NaN",
        "j": "{bad",
    }


def test_a_pair_may_hold_an_object() -> None:
    assert payload('a={"b": 1}') == {"a": {"b": 1}}


def test_standard_input_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"a": "ü"}', encoding="utf-8")
    assert payload("-", stdin='{"a": 1}') == {"a": 1}
    assert payload(f"@{file}") == {"a": "ü"}


def test_bytes_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(b"\x00\xff")
    found = read_payload((), file, "image/png", io.BytesIO)
    assert found == (None, b"\x00\xff", "image/png")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("[1]",), "must be a JSON object"),
        (("{",), "not JSON"),
        (('{"a": NaN}',), "NaN"),
        (('{"a": -Infinity}',), "-Infinity"),
        (('{"a": 1e999}',), "too large"),
        (('{"a": 9007199254740993}',), "2^53"),
        (('{"a": 1, "a": 2}',), "twice"),
        (('{"a": "\\ud800"}',), "not Unicode"),
        (('{"a": "\udc80"}',), "not Unicode"),
        (('{"a":' * 100_000,), "nested"),
        (("a=1", "a=2"), "twice"),
        (("a=\udc80",), "not Unicode"),
        (("a=9007199254740993",), "2^53"),
        (("a=1", "b"), "neither"),
        (("=1",), "neither"),
        (("@/does/not/exist",), "No such file"),
        (("@\0",), "no file name"),
    ],
)
def test_what_is_no_payload_is_wrong_usage(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        payload(*words)
    assert said in caught.value.message


def test_payload_and_bytes_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError):
        read_payload(("a=1",), tmp_path, "", io.BytesIO)
    with pytest.raises(click.UsageError):
        read_payload((), None, "image/png", io.BytesIO)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"\xff")
    with pytest.raises(click.UsageError) as caught:
        payload(f"@{file}")
    assert "UTF-8" in caught.value.message


def test_integers_up_to_the_edge_are_exact() -> None:
    assert parse_json(str(2**53)) == 2**53
    with pytest.raises(ValueError, match="2\\^53"):
        parse_json(str(-(2**53) - 1))


def test_the_types_of_options() -> None:
    assert DURATION.convert("1h30m", None, None) == 5400.0
    assert PAIR.convert("a=b=c", None, None) == ("a", "b=c")
    assert INSTANT.convert("2030-01-31T09:00:00Z", None, None) == datetime(2030, 1, 31, 9, tzinfo=UTC)
    assert INSTANT.convert("2030-01-31T09:00", None, None).tzinfo is not None


@pytest.mark.parametrize(("kind", "text"), [(DURATION, "soon"), (PAIR, "a"), (PAIR, "=a"), (INSTANT, "tomorrow")])
def test_bad_values_of_options(kind: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
