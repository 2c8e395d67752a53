"""Values on the command line: JSON, `key=value` pairs, durations, instants."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..config import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import IO

    ParamType = click.ParamType[Any]  # a generic class only since click 8.3
else:
    ParamType = click.ParamType

EXACT = 2**53
"""Integers in a payload travel as doubles, which are exact up to here."""


class DurationType(ParamType):
    """A time span such as `30s`; seconds as a float."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except ValueError:
            return self.fail(f"{value!r} is no time span: write 250ms, 30s, 5m, 1h30m or 7d", param, ctx)


class InstantType(ParamType):
    """An instant in ISO 8601; without an offset it is local time."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            return self.fail(f"{value!r} is no instant: write 2030-01-31T09:00 or 2030-01-31T09:00:00Z", param, ctx)


class PairType(ParamType):
    """`key=value`, both as they are."""

    name = "k=v"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not key or not equals:
            return self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


DURATION, INSTANT, PAIR = DurationType(), InstantType(), PairType()


class Payload(NamedTuple):
    """What a job is given: a JSON object, or bytes of some media type."""

    json: dict[str, Any] | None
    data: bytes = b""
    content_type: str = ""


def read_payload(words: Sequence[str], file: Path | None, content_type: str, stdin: Callable[[], IO[bytes]]) -> Payload:
    """The payload of the arguments: `{json}`, `@file`, `-` or `key=value` …; none means an empty object.

    Raises click.UsageError.
    """
    if file is not None:
        if words:
            raise click.UsageError("give the payload either as JSON or with --data, not both")
        return Payload(None, _read_bytes(file), content_type)
    if content_type:
        raise click.UsageError("--content-type belongs to --data")
    if len(words) == 1 and (words[0] == "-" or words[0].lstrip().startswith(("{", "[", "@"))):
        return Payload(_read_object(words[0], stdin))
    return Payload(read_pairs(words))


def _read_object(word: str, stdin: Callable[[], IO[bytes]]) -> dict[str, Any]:
    if word == "-":
        return parse_object(_decode(stdin().read(), "the standard input"), "the standard input")
    if word.startswith("@"):
        return parse_object(_decode(_read_bytes(word[1:]), word[1:]), word[1:])
    return parse_object(word, "the payload")


def _read_bytes(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a text may be no legal Path; open says so by OSError
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no file name"
        raise click.UsageError(f"{path}: {reason}") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{name}: is not UTF-8 text") from None


def parse_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object that travels unchanged; `name` says where it stood. Raises click.UsageError."""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"{name}: must be a JSON object, such as '{{\"seconds\": 3}}'")
    return value


def parse_json(text: str) -> Any:
    """A JSON value that a payload can carry. Raises ValueError for one that would be changed on the way."""
    try:
        value = json.loads(
            text, parse_constant=_no_number, parse_int=_exact, parse_float=_finite, object_pairs_hook=_no_repeat
        )
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()  # finds escaped halves of surrogate pairs
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise ValueError("holds text that is not Unicode") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _exact(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > EXACT:
        raise ValueError(f"the integer {text[:40]} is beyond 2^53: send it as a string or with --data")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _no_repeat(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    return found


def read_pairs(words: Iterable[str]) -> dict[str, Any]:
    """An object of `key=value` words; a value is JSON if it parses as such, else text. Raises click.UsageError."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{word!r} is neither a JSON object nor key=value, @file or -")
        if key in found:
            raise click.UsageError(f"{key} is given twice")
        found[key] = _typed(key, text)
    return found


def _typed(key: str, text: str) -> Any:
    try:
        json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return _text(key, text)
    try:
        return parse_json(text)
    except ValueError as error:
        raise click.UsageError(f"{key}: {error}") from None


def _text(key: str, text: str) -> str:
    try:
        (key + text).encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{key!r}: holds text that is not Unicode") from None
    return text
