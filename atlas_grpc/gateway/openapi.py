"""The OpenAPI 3.1 document: the REST mirror from the descriptors, and the other routes of the port as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from google.rpc.status_pb2 import Status

from .. import __version__
from . import openapi_fixed
from .query import resolve
from .rest import rules_of
from .schemas import Schemas, load_comments
from .template import compile_template
from .wellknown import WRAPPERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

    from .rest import Rule
    from .schemas import Schema

_VARIABLE = re.compile(r"\{([\w.]+)=[^{}]*\}")
_TEXT_TYPES = WRAPPERS | {f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask")}
_JSON_TYPES = {f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue")}
_METHODS = {"GET", "PUT", "POST", "DELETE", "PATCH"}
"""A custom method of a rule is served, but OpenAPI 3.1 has no place for it."""
_ERROR_REF = {"$ref": "#/components/responses/Error"}


def document(services: Iterable[ServiceDescriptor], max_body: int) -> bytes:
    """The document as JSON, for these services and the fixed routes."""
    schemas = Schemas(load_comments())
    schemas.message(Status.DESCRIPTOR)
    paths: dict[str, dict[str, Any]] = {}
    tags = []
    for service in services:
        tags.append({"name": service.name, "description": schemas.comment(service.full_name)})
        for method in service.methods:
            for number, rule in enumerate(() if method.client_streaming else rules_of(method), 1):
                if rule.verb not in _METHODS:
                    continue
                path = _VARIABLE.sub(r"{\1}", rule.path)
                paths.setdefault(path, {})[rule.verb.lower()] = _operation(schemas, rule, number)
    paths |= openapi_fixed.PATHS
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {**openapi_fixed.INFO, "version": __version__},
            "servers": [{"url": "/"}],
            "tags": [*tags, *openapi_fixed.TAGS],
            "security": [{}, {"bearer": []}],
            "paths": paths,
            "components": {**openapi_fixed.components(max_body), "schemas": schemas.components},
        }
    )


def _operation(schemas: Schemas, rule: Rule, number: int) -> Schema:
    """One method under one path; `number` is 1 for its primary rule."""
    method = rule.method
    text = schemas.comment(method.full_name)
    variables = [variable.path for variable in compile_template(rule.path).variables]
    operation: Schema = {
        "operationId": method.name if number == 1 else f"{method.name}{number}",
        "tags": [method.containing_service.name],
        "summary": _first_sentence(text),
        "description": text,
        "parameters": [
            *(_path_parameter(schemas, method.input_type, path) for path in variables),
            *_query_parameters(schemas, rule, variables),
            {"$ref": "#/components/parameters/Namespace"},
            {"$ref": "#/components/parameters/Timeout"},
        ],
    }
    if method.server_streaming and "resume_token" in method.input_type.fields_by_name:
        operation["parameters"].append({"$ref": "#/components/parameters/LastEventId"})
    if rule.body:
        operation["requestBody"] = _request_body(schemas, rule, variables)
    operation["responses"] = {**_success(schemas, rule), "default": _ERROR_REF}
    return operation


def _first_sentence(text: str) -> str:
    flat = " ".join(text.split())
    match = re.match(r"(.{3,140}?)[.:;](\s|$)", flat)
    return match[1] if match else flat[:140]


def _path_parameter(schemas: Schemas, descriptor: Descriptor, path: str) -> Schema:
    schema = schemas.field(resolve(descriptor, path)[0][-1])
    text = schema.pop("description", "")
    return {"name": path, "in": "path", "required": True, "description": text, "schema": schema}


def _query_parameters(schemas: Schemas, rule: Rule, variables: list[str]) -> Iterator[Schema]:
    if rule.body == "*":
        return
    taken = {*variables, rule.body}
    for field in rule.method.input_type.fields:
        if field.name not in taken:
            yield from _parameters_of(schemas, field, "", (rule.method.input_type.full_name,))


def _parameters_of(schemas: Schemas, field: FieldDescriptor, prefix: str, around: tuple[str, ...]) -> Iterator[Schema]:
    """The parameters that set a field, with those of the messages inside it; `around` guards against recursion."""
    name = prefix + field.json_name
    kind = field.message_type
    is_map = kind is not None and kind.GetOptions().map_entry
    if kind is not None and not is_map and kind.full_name not in _TEXT_TYPES:
        if kind.full_name in _JSON_TYPES or field.is_repeated or kind.full_name in around:
            return
        for inner in kind.fields:
            yield from _parameters_of(schemas, inner, name + ".", (*around, kind.full_name))
        return
    schema = schemas.field(field)
    text = schema.pop("description", "")
    parameter: Schema = {"name": name, "in": "query", "description": text, "schema": schema}
    if is_map:
        # Swagger UI fills a form without example with entries that it makes up.
        parameter |= {"style": "deepObject", "explode": True, "example": {}}
    yield parameter


def _request_body(schemas: Schemas, rule: Rule, variables: list[str]) -> Schema:
    descriptor = rule.method.input_type
    if rule.body != "*":
        schema = schemas.field(descriptor.fields_by_name[rule.body])
    elif variables:
        schema = schemas.members(descriptor, frozenset(variables))
    else:
        schema = schemas.message(descriptor)
    content: Schema = {"schema": schema}
    if examples := openapi_fixed.REQUEST_EXAMPLES.get(rule.method.full_name):
        content["examples"] = examples
    return {"content": {"application/json": content}}


def _success(schemas: Schemas, rule: Rule) -> Schema:
    output = rule.method.output_type
    shown = schemas.field(output.fields_by_name[rule.response_body]) if rule.response_body else schemas.message(output)
    if not rule.method.server_streaming:
        text = schemas.comment(output.full_name) or "The answer."
        return {"200": {"description": text, "content": {"application/json": {"schema": shown}}}}
    line = {
        "type": "object",
        "description": "One line. `error` is in the last one only, when the stream did not end well.",
        "properties": {"result": shown, "error": {"$ref": "#/components/schemas/google.rpc.Status"}},
        "oneOf": [{"required": ["result"]}, {"required": ["error"]}],
    }
    return {
        "200": {
            "description": openapi_fixed.STREAM,
            "content": {
                "application/x-ndjson": {"schema": line},
                "text/event-stream": {"schema": {"type": "string"}, "example": openapi_fixed.EVENTS_EXAMPLE},
            },
        },
        "204": {"description": "Server-Sent Events only: there is nothing (more) to send; do not connect again."},
    }
