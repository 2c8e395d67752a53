"""The REST mirror: every method with a `google.api.http` rule, routed and transcoded as grpc-gateway does it.

All of it is resolved at start: path templates, the fields that path, body and query fill, the printer of the answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor  # noqa: TC002 - a NamedTuple keeps its types

from ..errors import Code
from . import metadata
from .calls import Exchange
from .failures import (
    Disconnected,
    Failure,
    malformed,
    status_as,
    too_large,
    unknown_path,
    wrong_content_type,
    wrong_method,
)
from .faults import report
from .http import JSON
from .printing import field_printer, printer
from .query import QueryReader, path_setter
from .reading import encode, field_reader, load_json, reader
from .scalars import Malformed
from .streams import Events, Lines, find_position
from .template import compile_template, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import grpc.aio
    from google.api.http_pb2 import HttpRule
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    from .calls import Calls
    from .http import Request
    from .streams import Framing
    from .template import Template

_JSON_TYPE = re.compile(rb"application/([\w.+-]+\+)?json[ \t]*(;.*)?", re.IGNORECASE | re.DOTALL)
_STREAM_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Rule(NamedTuple):
    """One way to call a method over HTTP."""

    method: MethodDescriptor
    verb: str
    path: str
    body: str
    response_body: str


def rules_of(method: MethodDescriptor) -> Iterator[Rule]:
    """The primary binding of a method, then the additional ones; nothing for a method without a rule."""
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    primary = options.Extensions[annotations_pb2.http]
    for rule in (primary, *primary.additional_bindings):
        yield Rule(method, *_pattern(rule), rule.body, rule.response_body)


def _pattern(rule: HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        msg = "a google.api.http rule has no pattern"
        raise ValueError(msg)
    if kind == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    return kind.upper(), getattr(rule, kind)


class Transcoder:
    """Makes the request message of one binding from path, body and query."""

    def __init__(self, rule: Rule, template: Template) -> None:
        descriptor = rule.method.input_type
        variables = template.variables
        self.wants_body = bool(rule.body)
        self._new = message_factory.GetMessageClass(descriptor)
        self._variables = [(variable, path_setter(descriptor, variable.path)) for variable in variables]
        self._resumes = rule.method.server_streaming and "resume_token" in descriptor.fields_by_name
        self._body: Callable[[Any, Any], None] | None = None
        self._query: QueryReader | None = None
        if rule.body == "*":
            self._body = reader(descriptor)
        else:
            taken = [variable.path for variable in variables]
            if rule.body:
                self._body = field_reader(descriptor.fields_by_name[rule.body])
                taken.append(rule.body)
            self._query = QueryReader(descriptor, taken)
        self._field = "" if rule.body == "*" else rule.body

    def __call__(self, request: Request, groups: tuple[bytes, ...], body: bytes) -> bytes:
        """The serialized request. Raises `Malformed`."""
        message: Any = self._new()
        if self._body is not None and body and not body.isspace():
            self._fill(message, body)
        if self._query is not None and request.query:
            self._query(message, request.query)
        for (variable, put), raw in zip(self._variables, groups, strict=True):
            put(message, decode(raw, variable))
        if self._resumes:
            last = request.headers.get(b"last-event-id")
            if last:
                message.resume_token = _header_text(last, "resume_token")
        return encode(message)

    def _fill(self, message: Message, body: bytes) -> None:
        value = load_json(body)
        if self._body is None:
            return
        try:
            self._body(message, value)
        except Malformed as err:
            raise err.within(self._field) if self._field else err from None


class Binding:
    """One rule, ready to serve."""

    def __init__(self, rule: Rule, template: Template, call: Any, calls: Calls, limit: int) -> None:
        self.rule = rule
        self.template = template
        self.streaming = rule.method.server_streaming
        self._call = call
        self._calls = calls
        self._limit = limit
        self._transcode = Transcoder(rule, template)
        output = rule.method.output_type
        self._show = field_printer(output.fields_by_name[rule.response_body]) if rule.response_body else printer(output)
        self._position = find_position(output)

    async def __call__(self, request: Request, groups: tuple[bytes, ...]) -> None:
        """Serves one request. Raises `Failure` as long as nothing has been answered."""
        body = b""
        if self._transcode.wants_body:
            _check_content_type(request.headers)
            body = await request.body(self._limit)
        try:
            data = self._transcode(request, groups, body)
            sent = metadata.call_metadata(request.fields)
            timeout = metadata.timeout(request.headers)
        except Malformed as err:
            raise malformed(err) from None
        if len(data) > self._limit:
            raise too_large(self._limit)
        call = self._call(data, metadata=sent, timeout=timeout)
        if self.streaming:
            await self._stream(request, call)
            return
        answer, initial = await self._calls.unary(request, call)
        await request.reply(200, msgspec.json.encode(self._show(answer)), JSON, metadata.answer_headers(initial))

    async def _stream(self, request: Request, call: Any) -> None:
        events = b"text/event-stream" in request.headers.get(b"accept", b"").lower()
        framing: Framing = Events(self._show, self._position) if events else Lines(self._show)
        with Exchange(self._calls, request, call, streaming=True) as exchange:
            message = await exchange.read()
            headers = metadata.answer_headers(await call.initial_metadata())
            if message is None and events:
                # The one answer that makes a browser's EventSource stop connecting again.
                await request.start(204, headers)
                await request.write(b"", more=False)
                return
            await request.start(200, [(b"content-type", framing.content_type), *_STREAM_HEADERS, *headers])
            last = await _relay(request, exchange, framing, message)
            await request.write(last, more=False)


async def _relay(request: Request, exchange: Exchange, framing: Framing, message: Message | None) -> bytes:
    """Writes the messages as they come; answers what ends the stream."""
    try:
        while message is not None:
            await request.write(framing.message(message))
            message = await exchange.read()
    except Failure as failure:
        return framing.error(failure.status)
    except Disconnected:
        raise
    except Exception as err:
        report(err, request.path)
        return framing.error(status_as(Code.INTERNAL))
    return framing.end()


def _header_text(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("must be UTF-8", field) from None


def _check_content_type(headers: dict[bytes, bytes]) -> None:
    kind = headers.get(b"content-type")
    if kind is None or _JSON_TYPE.fullmatch(kind.strip()):
        return
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        raise wrong_content_type()


class Router:
    """Finds the binding of a path: verbs first, then by how literal the template is, then the later declared."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        grouped: dict[bytes, tuple[Template, dict[str, Binding]]] = {}
        for binding in bindings:
            _, methods = grouped.setdefault(binding.template.regex.pattern, (binding.template, {}))
            methods[binding.rule.verb] = binding
            if binding.rule.verb == "GET" and not binding.streaming:
                methods["HEAD"] = binding
        latest_first = list(grouped.values())[::-1]
        self._entries = sorted(latest_first, key=lambda entry: entry[0].rank)

    def find(self, method: str, path: bytes) -> tuple[Binding, tuple[bytes, ...]]:
        """The binding, and what its variables matched. Raises a 404 or 405 `Failure`."""
        allowed: set[str] = set()
        for template, methods in self._entries:
            match = template.regex.fullmatch(path)
            if match is None:
                continue
            binding = methods.get(method)
            if binding is not None:
                return binding, match.groups()
            allowed |= methods.keys()
            if template.verb:
                break
        if allowed:
            raise wrong_method(sorted(allowed))
        raise unknown_path()


def make_bindings(
    channel: grpc.aio.Channel, services: Iterable[ServiceDescriptor], calls: Calls, limit: int
) -> Iterator[Binding]:
    """The bindings of all methods of the services; methods that take a stream have no REST form."""
    for service in services:
        for method in service.methods:
            if method.client_streaming:
                continue
            call = _multi_callable(channel, method)
            for rule in rules_of(method):
                yield Binding(rule, compile_template(rule.path), call, calls, limit)


def _multi_callable(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    """The call of a method that takes the serialized request, so that it is serialized once."""
    connect = channel.unary_stream if method.server_streaming else channel.unary_unary
    answer = message_factory.GetMessageClass(method.output_type)
    return connect(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=None,
        response_deserializer=answer.FromString,
    )
