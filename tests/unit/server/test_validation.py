"""Validation by the rules of the contract, and the short cut past the validator."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc import pb
from atlas_grpc.server.simple_rules import is_simply_valid
from atlas_grpc.server.validation import _collect, by_item, violations
from tests.support.messages import REQUESTS, random_message


def fields(message: Any) -> list[str]:
    return sorted(one.field for one in violations(message))


@pytest.mark.parametrize("kind", REQUESTS)
@given(seed=st.integers(0, 2**64))
def test_the_short_cut_never_passes_what_the_validator_refuses(kind: type, seed: int):
    message = random_message(kind, random.Random(seed))
    if is_simply_valid(message):
        assert not _collect(message)


def test_ordinary_requests_take_the_short_cut():
    sleep = pb.SubmitJobRequest(type="sleep", request_id="x", priority=3, queue="q")
    sleep.payload["seconds"] = 3
    full = pb.SubmitJobRequest(
        type="sleep",
        labels={"team": "web"},
        start_delay=Duration(seconds=5),
        attempt_timeout=Duration(nanos=1),
        retry_policy=pb.RetryPolicy(max_attempts=3, jitter=0.5, initial_backoff=Duration(seconds=1)),
    )
    for message in (
        sleep,
        full,
        pb.RunJobRequest(job=full),
        pb.GetJobRequest(id="x", view=pb.JOB_VIEW_FULL, wait=Duration(seconds=1)),
        pb.GetJobRequest(id="x"),
        pb.WatchJobRequest(id="x", include_logs=True),
        pb.CancelJobRequest(id="x", reason="because"),
        pb.ListJobsRequest(page_size=5),
    ):
        assert is_simply_valid(message)


def test_paths_are_those_of_the_contract():
    request = pb.SubmitJobRequest(
        type="9", queue="!", priority=101, request_id="a b", labels={"ok": "a\0", "not ok": ""},
        retry_policy=pb.RetryPolicy(max_attempts=0, non_retryable_reasons=["FINE", "not fine"]),
    )  # fmt: skip
    request.start_delay.seconds = -1
    request.total_timeout.seconds = 0
    request.payload_data.content_type = "no/t; \x7f"
    assert fields(request) == sorted(
        [
            "type",
            "queue",
            "priority",
            "request_id",
            "labels['ok']",
            "labels['not ok']",
            "retry_policy.max_attempts",
            "retry_policy.non_retryable_reasons[1]",
            "start_delay",
            "total_timeout",
            "payload_data.content_type",
        ]
    )


def test_no_media_type_keeps_the_short_cut_busy():
    """A pattern that can match a text in many ways takes Python exponential time to find that it does not."""
    request = pb.SubmitJobRequest(type="x", payload_data=pb.Data(content_type=";a" * 22 + "\x7f"))
    began = time.monotonic()
    assert not is_simply_valid(request)
    assert time.monotonic() - began < 1


@given(st.text("a; ", max_size=12))
def test_a_media_type_has_parts_between_semicolons(text: str):
    request = pb.SubmitJobRequest(type="x", payload_data=pb.Data(content_type=text))
    plainly = re.fullmatch("([!-~]+( *; *[!-~]+)*)?", text) is not None
    assert (is_simply_valid(request), not violations(request)) == (plainly, plainly)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_numbers_of_a_policy_are_finite(number: float):
    request = pb.SubmitJobRequest(type="x", retry_policy=pb.RetryPolicy(jitter=number, backoff_multiplier=number))
    assert {"retry_policy.jitter", "retry_policy.backoff_multiplier"} <= set(fields(request))


@pytest.mark.parametrize(
    "request_",
    [
        pb.GetJobRequest(),
        pb.GetJobRequest(id="x" * 65),
        pb.WatchJobRequest(resume_token="x"),
        pb.RunJobRequest(),
        pb.RunJobRequest(job=pb.SubmitJobRequest()),
        pb.SubmitJobsRequest(),
        pb.ListJobsRequest(page_size=-1),
        pb.ListJobsRequest(page_token="x" * 1025),
        pb.ListJobsRequest(filter=pb.JobFilter(ids=[""])),
        pb.WatchJobsRequest(filter=pb.JobFilter(states=[0])),
        pb.WatchJobsRequest(filter=pb.JobFilter(states=[1] * 17)),
    ],
)
def test_what_is_demanded_or_bounded(request_: Any):
    assert not is_simply_valid(request_)
    assert violations(request_)


def test_unknown_enum_numbers():
    data = pb.GetJobRequest(id="x").SerializeToString() + b"\x18\x63"
    assert fields(pb.GetJobRequest.FromString(data)) == ["view"]
    packed = pb.ListJobsRequest.FromString(b"\x0a\x03\x12\x01\x63")
    assert fields(packed) == ["filter.states[0]"]


def test_each_item_of_a_batch_on_its_own():
    good, bad = pb.SubmitJobRequest(type="x"), pb.SubmitJobRequest(type="", labels={"no no": ""})
    whole, items = by_item(pb.SubmitJobsRequest(requests=[good, bad, good, bad]), "requests")
    assert whole == []
    assert sorted(items) == [1, 3]
    assert {one.field for one in items[1]} == {"labels['no no']", "type"}
    assert by_item(pb.SubmitJobsRequest(requests=[good] * 1000), "requests") == ([], {})
    for count in (0, 1001):
        whole, _ = by_item(pb.SubmitJobsRequest(requests=[good] * count), "requests")
        assert [one.field for one in whole] == ["requests"]


def test_every_field_of_every_request_is_generated():
    """The generator of the tests above knows all kinds of fields there are."""
    known = {FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM}
    assert {field.cpp_type for kind in REQUESTS for field in kind.DESCRIPTOR.fields} >= known
