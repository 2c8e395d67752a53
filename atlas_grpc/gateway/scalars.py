"""Protobuf scalars from JSON values and from text (query parameters, path variables, map keys).

Both ways end in one place for ranges and for what protobuf cannot hold, so that body and query obey the same rules.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

INT32 = (-(2**31), 2**31 - 1)
_RANGES = {
    Field.CPPTYPE_INT32: INT32,
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOAT32_MAX = 3.4028235677973366e38
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_JSON_BOOLS = {"true": True, "false": False}
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
"""What is no percent-encoding."""


class Malformed(Exception):
    """A value that does not fit its field. `path` grows from the inside out as the error passes the levels."""

    def __init__(self, description: str, path: str = "") -> None:
        super().__init__(description)
        self.description = description
        self.path = path

    def within(self, name: str) -> Malformed:
        """The same error, seen from the message (`name` is a field) or list (`name` is `[3]`) around."""
        if self.path and not self.path.startswith("["):
            name += "."
        self.path = name + self.path
        return self


def is_null_value(enum: EnumDescriptor | None) -> bool:
    """Whether the enum is the one that stands for JSON's null."""
    return enum is not None and enum.full_name == "google.protobuf.NullValue"


def json_reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    """What turns a JSON value into a value of this scalar field. The function raises `Malformed`."""
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return lambda value: _json_integer(value, low, high)
    if kind in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        single = kind == Field.CPPTYPE_FLOAT
        return lambda value: _json_float(value, single=single)
    if kind == Field.CPPTYPE_BOOL:
        return _json_bool
    if field.enum_type is not None:
        return _json_enum(field.enum_type)
    return _json_bytes if field.type == Field.TYPE_BYTES else text


def text_reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """What turns the text of a query parameter, path variable or map key into a value of this scalar field."""
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return lambda value: _text_integer(value, low, high)
    if kind in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        single = kind == Field.CPPTYPE_FLOAT
        return lambda value: _text_float(value, single=single)
    if kind == Field.CPPTYPE_BOOL:
        return _text_bool
    if field.enum_type is not None:
        return _text_enum(field.enum_type)
    return _json_bytes if field.type == Field.TYPE_BYTES else text


def key_reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """What turns the name of a member of a JSON object into a key of a map."""
    return _json_bool_key if field.cpp_type == Field.CPPTYPE_BOOL else text_reader(field)


def _json_bool_key(value: str) -> bool:
    if value not in _JSON_BOOLS:
        raise Malformed("must be true or false")
    return _JSON_BOOLS[value]


def text(value: Any) -> str:
    """A string that protobuf can hold: no lone surrogates."""
    if not isinstance(value, str):
        raise Malformed("must be a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Malformed("must be valid Unicode") from None
    return value


def _json_integer(value: Any, low: int, high: int) -> int:
    if isinstance(value, str):
        value = _quoted_number(value, "must be an integer")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed("must be an integer")
    return _ranged(value, low, high)


def _quoted_number(value: str, description: str) -> float:
    """A JSON number that stands in quotes."""
    if not _JSON_NUMBER.fullmatch(value):
        raise Malformed(description)
    return int(value) if _WHOLE.fullmatch(value) else float(value)


def _text_integer(value: str, low: int, high: int) -> int:
    if not _WHOLE.fullmatch(value):
        raise Malformed("must be an integer")
    return _ranged(int(value), low, high)


def _ranged(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Malformed(f"must be from {low} to {high}")
    return value


def _json_float(value: Any, *, single: bool) -> float:
    if isinstance(value, str):
        if value in _SPECIAL:
            return _SPECIAL[value]
        value = _quoted_number(value, "must be a number")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Malformed("must be a number")
    return _sized(value, single=single)


def _text_float(value: str, *, single: bool) -> float:
    if value in _SPECIAL:
        return _SPECIAL[value]
    if not _NUMBER.fullmatch(value):
        raise Malformed("must be a number")
    return _sized(float(value), single=single)


def _sized(value: float, *, single: bool) -> float:
    number = to_double(value)
    if math.isinf(number) or (single and abs(number) > _FLOAT32_MAX):
        raise Malformed("is too large a number")
    return number


def to_double(value: float) -> float:
    """A JSON number as a double. Raises Malformed for an integer beyond its range."""
    try:
        return float(value)
    except OverflowError:
        raise Malformed("is too large a number") from None


def _json_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed("must be true or false")
    return value


def _text_bool(value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise Malformed("must be true or false")


def _json_bytes(value: Any) -> bytes:
    """Base64 in the standard or the URL alphabet, with or without padding."""
    if not isinstance(value, str):
        raise Malformed("must be a base64 string")
    plain = value.replace("-", "+").replace("_", "/")
    missing = -len(plain) % 4
    if missing and "=" in plain:
        raise Malformed("must be a base64 string")
    try:
        return base64.b64decode(plain + "=" * missing, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("must be a base64 string") from None


def _json_enum(enum: EnumDescriptor) -> Callable[[Any], int]:
    names = {value.name: value.number for value in enum.values}

    def read(value: Any) -> int:
        if isinstance(value, str) and value in names:
            return names[value]
        if isinstance(value, str):
            raise Malformed(f"must be a value of the enum {enum.name}")
        return _json_integer(value, *INT32)

    return read


def _text_enum(enum: EnumDescriptor) -> Callable[[str], int]:
    names = {value.name: value.number for value in enum.values}
    numbers = set(names.values())

    def read(value: str) -> int:
        number = names.get(value)
        if number is None and _WHOLE.fullmatch(value) and int(value) in numbers:
            number = int(value)
        if number is None:
            raise Malformed(f"must be a value of the enum {enum.name}")
        return number

    return read
