"""The JSON forms of the well-known types: how each is read and printed."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field

from .scalars import Malformed, json_reader, text, text_reader, to_double

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
EXACT = 2**53
"""Integers up to here are exact in a double; integral doubles below it are printed as integers."""
_MAX_DEPTH = 64
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_SECONDS = re.compile(r"[+-]?(?=[0-9.])((0|[1-9][0-9]{0,11})?(\.[0-9]{0,9})?)s")
_GO_DURATION = re.compile(r"(?=\.?[0-9])([0-9]{0,19})(?:\.([0-9]{0,40}))?(ns|us|µs|μs|ms|s|m|h)")
_GO_NANOS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6} | {
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONGEST = 315_576_000_000 * 10**9
"""Nanoseconds of the longest duration."""
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def number(value: float) -> object:
    """A double as JSON has it: integral ones without a fraction, the others that are not finite as strings."""
    if value.is_integer():
        return int(value) if -EXACT < value < EXACT else value
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_struct(message: Any, value: Any, depth: int = 0) -> None:
    """JSON object → google.protobuf.Struct."""
    if not isinstance(value, dict):
        raise Malformed("must be a JSON object")
    fields = message.fields
    for key, item in value.items():
        try:
            read_value(fields[text(key)], item, depth + 1)
        except Malformed as err:
            raise err.within(printable(key)) from None
    if not value:
        message.SetInParent()


def read_value(message: Any, value: Any, depth: int = 0) -> None:
    """Any JSON → google.protobuf.Value. What is nested too deeply for the wire is refused early here."""
    if depth > _MAX_DEPTH:
        raise Malformed("is nested too deeply")
    match value:
        case None:
            message.null_value = 0
        case bool():
            message.bool_value = value
        case int() | float():
            message.number_value = to_double(value)
        case str():
            message.string_value = text(value)
        case dict():
            read_struct(message.struct_value, value, depth)
        case _:
            read_list(message.list_value, value, depth)


def read_list(message: Any, value: Any, depth: int = 0) -> None:
    """JSON array → google.protobuf.ListValue."""
    if not isinstance(value, list):
        raise Malformed("must be a JSON array")
    values = message.values
    for index, item in enumerate(value):
        try:
            read_value(values.add(), item, depth + 1)
        except Malformed as err:
            raise err.within(f"[{index}]") from None
    if not value:
        message.SetInParent()


def printable(key: str) -> str:
    """A JSON key in a field path: what cannot be encoded becomes `?`, and it is kept short."""
    return key[:64].encode("utf-8", "replace").decode()


def read_timestamp(message: Any, value: Any) -> None:
    """RFC 3339 → google.protobuf.Timestamp."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise Malformed("must be a timestamp such as 2030-01-31T12:00:00Z")
    try:
        message.FromJsonString(value.upper())
        message.ToJsonString()
    except (ValueError, OverflowError):
        raise Malformed("must be a timestamp that the calendar has, from year 1 to 9999") from None
    message.SetInParent()


def read_duration(message: Any, value: Any) -> None:
    """`1.5s` → google.protobuf.Duration."""
    if not isinstance(value, str) or not _SECONDS.fullmatch(value):
        raise Malformed("must be a duration in seconds such as 1.5s")
    text_duration(message, value)


def text_duration(message: Any, value: str) -> None:
    """A duration in a query: `1.5s`, and as grpc-gateway has it also `250ms`, `1h30m` or `0`."""
    digits = value[1:] if value[:1] in ("+", "-") else value
    if digits != "0" and (not digits or _GO_DURATION.sub("", digits)):
        raise Malformed("must be a duration such as 1.5s, 250ms or 1h30m")
    nanos = sum(_nanos(whole, part, unit) for whole, part, unit in _GO_DURATION.findall(digits))
    if nanos > _LONGEST:
        raise Malformed("must be a duration of at most 10,000 years")
    message.FromNanoseconds(-nanos if value.startswith("-") else nanos)
    message.SetInParent()


def _nanos(whole: str, part: str, unit: str) -> int:
    return int(whole + part or "0") * _GO_NANOS[unit] // int(10 ** len(part))


def read_field_mask(message: Any, value: Any) -> None:
    """`a.fooBar,b` → google.protobuf.FieldMask."""
    if not isinstance(value, str):
        raise Malformed("must be a string of field paths")
    try:
        message.FromJsonString(text(value))
    except ValueError:
        raise Malformed("must be a string of field paths in lowerCamelCase") from None
    _check_paths(message)


def text_field_mask(message: Any, value: str) -> None:
    """Field paths in a query, where grpc-gateway has them by proto names: `a.foo_bar,b`."""
    message.paths.extend(value.split(",") if value else [])
    _check_paths(message)


def _check_paths(message: Any) -> None:
    try:
        message.ToJsonString()
        valid = all(_PATH.fullmatch(path) for path in message.paths)
    except ValueError:
        valid = False
    if not valid:
        raise Malformed("must be paths of fields")
    message.SetInParent()


def wrapper_reader(descriptor: Descriptor, *, query: bool) -> Callable[[Any, Any], None]:
    """What fills a wrapper such as google.protobuf.Int64Value from its bare value."""
    field = descriptor.fields_by_name["value"]
    convert = text_reader(field) if query else json_reader(field)

    def read(message: Any, value: Any) -> None:
        message.value = convert(value)
        message.SetInParent()

    return read


READERS: dict[str, Callable[[Any, Any], None]] = {
    "google.protobuf.Struct": read_struct,
    "google.protobuf.Value": read_value,
    "google.protobuf.ListValue": read_list,
    "google.protobuf.Timestamp": read_timestamp,
    "google.protobuf.Duration": read_duration,
    "google.protobuf.FieldMask": read_field_mask,
}
"""JSON readers of the types with a form of their own, by full name; wrappers and Any are apart."""

TEXT_READERS = {
    "google.protobuf.Timestamp": read_timestamp,
    "google.protobuf.Duration": text_duration,
    "google.protobuf.FieldMask": text_field_mask,
}
"""The types that a query parameter can hold as one text."""


def print_struct(message: Any) -> dict[str, object]:
    """google.protobuf.Struct → JSON object."""
    return {key: print_value(item) for key, item in message.fields.items()}


def print_list(message: Any) -> list[object]:
    """google.protobuf.ListValue → JSON array."""
    return [print_value(item) for item in message.values]


def print_value(message: Any) -> object:
    """google.protobuf.Value → JSON."""
    match message.WhichOneof("kind"):
        case "number_value":
            return number(message.number_value)
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return print_struct(message.struct_value)
        case "list_value":
            return print_list(message.list_value)
        case _:
            return None


def print_text(message: Any) -> object:
    """Timestamp, Duration, FieldMask. One beyond its range, which no checked answer holds, becomes null."""
    try:
        return message.ToJsonString()
    except (ValueError, OverflowError):
        return None


PRINTERS: dict[str, Callable[[Any], object]] = {
    "google.protobuf.Struct": print_struct,
    "google.protobuf.Value": print_value,
    "google.protobuf.ListValue": print_list,
    "google.protobuf.Timestamp": print_text,
    "google.protobuf.Duration": print_text,
    "google.protobuf.FieldMask": print_text,
}
"""JSON printers of the types with a form of their own, by full name; wrappers and Any are apart."""

SCALAR_STRINGS = frozenset({Field.CPPTYPE_INT64, Field.CPPTYPE_UINT64})
"""The kinds that JSON shows as strings."""
