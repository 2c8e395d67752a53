"""Query parameters and path variables to message fields, as grpc-gateway reads them.

`filter.states=PENDING&filter.states=RUNNING&filter.labels[env]=prod&page_size=10`: proto or JSON names, dotted paths,
repeated keys for lists, `k[x]=v` for maps. Unknown names are ignored; a value that does not fit, a scalar that is given
twice, and a name below what is no message are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .reading import load_json, reader
from .scalars import BAD_ESCAPE, Malformed, text_reader
from .wellknown import TEXT_READERS, WRAPPERS, printable, wrapper_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    Apply = Callable[[Any, list[str], str | None], None]
    Put = Callable[[Any, str], None]

_MAX_PARAMETERS = 4096
_MAX_DEPTH = 8
_KEYED = re.compile(r"(.*?)\[(.*)\]", re.DOTALL)
_JSON_TYPES = {"google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue"}


class QueryReader:
    """Applies the query of one binding to its request. `taken` are the fields that path and body fill."""

    def __init__(self, descriptor: Descriptor, taken: Iterable[str]) -> None:
        self._descriptor = descriptor
        self._taken = [path.split(".") for path in taken]
        self._known: dict[str, tuple[list[FieldDescriptor], Apply]] = {}

    def __call__(self, message: Any, query: bytes) -> None:
        """Raises `Malformed` with the path of the field that is wrong."""
        seen: set[tuple[str, str | None]] = set()
        for key, values in _grouped(query).items():
            keyed = _KEYED.fullmatch(key)
            name, entry = (keyed[1], keyed[2]) if keyed else (key, None)
            found = self._known.get(name) or self._find(name)
            if found is None:
                continue
            path, apply = found
            dotted = _dotted(path)
            if (dotted, entry) in seen:
                raise Malformed("is given under both of its names", dotted)
            seen.add((dotted, entry))
            try:
                apply(_parent(message, path), values, entry)
            except Malformed as err:
                raise err.within(dotted) from None

    def _find(self, name: str) -> tuple[list[FieldDescriptor], Apply] | None:
        path, below = resolve(self._descriptor, name)
        names = [field.name for field in path]
        if not path or any(_share(names, taken) for taken in self._taken):
            return None
        if below:
            raise Malformed("is no message and has no fields", _dotted(path))
        self._known[name] = path, _applier(path[-1])
        return self._known[name]


def _share(one: list[str], other: list[str]) -> bool:
    """Whether two paths are the same, or one leads through the other."""
    common = min(len(one), len(other))
    return one[:common] == other[:common]


def resolve(descriptor: Descriptor, dotted: str) -> tuple[list[FieldDescriptor], bool]:
    """The fields that a dotted path of proto or JSON names goes through; none when there is no such path.

    Also whether the path goes on below the last of them, which has no fields.
    """
    path: list[FieldDescriptor] = []
    current: Descriptor | None = descriptor
    for name in dotted.split(".", _MAX_DEPTH):
        if current is None:
            return path, True
        field = current.fields_by_name.get(name) or next((f for f in current.fields if f.json_name == name), None)
        if field is None:
            return [], False
        path.append(field)
        current = None if field.is_repeated else field.message_type
    return path, False


def _dotted(path: list[FieldDescriptor]) -> str:
    return ".".join(field.name for field in path)


def path_setter(descriptor: Descriptor, dotted: str) -> Put:
    """What sets the field of a path variable. Raises ValueError when the variable does not name a single value."""
    path, below = resolve(descriptor, dotted)
    if not path or below or path[-1].is_repeated:
        msg = f"path variable {dotted!r} is no field of {descriptor.full_name} with a single value"
        raise ValueError(msg)
    put = _single(path[-1])

    def set_variable(message: Any, value: str) -> None:
        try:
            put(_parent(message, path), value)
        except Malformed as err:
            raise err.within(dotted) from None

    return set_variable


def _grouped(query: bytes) -> dict[str, list[str]]:
    try:
        if BAD_ESCAPE.search(query):
            raise ValueError
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        message = f"must be percent-encoded UTF-8 with at most {_MAX_PARAMETERS} parameters"
        raise Malformed(message, "query") from None
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def _parent(message: Any, path: list[FieldDescriptor]) -> Any:
    """The message that holds the last field, made on the way."""
    for field in path[:-1]:
        _claim_oneof(message, field)
        message = getattr(message, field.name)
    return message


def _claim_oneof(message: Any, field: FieldDescriptor) -> None:
    if field.containing_oneof is not None:
        other = message.WhichOneof(field.containing_oneof.name)
        if other and other != field.name:
            raise Malformed(f"excludes {other}: at most one of the two may be set")


def _applier(field: FieldDescriptor) -> Apply:
    """What applies all values of a parameter to the field. It gets the key in brackets, or None."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_applier(field.name, field.message_type)
    put = _element(field) if field.is_repeated else _single(field)

    def apply(message: Any, values: list[str], entry: str | None) -> None:
        if entry is not None:
            raise Malformed("is no map and takes no key in brackets")
        if not field.is_repeated and len(values) > 1:
            raise Malformed("must be given once")
        for value in values:
            put(message, value)

    return apply


def _map_applier(name: str, kind: Descriptor) -> Apply:
    read_key = text_reader(kind.fields_by_name["key"])
    value_field = kind.fields_by_name["value"]
    nested = value_field.message_type
    fill = _message_reader(nested) if nested is not None else None
    read_value = text_reader(value_field)

    def apply(message: Any, values: list[str], entry: str | None) -> None:
        if entry is None:
            raise Malformed(f"is a map: write {name}[key]=value")
        if len(values) > 1:
            raise Malformed("must be given once", f'["{printable(entry)}"]')
        target = getattr(message, name)
        try:
            if fill is not None:
                fill(target[read_key(entry)], values[0])
            else:
                target[read_key(entry)] = read_value(values[0])
        except Malformed as err:
            raise err.within(f'["{printable(entry)}"]') from None

    return apply


def _element(field: FieldDescriptor) -> Put:
    name = field.name
    if field.message_type is not None:
        fill = _message_reader(field.message_type)
        return lambda message, value: fill(getattr(message, name).add(), value)
    convert = text_reader(field)
    return lambda message, value: getattr(message, name).append(convert(value))


def _single(field: FieldDescriptor) -> Put:
    name = field.name
    if field.message_type is not None:
        fill = _message_reader(field.message_type)

        def put_message(message: Any, value: str) -> None:
            _claim_oneof(message, field)
            fill(getattr(message, name), value)

        return put_message
    convert = text_reader(field)

    def put(message: Any, value: str) -> None:
        _claim_oneof(message, field)
        setattr(message, name, convert(value))

    return put


def _message_reader(kind: Descriptor) -> Put:
    """What fills a message from one text: the well-known types that have such a form."""
    if kind.full_name in TEXT_READERS:
        return TEXT_READERS[kind.full_name]
    if kind.full_name in WRAPPERS:
        return wrapper_reader(kind, query=True)
    if kind.full_name in _JSON_TYPES:
        fill = reader(kind)
        return lambda message, value: fill(message, load_json(value.encode()))

    def refuse(_message: Any, _value: str) -> None:
        raise Malformed("is a message: name one of its fields")

    return refuse
