from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType

import msgspec
import pydantic
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc import errors, pb
from atlas_grpc._gen.atlas.v1.job_pb2 import Job
from atlas_grpc.client import JobState, SubmitOptions, new_job
from atlas_grpc.client._requests import job_filter
from atlas_grpc.client._values import MAX_DEPTH, fill_struct, struct_to_python, to_python

WHEN = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)


class Colour(Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    when: datetime
    colour: Colour


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class Packed(msgspec.Struct):
    size: float


def round_trip(payload):
    struct = Struct()
    fill_struct(struct, payload, "payload")
    return struct_to_python(Struct.FromString(struct.SerializeToString()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_survives(payload):
    assert round_trip(payload) == payload


def test_integral_doubles_are_ints():
    numbers = round_trip({"a": 3.0, "b": 3.5, "c": 2.0**53, "d": -0.0, "e": 10**15})
    assert {key for key, number in numbers.items() if type(number) is int} == {"a", "d", "e"}


@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        (Point(3, ["a"]), {"x": 3, "tags": ["a"]}),
        (Model(when=WHEN, colour=Colour.RED), {"when": "2030-01-02T03:04:05.678901Z", "colour": "red"}),
        (Packed(1.5), {"size": 1.5}),
        ({"p": Point(1), "m": Model(when=WHEN, colour=Colour.RED)}, None),
        ({"state": JobState.PENDING, "id": uuid.UUID(int=5), "nested": (1, {"a": {2}})}, None),
        (MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
        ({}, {}),
    ],
)
def test_payloads_in_their_python_forms(payload, sent):
    request = new_job("sleep", payload)
    assert request.WhichOneof("input") == "payload"
    found = struct_to_python(request.payload)
    if sent is not None:
        assert found == sent
    else:
        assert all(isinstance(value, dict | str | list) for value in found.values())


def nested(depth):
    return {"a": nested(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"a": [1, {"b": 2**53 + 1}]}, "payload.a[1].b"),
        ({"a": object()}, "payload.a"),
        ({"a": 1j}, "payload.a"),
        ([1, 2], "payload"),
        ({"a": "\ud800"}, "payload"),
        ({"a": {"b": {3, "x", object()}}}, "payload.a.b"),
    ],
)
def test_what_cannot_be_sent_is_named(payload, path):
    with pytest.raises(errors.InvalidArgument) as caught:
        new_job("sleep", payload)
    assert caught.value.violations[0].field == path


def test_depth_is_bounded():
    assert round_trip(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100):
        with pytest.raises(errors.InvalidArgument):
            new_job("sleep", nested(depth))


def test_bytes_go_with_their_type():
    request = new_job("resize", b"\x00\xff", content_type="image/png")
    assert (request.payload_data.data, request.payload_data.content_type) == (b"\x00\xff", "image/png")
    with pytest.raises(errors.InvalidArgument):
        new_job("sleep", {}, content_type="image/png")


def test_every_option_reaches_its_field():
    given_options: SubmitOptions = {
        "queue": "slow",
        "labels": {"a": "b"},
        "priority": -3,
        "delay": 1.5,
        "max_attempts": 4,
        "initial_backoff": timedelta(milliseconds=250),
        "backoff_multiplier": 1.5,
        "max_backoff": 60,
        "jitter": 0.0,
        "non_retryable_reasons": ["BROKEN"],
        "attempt_timeout": 10,
        "total_timeout": timedelta(hours=1),
        "start_timeout": 5,
        "retention": 0,
        "request_id": "mine",
        "validate_only": True,
    }
    assert set(given_options) | {"start_time", "content_type"} == set(SubmitOptions.__annotations__)
    request = new_job("sleep", {}, **given_options)
    expected = pb.SubmitJobRequest(
        type="sleep", payload={}, queue="slow", labels={"a": "b"}, priority=-3, request_id="mine", validate_only=True
    )
    expected.start_delay.FromMilliseconds(1500)
    policy = expected.retry_policy
    policy.max_attempts, policy.backoff_multiplier, policy.jitter = 4, 1.5, 0.0
    policy.initial_backoff.FromMilliseconds(250)
    policy.max_backoff.FromSeconds(60)
    policy.non_retryable_reasons.append("BROKEN")
    expected.attempt_timeout.FromSeconds(10)
    expected.total_timeout.FromSeconds(3600)
    expected.start_timeout.FromSeconds(5)
    expected.retention.FromSeconds(0)
    assert request == expected
    assert request.retry_policy.HasField("jitter")
    assert request.HasField("retention")


def test_start_time_needs_a_zone():
    assert new_job("sleep", start_time=WHEN).start_time.ToDatetime(UTC) == WHEN
    with pytest.raises(errors.InvalidArgument):
        new_job("sleep", start_time=WHEN.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay", -1),
        ("delay", float("nan")),
        ("retention", float("inf")),
        ("total_timeout", 1e300),
        ("priority", 2**40),
        ("max_attempts", -(2**40)),
    ],
)
def test_options_out_of_range_are_invalid_arguments(name, value):
    with pytest.raises(errors.InvalidArgument):
        new_job("sleep", **{name: value})


@pytest.mark.parametrize("name", ["payload_data", "retry_policy", "start_delay", "no_such_option"])
def test_only_the_named_options_exist(name):
    with pytest.raises(TypeError):
        new_job("sleep", **{name: 1})


def test_none_means_left_out():
    request = new_job("sleep", queue=None, delay=None, max_attempts=None, request_id="x")
    assert request == pb.SubmitJobRequest(type="sleep", request_id="x")


def test_request_ids_are_set_and_differ():
    assert new_job("sleep").request_id != new_job("sleep").request_id
    assert new_job("sleep", validate_only=True).request_id == ""


def test_filters():
    chosen = job_filter(states=[JobState.PENDING, "RUNNING"], types=["sleep"], create_time_from=WHEN)
    assert list(chosen.states) == [Job.PENDING, Job.RUNNING]
    assert chosen.create_time_from.ToDatetime(UTC) == WHEN
    with pytest.raises(errors.InvalidArgument):
        job_filter(states=["SLEEPING"])


def test_states_are_those_of_the_contract():
    assert [state.value for state in JobState] == list(Job.State.keys())
    terminal = {state for state in JobState if state.terminal}
    assert terminal == {"SUCCESS", "FAILED", "CANCELLED"}


def test_a_value_without_kind_is_null():
    assert to_python(Value()) is None
