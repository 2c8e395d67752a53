"""JSON Schemas (2020-12) of messages: from descriptors, `google.api.field_behavior` and `buf.validate` rules."""

from __future__ import annotations

import itertools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor as Field

from .._gen.buf.validate import validate_pb2
from .scalars import INT32
from .wellknown import WRAPPERS

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

    Schema = dict[str, Any]

PACKAGE = "atlas.v1."
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}
_LIMITS = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_NUMBERS = {"int32", "uint32", "sint32", "fixed32", "sfixed32", "float", "double"}


def load_comments() -> dict[str, str]:
    """The comments of the .proto files by full name (written by proto/openapi.py)."""
    file = resources.files("atlas_grpc._gen") / "comments.json"
    loaded: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


class Schemas:
    """Makes schemas and collects the messages and enums they refer to in `components`."""

    def __init__(self, comments: dict[str, str]) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments

    def comment(self, full_name: str) -> str:
        return self._comments.get(full_name, "")

    def message(self, descriptor: Descriptor) -> Schema:
        """The schema of a message: inline for well-known types, else a reference."""
        if descriptor.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[descriptor.full_name])
        if descriptor.full_name in WRAPPERS:
            return self._scalar(descriptor.fields_by_name["value"])
        name = _component(descriptor.full_name)
        if name not in self.components:
            self.components[name] = {}
            self.components[name].update(self.members(descriptor))
        return {"$ref": f"#/components/schemas/{name}"}

    def members(self, descriptor: Descriptor, leave_out: frozenset[str] = frozenset()) -> Schema:
        """The object schema of a message without the fields in `leave_out`."""
        fields = [field for field in descriptor.fields if field.name not in leave_out]
        schema: Schema = {"type": "object"}
        if text := self.comment(descriptor.full_name):
            schema["description"] = text
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        if required := [field.json_name for field in fields if _behaves(field, field_behavior_pb2.REQUIRED)]:
            schema["required"] = required
        if exclusions := list(_exclusions(descriptor)):
            schema["allOf"] = exclusions
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field with its comment and constraints."""
        rules = field.GetOptions().Extensions[validate_pb2.field]
        schema = self._shape(field, rules)
        if text := self.comment(field.full_name):
            schema["description"] = text
        if _behaves(field, field_behavior_pb2.OUTPUT_ONLY):
            schema["readOnly"] = True
        return schema

    def _shape(self, field: FieldDescriptor, rules: Any) -> Schema:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type, rules)
        if not field.is_repeated:
            return {**self._single(field), **_constraints(rules)}
        items = {**self._single(field), **_constraints(rules.repeated.items)}
        schema: Schema = {"type": "array", "items": items}
        if rules.repeated.HasField("min_items"):
            schema["minItems"] = rules.repeated.min_items
        if rules.repeated.HasField("max_items"):
            schema["maxItems"] = rules.repeated.max_items
        return schema

    def _map(self, entry: Descriptor, rules: Any) -> Schema:
        values = {**self._single(entry.fields_by_name["value"]), **_constraints(rules.map.values)}
        schema: Schema = {"type": "object", "additionalProperties": values}
        if keys := _constraints(rules.map.keys):
            schema["propertyNames"] = keys
        if rules.map.HasField("max_pairs"):
            schema["maxProperties"] = rules.map.max_pairs
        return schema

    def _single(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return self._scalar(field)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        name = _component(enum.full_name)
        if name not in self.components:
            lines = [self.comment(enum.full_name), ""]
            lines += [f"- `{one.name}`: {self.comment(f'{enum.full_name}.{one.name}')}" for one in enum.values]
            self.components[name] = {
                "type": "string",
                "enum": [one.name for one in enum.values],
                "description": "\n".join(lines).strip(),
            }
        return {"$ref": f"#/components/schemas/{name}"}

    def _scalar(self, field: FieldDescriptor) -> Schema:
        match field.cpp_type:
            case Field.CPPTYPE_INT32:
                return {"type": "integer", "format": "int32", "minimum": INT32[0], "maximum": INT32[1]}
            case Field.CPPTYPE_UINT32:
                return {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
            case Field.CPPTYPE_INT64:
                return {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$", "examples": ["7"]}
            case Field.CPPTYPE_UINT64:
                return {"type": "string", "format": "uint64", "pattern": "^[0-9]+$", "examples": ["7"]}
            case Field.CPPTYPE_DOUBLE:
                return {"type": "number", "format": "double"}
            case Field.CPPTYPE_FLOAT:
                return {"type": "number", "format": "float"}
            case Field.CPPTYPE_BOOL:
                return {"type": "boolean"}
            case _ if field.type == Field.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            case _:
                return {"type": "string"}


def _component(full_name: str) -> str:
    return full_name.removeprefix(PACKAGE)


def _behaves(field: FieldDescriptor, behavior: int) -> bool:
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _exclusions(descriptor: Descriptor) -> list[Schema]:
    """At most one field of each oneof."""
    found: list[Schema] = []
    for oneof in descriptor.oneofs:
        names = [field.json_name for field in oneof.fields]
        found += [{"not": {"required": list(pair)}} for pair in itertools.combinations(names, 2)]
    return found


def _constraints(rules: Any) -> Schema:
    """The JSON Schema keywords of the rules of one value, where JSON Schema has a simple one."""
    kind = rules.WhichOneof("type")
    if kind == "string":
        return _text_limits(rules.string)
    if kind == "bytes" and rules.bytes.HasField("max_len"):
        return {"maxLength": -(-rules.bytes.max_len // 3) * 4}
    if kind in _NUMBERS:
        numbers = getattr(rules, kind)
        return {keyword: getattr(numbers, name) for name, keyword in _LIMITS.items() if numbers.HasField(name)}
    return {}


def _text_limits(rules: Any) -> Schema:
    schema: Schema = {}
    if rules.HasField("min_len"):
        schema["minLength"] = rules.min_len
    if rules.HasField("max_len"):
        schema["maxLength"] = rules.max_len
    if rules.HasField("pattern"):
        schema["pattern"] = rules.pattern
    return schema
