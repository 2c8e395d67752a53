"""From a submission to a spec: defaults, policy, fingerprint, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from atlas_grpc import lifecycle
from atlas_grpc.engine.submit import (
    SHORTEST_RETENTION,
    RetryOverride,
    Submission,
    build,
    effective_policy,
    fingerprint,
    reused,
    type_of,
)
from atlas_grpc.errors import Code, InvalidArgument, RequestIdReused
from atlas_grpc.model import Content, RetryPolicy, TypeInfo
from tests.unit.engine.world import FixedCatalog

NOW = 1_000
POLICY = RetryPolicy(5, 10, 3.0, 100, 0.5, ("A",))
INFO = TypeInfo("t", queue="of type", retry=POLICY, attempt_timeout=11, total_timeout=22)
PLAIN = Submission("ns", "t")
FULL = Submission(
    "ns",
    "t",
    Content(b'{"a":1}'),
    queue="mine",
    labels={"a": "1", "b": "2"},
    priority=7,
    start_delay=50,
    retry=RetryOverride(max_attempts=9, jitter=0.0),
    attempt_timeout=1,
    total_timeout=2,
    start_timeout=3,
    retention=7_000_000,
    request_id="r",
    traceparent="00-x",
)
CHANGES: dict[str, Any] = {
    "type": "other",
    "payload": Content(b'{"a":2}'),
    "queue": "yours",
    "labels": {"a": "1"},
    "priority": 8,
    "retry": RetryOverride(max_attempts=8, jitter=0.0),
    "attempt_timeout": 10,
    "total_timeout": 20,
    "start_timeout": 30,
    "retention": 40_000_000,
    "start_delay": 60,
}


def spec_of(sub: Submission, now: int = NOW, job_id: str = "id") -> lifecycle.JobSpec:
    return build(sub, job_id, now, replace(INFO, name=sub.type), 7_770_000)


def test_what_is_left_open_comes_from_the_type_and_the_server() -> None:
    spec = spec_of(PLAIN)
    assert (spec.id, spec.namespace, spec.type, spec.queue) == ("id", "ns", "t", "of type")
    assert spec.payload == Content(b"{}")
    assert spec.retry == POLICY
    assert (spec.attempt_timeout, spec.total_timeout, spec.start_timeout) == (11, 22, None)
    assert spec.create_time == spec.start_time == NOW
    assert spec.retention == 7_770_000
    assert (spec.labels, spec.priority, spec.request_id, spec.fingerprint) == ({}, 0, "", b"")


def test_what_is_said_wins() -> None:
    spec = spec_of(FULL)
    assert (spec.queue, spec.labels, spec.priority) == ("mine", {"a": "1", "b": "2"}, 7)
    assert spec.payload == Content(b'{"a":1}')
    assert spec.retry == replace(POLICY, max_attempts=9, jitter=0.0)
    assert (spec.attempt_timeout, spec.total_timeout, spec.start_timeout) == (1, 2, 3)
    assert (spec.create_time, spec.start_time) == (NOW, NOW + 50)
    assert spec.retention == 7_000_000
    assert (spec.request_id, spec.traceparent) == ("r", "00-x")
    assert spec.fingerprint == fingerprint(FULL)


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"start_time": NOW + 500}, NOW + 500),
        ({"start_time": NOW - 500}, NOW),
        ({"start_delay": 0}, NOW),
        ({"start_delay": 9}, NOW + 9),
    ],
)
def test_the_start(fields: dict[str, int], start: int) -> None:
    assert spec_of(replace(PLAIN, **fields)).start_time == start


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 1),
        ("initial_backoff", 0),
        ("multiplier", 1.0),
        ("max_backoff", 0),
        ("jitter", 0.0),
        ("non_retryable", ()),
    ],
)
def test_each_part_of_the_policy_can_be_set_alone(field: str, value: object) -> None:
    chosen = effective_policy(POLICY, RetryOverride(**{field: value}))
    assert chosen == replace(POLICY, **{field: value})


def test_no_override_is_the_types_policy() -> None:
    assert effective_policy(POLICY, None) is POLICY
    assert effective_policy(POLICY, RetryOverride()) == POLICY


def test_the_same_request_has_the_same_fingerprint() -> None:
    again = replace(FULL, labels={"b": "2", "a": "1"}, request_id="x", traceparent="", namespace="elsewhere")
    assert fingerprint(again) == fingerprint(FULL)
    assert len(fingerprint(FULL)) == 16


@pytest.mark.parametrize("field", CHANGES)
def test_another_request_has_another_fingerprint(field: str) -> None:
    assert fingerprint(replace(FULL, **{field: CHANGES[field]})) != fingerprint(FULL)


def test_json_and_bytes_of_the_same_content_differ() -> None:
    assert fingerprint(replace(PLAIN, payload=Content(b"{}", ""))) != fingerprint(PLAIN)


def test_at_a_time_and_after_a_delay_differ() -> None:
    assert fingerprint(replace(PLAIN, start_time=5)) != fingerprint(replace(PLAIN, start_delay=5))


@pytest.mark.parametrize("field", CHANGES)
def test_a_reused_request_id_names_what_differs(field: str) -> None:
    first = lifecycle.submitted(spec_of(FULL))
    error = reused(first, spec_of(replace(FULL, **{field: CHANGES[field]}), NOW + 999, "id2"))
    name = {"retry": "retry_policy", "start_delay": "start_time"}.get(field, field)
    assert isinstance(error, RequestIdReused)
    assert error.code is Code.ALREADY_EXISTS
    assert error.metadata == {"job_id": "id", "request_id": "r", "differs": name}
    assert name in error.message
    assert error.resource == ("atlas.v1.Job", "id")


def test_several_differences_are_all_named() -> None:
    first = lifecycle.submitted(spec_of(FULL))
    error = reused(first, spec_of(replace(FULL, priority=1, queue="yours")))
    assert error.metadata["differs"].split(",") == ["queue", "priority"]


def test_a_difference_without_effect_is_said_in_words() -> None:
    first = lifecycle.submitted(spec_of(PLAIN))
    error = reused(first, spec_of(replace(PLAIN, queue="of type")))
    assert error.metadata["differs"] == ""
    assert "effective" in error.message


def test_no_payload_in_the_error() -> None:
    first = lifecycle.submitted(spec_of(replace(FULL, payload=Content(b'{"secret":"hunter2"}'))))
    error = reused(first, spec_of(FULL))
    assert "hunter2" not in str(error) + str(error.metadata)


def test_refusals() -> None:
    catalog = FixedCatalog()
    assert type_of(Submission("ns", "work"), catalog).name == "work"
    with pytest.raises(InvalidArgument) as refused:
        type_of(Submission("ns", "wrok"), catalog)
    unknown = refused.value
    assert unknown.reason == "UNKNOWN_JOB_TYPE"
    assert unknown.metadata == {"type": "wrok"}
    (violation,) = unknown.violations
    assert violation.field == "type"
    assert "jittery, " in violation.description or "work, " in violation.description
    with pytest.raises(InvalidArgument) as refused:
        type_of(Submission("ns", "work", Content(b'{"bad":1}')), catalog)
    assert [one.field for one in refused.value.violations] == ["payload.bad"]


def test_a_finished_job_is_kept_for_those_who_watch_it() -> None:
    assert spec_of(Submission("ns", "t", retention=0)).retention == SHORTEST_RETENTION
