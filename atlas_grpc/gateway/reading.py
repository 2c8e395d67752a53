"""JSON bodies to messages (protobuf's JSON mapping), compiled once per message type.

Unknown fields are ignored, as grpc-gateway does. Everything else that does not fit is refused with the path of the
field in proto names; unknown enum names too, although the Go gateway drops them. The JSON itself is read strictly:
UTF-8, no NaN or Infinity, no number beyond a double, no key twice in an object.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf import message_factory
from google.protobuf.message import DecodeError, EncodeError
from google.rpc import error_details_pb2

from .scalars import Malformed, is_null_value, json_reader, key_reader, text
from .wellknown import READERS, WRAPPERS, printable, wrapper_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    Fill = Callable[[Any, Any], None]

_POOL = error_details_pb2.DESCRIPTOR.pool
_VALUE = "google.protobuf.Value"


def load_json(body: bytes) -> Any:
    """The JSON value of a body. Raises `Malformed` for anything that is not plain JSON."""
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Malformed("must be JSON in UTF-8, nested at most a few dozen levels") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("must not have a key twice in one JSON object")
    return made


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise Malformed("must not hold a number beyond the range of a double")
    return value


def _constant(name: str) -> NoReturn:
    raise Malformed(f"must not hold {name}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


def encode(message: Message) -> bytes:
    """The message as bytes that a server can read back. Raises `Malformed` when it is nested deeper than that."""
    try:
        data = message.SerializeToString()
        type(message).FromString(data)
    except (EncodeError, DecodeError, ValueError, RecursionError):
        raise Malformed("is nested too deeply") from None
    return data


class MessageReader:
    """Fills messages of one type from JSON objects; `reader()` makes and keeps them."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, str, bool, Fill]] = {}

    def compile(self, descriptor: Descriptor) -> None:
        """Resolves the fields. Apart from construction because message types may be recursive."""
        for field in descriptor.fields:
            oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
            known = (field.name, oneof, _takes_null(field), field_reader(field))
            self._fields[field.name] = self._fields[field.json_name] = known

    def __call__(self, message: Any, value: Any) -> None:
        if not isinstance(value, dict):
            raise Malformed("must be a JSON object")
        message.SetInParent()
        seen: set[str] = set()
        for key, item in value.items():
            known = self._fields.get(key)
            if known is None:
                continue
            name, oneof, takes_null, fill = known
            if name in seen:
                raise Malformed("is given under both of its names", name)
            seen.add(name)
            if item is None and not takes_null:
                continue
            if oneof and message.WhichOneof(oneof):
                raise Malformed(f"excludes {message.WhichOneof(oneof)}: at most one of the two may be set", name)
            try:
                fill(message, item)
            except Malformed as err:
                raise err.within(name) from None


_readers: dict[str, Fill] = {**READERS}


def reader(descriptor: Descriptor) -> Fill:
    """What fills a message of this type from a JSON value. The function raises `Malformed`."""
    name = descriptor.full_name
    found = _readers.get(name)
    if found is None:
        if name == "google.protobuf.Any":
            found = _readers[name] = _read_any
        elif name in WRAPPERS:
            found = _readers[name] = wrapper_reader(descriptor, query=False)
        else:
            # Known before it is complete, so that a recursive type finds itself.
            found = _readers[name] = made = MessageReader()
            made.compile(descriptor)
    return found


def _takes_null(field: FieldDescriptor) -> bool:
    if field.is_repeated:
        return False
    if field.message_type is not None:
        return field.message_type.full_name == _VALUE
    return is_null_value(field.enum_type)


def field_reader(field: FieldDescriptor) -> Fill:
    """What sets the field of a message from a JSON value."""
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_filler(name, field.message_type)
    if field.is_repeated:
        return _list_filler(field)
    if field.message_type is not None:
        fill = reader(field.message_type)
        return lambda message, value: fill(getattr(message, name), value)
    convert = _scalar(field)
    return lambda message, value: setattr(message, name, convert(value))


def _scalar(field: FieldDescriptor) -> Callable[[Any], Any]:
    if not is_null_value(field.enum_type):
        return json_reader(field)

    convert = json_reader(field)
    return lambda value: 0 if value is None else convert(value)


def _list_filler(field: FieldDescriptor) -> Fill:
    add = _adder(field)

    def fill(message: Any, value: Any) -> None:
        if not isinstance(value, list):
            raise Malformed("must be a JSON array")
        target = getattr(message, field.name)
        for index, item in enumerate(value):
            try:
                add(target, item)
            except Malformed as err:
                raise err.within(f"[{index}]") from None

    return fill


def _adder(field: FieldDescriptor) -> Fill:
    if field.message_type is not None:
        fill = reader(field.message_type)
        return lambda target, item: fill(target.add(), item)
    convert = _scalar(field)
    return lambda target, item: target.append(convert(item))


def _map_filler(name: str, entry: Descriptor) -> Fill:
    read_key = key_reader(entry.fields_by_name["key"])
    put = _putter(entry.fields_by_name["value"])

    def fill(message: Any, value: Any) -> None:
        if not isinstance(value, dict):
            raise Malformed("must be a JSON object")
        target = getattr(message, name)
        for key, item in value.items():
            try:
                put(target, read_key(key), item)
            except Malformed as err:
                raise err.within(f'["{printable(key)}"]') from None

    return fill


def _putter(field: FieldDescriptor) -> Callable[[Any, Any, Any], None]:
    if field.message_type is not None:
        fill = reader(field.message_type)
        return lambda target, key, item: fill(target[key], item)
    convert = _scalar(field)
    return lambda target, key, item: target.__setitem__(key, convert(item))


def _read_any(message: Any, value: Any) -> None:
    """`{"@type": …, …}` → google.protobuf.Any, for types in the pool."""
    if not isinstance(value, dict):
        raise Malformed("must be a JSON object")
    message.SetInParent()
    if not value:
        return
    if "@type" not in value:
        raise Malformed("must name its type by @type")
    url = text(value["@type"])
    try:
        descriptor = _POOL.FindMessageTypeByName(url.rpartition("/")[2])
    except KeyError:
        raise Malformed("must be the URL of a known message type", "@type") from None
    inner = message_factory.GetMessageClass(descriptor)()
    fill = reader(descriptor)
    if isinstance(fill, MessageReader):
        fill(inner, {key: item for key, item in value.items() if key != "@type"})
    else:
        fill(inner, value.get("value"))
    message.type_url = url
    message.value = encode(inner)
