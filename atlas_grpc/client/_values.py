"""Python values <-> the JSON of protobuf, durations and instants: the one place of the client that converts them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE
from google.protobuf.timestamp_pb2 import Timestamp

from ..errors import InvalidArgument, seconds

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import ListValue, Struct, Value

MAX_DEPTH = 24
"""Levels of objects and lists in a payload, as `SubmitJobRequest.payload` says."""
EXACT = 2**53
"""From here on a double no longer holds every integer."""
_MAX_SPAN = 315_576_000_000
_NUMBERS = (int, float)
_JSON = (str, int, float, bool, dict, list, tuple, type(None))


@runtime_checkable
class SupportsModelDump(Protocol):
    """A Pydantic model, or what looks like one."""

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]:
        """The fields as JSON types, for `mode="json"`."""
        ...


class SupportsDataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Payload: TypeAlias = "Mapping[str, Any] | SupportsModelDump | SupportsDataclass | msgspec.Struct | bytes | None"
"""What a job is given: an object in one of its Python forms, or bytes."""
Span: TypeAlias = float | timedelta
"""A time span: seconds, or a timedelta."""


def fill_struct(struct: Struct, payload: object, path: str) -> None:
    """Writes a payload into an empty Struct. Raises InvalidArgument for what JSON or doubles cannot hold."""
    try:
        data = payload if type(payload) is dict else _builtin(payload, path)
        if type(data) is not dict:
            raise InvalidArgument.of(path, "must be an object: a mapping, a dataclass or a model")
        struct.SetInParent()
        _fill_object(struct, data, path, 1)
    except UnicodeEncodeError:
        raise InvalidArgument.of(path, "holds text that is not valid Unicode") from None


def to_python(value: Value) -> Any:
    """The Python value of a JSON value; doubles that are integers below 2^53 become ints."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and -EXACT < number < EXACT else number
    if kind == "struct_value":
        return struct_to_python(value.struct_value)
    if kind == "list_value":
        return [to_python(item) for item in value.list_value.values]
    return value.bool_value if kind == "bool_value" else None


def struct_to_python(struct: Struct) -> dict[str, Any]:
    """The dict of a JSON object."""
    return {key: to_python(value) for key, value in struct.fields.items()}


def to_duration(field: str, value: Span) -> Duration:
    """A time span on the wire. Raises InvalidArgument when it is negative, not finite or beyond 10,000 years."""
    try:
        span = seconds(value)
    except ValueError as err:
        raise InvalidArgument.of(field, str(err)) from None
    if span > _MAX_SPAN:
        raise InvalidArgument.of(field, "is longer than a duration can be")
    nanos = round(span * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def to_timestamp(field: str, value: datetime) -> Timestamp:
    """An instant on the wire. Raises InvalidArgument for a datetime without time zone."""
    if value.tzinfo is None:
        raise InvalidArgument.of(field, "must be a datetime with a time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp


def instant(timestamp: Timestamp) -> datetime:
    """The aware datetime, in UTC, of an instant."""
    return timestamp.ToDatetime(UTC)


def _fill_object(struct: Struct, data: Mapping[str, object], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgument.of(path, f"is nested more than {MAX_DEPTH} levels deep")
    fields = struct.fields
    for key, item in data.items():
        if type(key) is not str:
            raise InvalidArgument.of(path, "has a key that is not a string")
        _fill(fields[key], item, path, key, depth)


def _fill_list(target: ListValue, items: list[object] | tuple[object, ...], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgument.of(path, f"is nested more than {MAX_DEPTH} levels deep")
    values = target.values
    for index, item in enumerate(items):
        _fill(values.add(), item, path, index, depth)


def _fill(value: Value, item: object, path: str, key: str | int, depth: int) -> None:
    if isinstance(item, str) and type(item) is str:
        value.string_value = item
    elif item is None:
        value.null_value = NULL_VALUE
    elif isinstance(item, bool):
        value.bool_value = item
    elif isinstance(item, int | float) and type(item) in _NUMBERS:
        if type(item) is int and not -EXACT <= item <= EXACT:
            raise InvalidArgument.of(_join(path, key), "is an integer that a double cannot hold exactly")
        value.number_value = item
    elif isinstance(item, dict):
        value.struct_value.SetInParent()
        _fill_object(value.struct_value, item, _join(path, key), depth + 1)
    elif isinstance(item, list | tuple):
        value.list_value.SetInParent()
        _fill_list(value.list_value, item, _join(path, key), depth + 1)
    else:
        _fill(value, _builtin(item, _join(path, key)), path, key, depth)


def _join(path: str, key: str | int) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"


def _builtin(item: object, path: str) -> object:
    try:
        plain = msgspec.to_builtins(item, str_keys=True, enc_hook=_dump)
    except (TypeError, ValueError, RecursionError):
        plain = item
    if type(plain) not in _JSON:
        raise InvalidArgument.of(path, f"holds a {type(item).__qualname__}, which has no JSON form")
    return plain


def _dump(item: object) -> object:
    if isinstance(item, SupportsModelDump):
        return item.model_dump(mode="json")
    if isinstance(item, Mapping):  # one that is no dict, such as a read-only view
        return dict(item)
    raise TypeError(type(item).__qualname__)
