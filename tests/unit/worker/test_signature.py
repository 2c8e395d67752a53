from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - read at run time

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from atlas_grpc.model import EMPTY_OBJECT, Content
from atlas_grpc.worker import JobContext  # noqa: TC001 - read at run time
from atlas_grpc.worker.problems import InvalidHandler, PayloadRefused
from atlas_grpc.worker.signature import Signature


class Item(BaseModel):
    name: str
    weight: float = 1.0


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[Item]
    note: str | None = None


@dataclass
class Point:
    x: int
    y: int = 0


class Size(TypedDict):
    width: int


class Loose(BaseModel):
    a: int = 0


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def js(value):
    return Content(json.dumps(value).encode())


def model(args: Order, ctx: JobContext):
    return args


def with_dataclass(args: Point):
    return args


def typed_dict(args: Size):
    return args


def annotated(args: Annotated[Point, Field(description="Where.")]):
    return args


def plain_dict(args: dict[str, int]):
    return args


def keywords(path: str, level: Annotated[int, Field(ge=0, le=9)] = 3, tags: list[str] = [], *, ctx: JobContext):  # noqa: B006
    return path, level, tags, ctx


def only_context(ctx: JobContext):
    return ctx


def nothing():
    return "called"


def takes_bytes(data: bytes):
    return data


def takes_content(content: Content):
    return content


def found(fn, content):
    return [(one.field, one.description) for one in Signature(fn).violations(content)]


@pytest.mark.parametrize(
    ("fn", "payload", "returned"),
    [
        (with_dataclass, {"x": 1}, Point(1, 0)),
        (annotated, {"x": 1}, Point(1, 0)),
        (typed_dict, {"width": 2}, {"width": 2}),
        (plain_dict, {"a": 1}, {"a": 1}),
        (nothing, {}, "called"),
        (keywords, {"path": "p"}, ("p", 3, [], "CTX")),
        (keywords, {"path": "p", "level": 9, "tags": ["t"]}, ("p", 9, ["t"], "CTX")),
        (only_context, {}, "CTX"),
        (model, {"items": [{"name": "n", "weight": 3}]}, Order(items=[Item(name="n", weight=3.0)])),
    ],
)
def test_each_shape_is_called_with_what_was_sent(fn, payload, returned):
    assert Signature(fn).call(js(payload), "CTX") == returned
    assert found(fn, js(payload)) == []


def test_defaults_are_not_shared_between_calls():
    signature = Signature(keywords)
    signature.call(js({"path": "p"}), None)[2].append("dirt")
    assert signature.call(js({"path": "p"}), None)[2] == []


@pytest.mark.parametrize(
    ("fn", "payload", "fields"),
    [
        (keywords, {}, ["payload.path"]),
        (keywords, {"path": 3}, ["payload.path"]),
        (keywords, {"path": "p", "level": "3"}, ["payload.level"]),
        (keywords, {"path": "p", "level": True}, ["payload.level"]),
        (keywords, {"path": "p", "level": 3.5}, ["payload.level"]),
        (keywords, {"path": "p", "level": 10, "extra": 1}, ["payload.level", "payload.extra"]),
        (keywords, {"path": "p", "odd key\n": 1}, ['payload["odd key\\n"]']),
        (keywords, [], ["payload"]),
        (nothing, {"a": 1}, ["payload.a"]),
        (only_context, {"ctx": 1}, ["payload.ctx"]),
        (model, {"items": [{"name": "n"}, {"name": "n", "weight": "3"}]}, ["payload.items[1].weight"]),
        (model, {"items": [{"name": "n", "weight": True}]}, ["payload.items[0].weight"]),
        (plain_dict, {"a": "x"}, ["payload.a"]),
        (typed_dict, {"width": None}, ["payload.width"]),
    ],
)
def test_violations_name_the_field(fn, payload, fields):
    violations = Signature(fn).violations(js(payload))
    assert [one.field for one in violations] == fields
    assert all(one.description for one in violations)


def test_a_whole_number_is_a_number():
    assert found(model, js({"items": [{"name": "n", "weight": 3}]})) == []


def test_a_model_decides_about_extra_fields_itself():
    def f(args: Loose): ...

    assert found(f, js({"b": 1})) == []


@pytest.mark.parametrize("data", [b"", b"{", b'{"path":"\xff"}', b"\x00", b"[" * 100_000, b'{"path": NaN}'])
def test_what_is_no_json_is_a_violation(data):
    assert found(keywords, Content(data))[0][0].startswith("payload")


def test_violations_do_not_repeat_what_was_sent():
    def f(
        pet: Annotated[Cat | Dog, Field(discriminator="kind")],
        key: UUID,
        count: Annotated[int, Field(le=5)],
        mode: Literal["a", "b"],
    ): ...

    secret = "s3cret"
    payload = {"pet": {"kind": secret}, "key": secret, "count": 31337, "mode": secret}
    violations = found(f, js(payload))
    assert [field for field, _ in violations] == ["payload.pet", "payload.key", "payload.count", "payload.mode"]
    assert secret not in str(violations)
    assert "31337" not in str(violations)


def test_many_violations_are_bounded():
    violations = found(plain_dict, js({f"key{n}": "x" for n in range(1000)}))
    assert len(violations) == 51
    assert violations[-1] == ("payload", "and 950 more errors")


def test_a_hostile_key_gives_a_bounded_path():
    ((field, _),) = found(plain_dict, js({"k" * 100_000: "x"}))
    assert len(field) < 600
    ((field, _),) = found(plain_dict, js({"a\x00b": "x"}))
    assert "\x00" not in field


def test_bytes_come_as_they_were_sent():
    content = Content(b"\x00\xff", "image/png")
    assert Signature(takes_bytes).call(content, None) == b"\x00\xff"
    assert Signature(takes_content).call(content, None) is content
    assert Signature(takes_bytes).payload_schema() is None
    assert found(takes_bytes, content) == []
    assert found(takes_bytes, EMPTY_OBJECT)[0][0] == "payload"
    assert found(keywords, content)[0][0] == "payload_data.content_type"


def test_json_may_come_as_bytes_to_keep_large_numbers():
    def f(n: int):
        return n

    big = 2**63 - 1
    content = Content(b'{"n":%d}' % big, "application/json; charset=utf-8")
    assert found(f, content) == []
    assert Signature(f).call(content, None) == big
    assert found(f, Content(b'{"n":"x"}', "application/json"))[0][0] == "payload_data.n"


def test_a_payload_that_does_not_fit_is_not_executed():
    called = []

    def f(n: int):
        called.append(n)

    with pytest.raises(PayloadRefused) as refused:
        Signature(f).call(js({"n": "1"}), None)
    assert refused.value.violations[0].field == "payload.n"
    assert called == []


def test_schemas_are_json_schema():
    def f(path: Annotated[str, Field(description="Where.")], level: int = 3) -> Point: ...

    signature = Signature(f)
    schema = json.loads(signature.payload_schema())
    assert schema["properties"]["path"] == {"description": "Where.", "title": "Path", "type": "string"}
    assert schema["properties"]["level"]["default"] == 3
    assert schema["required"] == ["path"]
    assert schema["additionalProperties"] is False
    assert set(json.loads(signature.result_schema())["properties"]) == {"x", "y"}
    assert Signature(nothing).result_schema() is None
    assert json.loads(Signature(nothing).payload_schema())["properties"] == {}


def test_any_parameter_name_will_do():
    def f(json: int, copy: str, model_config: int, schema: int = 1):
        return json, copy, model_config, schema

    assert Signature(f).call(js({"json": 1, "copy": "c", "model_config": 2}), None) == (1, "c", 2, 1)


def bad_star(*args: int): ...
def bad_kwargs(**kw: int): ...
def bad_bare(x): ...
def bad_type(x: object.__init__): ...
def bad_name(x: Missing): ...  # noqa: F821
def bad_positional(x: int, y: int, /): ...


@pytest.mark.parametrize("fn", [bad_star, bad_kwargs, bad_bare, bad_type, bad_name, bad_positional])
def test_signatures_that_cannot_be_served_are_refused(fn):
    with pytest.raises(InvalidHandler, match=fn.__name__):
        Signature(fn)
