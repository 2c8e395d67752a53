"""Struct and Value <-> plain Python values."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import ListValue, Struct, Value

_EXACT = 2**53


class NotJson(ValueError):
    """A Value that has no JSON: a number that is not finite, or no kind at all. `args` are its path and the reason."""


def from_struct(struct: Struct) -> dict[str, Any]:
    """A dict of None, bool, int, float, str, list and dict. Doubles that are whole and below 2^53 become int.

    Raises NotJson.
    """
    out: dict[str, Any] = {}
    fields = struct.fields
    for key in fields:  # `items` takes twice as long
        try:
            out[key] = from_value(fields[key])
        except NotJson as error:
            raise NotJson(f".{key}{error.args[0]}", error.args[1]) from None
    return out


def from_value(value: Value) -> Any:
    """The plain value of a Value, as in `from_struct`. Raises NotJson."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        if number.is_integer():
            return int(number) if -_EXACT < number < _EXACT else number
        if not isfinite(number):
            raise NotJson("", "must be a finite number")
        return number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return _from_list(value.list_value)
    if kind == "null_value":
        return None
    raise NotJson("", "has no value")


def _from_list(values: ListValue) -> list[Any]:
    out = []
    for index, value in enumerate(values.values):
        try:
            out.append(from_value(value))
        except NotJson as error:
            raise NotJson(f"[{index}]{error.args[0]}", error.args[1]) from None
    return out


def fill_struct(struct: Struct, values: dict[str, Any]) -> None:
    """Writes a dict into an empty Struct."""
    fields = struct.fields
    for key, value in values.items():
        fill_value(fields[key], value)
    if not values:
        struct.SetInParent()


def fill_value(target: Value, value: Any) -> None:
    """Writes a plain value into an empty Value."""
    if value is None:
        target.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        fill_struct(target.struct_value, value)
    else:
        target.list_value.SetInParent()
        for item in value:
            fill_value(target.list_value.values.add(), item)
