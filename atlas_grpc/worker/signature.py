"""How a handler takes its arguments: the model made from its signature, validation, binding and JSON Schemas."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from ..errors import Violation
from ..model import Content
from .callables import hints_of, is_context
from .depends import Plan, dependency_of
from .problems import InvalidHandler, PayloadRefused
from .violations import violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import JobContext
    from .depends import Overrides

T = TypeVar("T")

Shape = Literal["nothing", "model", "keywords", "bytes", "content"]
"""What the parameters beside the context are: none, one model, plain parameters, bytes, or a `Content` as it came."""

_TAKES_BYTES = "this job type takes bytes: send payload_data"
_TAKES_JSON = "this job type takes a JSON object: send payload, or payload_data of type application/json"
_FORBID_EXTRA = ConfigDict(extra="forbid")


class Signature:
    """The parameters and the result of a handler; `overrides` has what stands in for some of its dependencies. Raises
    `InvalidHandler` for those that cannot be served."""

    __slots__ = ("_adapter", "_context", "_fn", "_model", "_name", "_shape", "_validate", "dependencies", "result")

    def __init__(self, fn: Callable[..., Any], overrides: Overrides | None = None) -> None:
        self._fn = fn
        self._name = fn.__qualname__
        hints = hints_of(self._name, fn, result=True)
        parameters = self._parameters(hints)
        self._context = next((p for p in parameters if is_context(p, hints)), None)
        made_by = {p.name: dependency_of(self._name, p, hints) for p in parameters}
        rest = [p for p in parameters if p is not self._context and made_by[p.name] is None]
        wanted = {name: fn for name, fn in made_by.items() if fn is not None}
        self.dependencies: Plan | None = None
        """How its dependencies are made; None when it has none."""
        if wanted:
            self.dependencies = Plan(self._name, wanted, overrides or {}, asynchronous=inspect.iscoroutinefunction(fn))
        self._shape, self._model = self._classify(rest, hints)
        self._adapter: TypeAdapter[Any] | None = None
        self._validate: Callable[..., Any] | None = None
        if self._shape in ("nothing", "model", "keywords"):
            self._adapter = self._adapt(self._model)
            self._validate = self._adapter.validator.validate_json
        self.result: TypeAdapter[Any] | None = self._adapt_result(hints.get("return", inspect.Parameter.empty))
        """The declared type of the result; None when it declares none, or bytes."""

    @property
    def takes_context(self) -> bool:
        return self._context is not None or (self.dependencies is not None and self.dependencies.takes_context)

    def payload_schema(self) -> bytes | None:
        """JSON Schema (2020-12) of the payload; None when it takes bytes."""
        return None if self._adapter is None else self._schema(self._adapter, "validation")

    def result_schema(self) -> bytes | None:
        """JSON Schema of the result; None when none is declared."""
        return None if self.result is None else self._schema(self.result, "serialization")

    def violations(self, content: Content) -> list[Violation]:
        """What is wrong with a payload; empty when the handler takes it."""
        if self._validate is not None and content.content_type is None:
            try:
                self._validate(content.data, strict=True)
            except ValidationError as exc:
                return violations(exc, "payload")
            return []
        try:
            self._load(content)
        except PayloadRefused as exc:
            return list(exc.violations)
        return []

    def call(self, content: Content, context: JobContext | None) -> Any:
        """Calls a function without dependencies. `context` is given when `takes_context`. Raises `PayloadRefused`, or
        what it raises."""
        named = {} if self._context is None else {self._context.name: context}
        if self._shape == "nothing":
            if content.data != b"{}":
                self._load(content)
            return self._fn(**named)
        return self._apply(self._load(content), named)

    def perform(self, content: Content, context: JobContext | None, conclude: Callable[[Any], T]) -> T:
        """Calls a plain function, with its dependencies, and answers what `conclude` makes of its result.

        That is done before they are cleaned up: a result may need them to be written as JSON, and one that is refused
        is a failure that they have to see.
        """
        if self.dependencies is None:
            return conclude(self.call(content, context))
        value = self._load(content)
        stack: ExitStack[None] = ExitStack()
        with stack:
            given = self.dependencies.open(context, stack)
            return conclude(self._apply(value, self._named(context, given)))

    async def perform_async(self, content: Content, context: JobContext | None, conclude: Callable[[Any], T]) -> T:
        """The same for a coroutine function."""
        if self.dependencies is None:
            return conclude(await self.call(content, context))
        value = self._load(content)
        stack: AsyncExitStack[None] = AsyncExitStack()
        async with stack:
            given = await self.dependencies.open_async(context, stack)
            return conclude(await self._apply(value, self._named(context, given)))

    def _named(self, context: JobContext | None, given: dict[str, Any]) -> dict[str, Any]:
        return given if self._context is None else {self._context.name: context, **given}

    def _apply(self, value: Any, named: dict[str, Any]) -> Any:
        if self._shape == "keywords":
            return self._fn(**vars(value), **named)
        if self._shape == "nothing":
            return self._fn(**named)
        return self._fn(value, **named)

    def _load(self, content: Content) -> Any:
        if self._shape == "content":
            return content
        if self._validate is None:
            if content.is_json:
                raise PayloadRefused([Violation("payload", _TAKES_BYTES)])
            return content.data
        if content.content_type is not None and not _is_json_type(content.content_type):
            raise PayloadRefused([Violation("payload_data.content_type", _TAKES_JSON)])
        try:
            return self._validate(content.data, strict=True)
        except ValidationError as exc:
            raise PayloadRefused(violations(exc, "payload" if content.is_json else "payload_data")) from None

    def _parameters(self, hints: dict[str, Any]) -> list[inspect.Parameter]:
        parameters = list(inspect.signature(self._fn).parameters.values())
        for p in parameters:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise InvalidHandler(self._name, f"parameter *{p.name} cannot be described: name each one")
            if p.name not in hints and not is_context(p, hints):
                raise InvalidHandler(self._name, f"parameter {p.name!r} has no annotation")
            by_name = is_context(p, hints) or dependency_of(self._name, p, hints) is not None
            if by_name and p.kind is p.POSITIONAL_ONLY:
                raise InvalidHandler(self._name, f"parameter {p.name!r} must not be positional-only")
        return parameters

    def _classify(self, rest: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[Shape, Any]:
        if not rest:
            return "nothing", self._keywords_model(rest, hints)
        if len(rest) == 1 and rest[0].kind is not inspect.Parameter.KEYWORD_ONLY:
            hint = hints[rest[0].name]
            if hint is bytes:
                return "bytes", None
            if hint is Content:
                return "content", None
            if _is_model(hint):
                return "model", hint
        for p in rest:
            if p.kind is p.POSITIONAL_ONLY:
                raise InvalidHandler(self._name, f"parameter {p.name!r} must not be positional-only")
        return "keywords", self._keywords_model(rest, hints)

    def _keywords_model(self, rest: list[inspect.Parameter], hints: dict[str, Any]) -> Any:
        """A dataclass of plain parameters: unlike a BaseModel, it leaves them any name."""
        fields: list[Any] = [(p.name, hints[p.name], _default(p)) for p in rest]
        name = "".join(part.capitalize() for part in self._fn.__name__.split("_")) + "Args"
        namespace = {"__pydantic_config__": _FORBID_EXTRA}
        return dataclasses.make_dataclass(name, fields, namespace=namespace, kw_only=True)

    def _adapt(self, model: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(model)
        except Exception as exc:
            raise InvalidHandler(self._name, f"its types cannot be validated: {exc}") from exc

    def _adapt_result(self, hint: Any) -> TypeAdapter[Any] | None:
        undeclared = (inspect.Parameter.empty, None, type(None), Any, bytes, Content, object)
        return None if hint in undeclared else self._adapt(hint)

    def _schema(self, adapter: TypeAdapter[Any], mode: Literal["validation", "serialization"]) -> bytes:
        try:
            return msgspec.json.encode(adapter.json_schema(mode=mode))
        except Exception as exc:
            raise InvalidHandler(self._name, f"its types have no JSON Schema: {exc}") from exc


def _is_model(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin = get_origin(hint) or hint
    if is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return True
    return isinstance(origin, type) and issubclass(origin, BaseModel | dict)


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return dataclasses.field()
    if isinstance(default, FieldInfo) or type(default).__hash__ is not None:
        return dataclasses.field(default=default)
    return dataclasses.field(default_factory=partial(copy.deepcopy, default))


def _is_json_type(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
