"""From the wire to records and back: every field arrives."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from atlas_grpc import lifecycle, pb
from atlas_grpc.engine.engine import Submitted
from atlas_grpc.engine.submit import Submission, build
from atlas_grpc.engine.watches import JobUpdate
from atlas_grpc.errors import InvalidArgument
from atlas_grpc.model import (
    SECOND,
    Content,
    Failed,
    Failure,
    LogLine,
    Progress,
    RetryPolicy,
    Severity,
    State,
    Stopped,
    Succeeded,
    TypeInfo,
)
from atlas_grpc.retry import timetable
from atlas_grpc.server import convert, encoded
from atlas_grpc.server.validation import violations
from tests.support.messages import random_message

NOW = 1_700_000_000_123_456
FULL = {
    "type": "work",
    "payload": {"n": 1, "deep": {"list": [1, None, True, "x", 0.5]}},
    "queue": "fast",
    "labels": {"team": "a", "x/y": ""},
    "priority": -7,
    "startDelay": "30s",
    "retryPolicy": {
        "maxAttempts": 7,
        "initialBackoff": "0.250s",
        "backoffMultiplier": 1.5,
        "maxBackoff": "60s",
        "jitter": 0.1,
        "nonRetryableReasons": ["NO_WAY", "NEVER"],
    },
    "attemptTimeout": "10s",
    "totalTimeout": "600s",
    "startTimeout": "90s",
    "retention": "3600s",
    "requestId": "key-1",
}
INFO = TypeInfo("work", retry=RetryPolicy(), attempt_timeout=SECOND)


def submission(**request: Any) -> Submission:
    message = ParseDict({"type": "work", **request}, pb.SubmitJobRequest())
    return convert.submission(message, "team-a", "00-trace", 1 << 20, NOW)


def a_job(**request: Any) -> Any:
    return lifecycle.submitted(build(submission(**request), "id-1", NOW, INFO, 7 * SECOND))


def shown(job: Any, **more: Any) -> dict[str, Any]:
    message = pb.Job()
    convert.fill_job(message, job, **more)
    return MessageToDict(message)


def test_everything_that_is_asked_for_is_shown():
    found = shown(a_job(**FULL), full=True)
    asked = {key: value for key, value in FULL.items() if key != "startDelay"}
    assert {key: found[key] for key in asked} == asked
    assert (found["id"], found["namespace"], found["state"], found["version"]) == ("id-1", "team-a", "PENDING", "1")
    assert (found["createTime"], found["startTime"]) == ("2023-11-14T22:13:20.123456Z", "2023-11-14T22:13:50.123456Z")
    assert (found["pendingReason"], found["nextStartTime"]) == ("WAITING_FOR_START_TIME", found["startTime"])
    assert found["startDeadline"] == "2023-11-14T22:15:20.123456Z"
    assert found["deadline"] == "2023-11-14T22:23:50.123456Z"
    assert "payload" not in shown(a_job(**FULL))


def test_what_is_not_asked_for_is_the_types_or_the_servers():
    sub = submission()
    assert (sub.retry, sub.retention, sub.attempt_timeout, sub.start_time, sub.request_id) == (
        None,
        None,
        None,
        None,
        "",
    )
    found = shown(a_job(), full=True)
    assert (found["payload"], found["queue"], found["retention"], found["attemptTimeout"]) == (
        {},
        "default",
        "7s",
        "1s",
    )
    assert found["retryPolicy"]["maxAttempts"] == 3
    for absent in ("labels", "requestId", "totalTimeout", "startTimeout", "deadline", "nextStartTime", "attempts"):
        assert absent not in found


def test_every_field_of_a_submission_is_read():
    """A field that the conversion forgets would make this request equal to the plain one."""
    plain = submission()
    for key, value in FULL.items():
        assert key == "type" or submission(**{key: value}) != plain, key
    for name in ("startTime", "payloadData"):
        value = "2030-01-01T00:00:00Z" if name == "startTime" else {"data": "AA==", "contentType": "x/y"}
        assert submission(**{name: value}) != plain, name
    fields = {field.json_name for field in pb.SubmitJobRequest.DESCRIPTOR.fields}
    assert fields == {*FULL, "startTime", "payloadData", "validateOnly"}
    override = submission(retryPolicy=FULL["retryPolicy"]).retry
    assert None not in [getattr(override, name) for name in override.__struct_fields__]


def test_a_life_is_told_in_full():
    rng = random.Random(1)
    job = a_job(retryPolicy={"initialBackoff": "5s", "jitter": 0})
    job = lifecycle.started(job, NOW + SECOND, session="s", worker="w1", fence=1)
    job = lifecycle.ended(job, NOW + 2 * SECOND, Failed(Failure(2, "BOOM", "it broke")), rng)
    waiting = shown(job)
    assert (waiting["pendingReason"], waiting["nextStartTime"]) == ("WAITING_FOR_RETRY", "2023-11-14T22:13:27.123456Z")
    job = lifecycle.on_timer(job, NOW + 7 * SECOND, rng)
    job = lifecycle.started(job, NOW + 8 * SECOND, session="s", worker="w2", fence=2)
    job = lifecycle.request_cancel(job, NOW + 8 * SECOND, "enough", SECOND)
    assert shown(job)["cancelTime"] == "2023-11-14T22:13:28.123456Z"
    job = lifecycle.ended(job, NOW + 9 * SECOND, Stopped(), rng)
    found = shown(job, progress=Progress(1, 4, "on", NOW))
    assert found["state"] == "CANCELLED"
    assert [(one["number"], one["worker"], one["outcome"]) for one in found["attempts"]] == [
        (1, "w1", "FAILED"),
        (2, "w2", "CANCELLED"),
    ]
    assert found["attempts"][0]["error"]["message"] == "it broke"
    assert found["attempts"][0]["error"]["details"][0]["reason"] == "BOOM"
    assert found["error"]["details"][0] == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "JOB_CANCELLED", "domain": "atlas",
    }  # fmt: skip
    assert found["progress"] == {
        "current": 1.0, "total": 4.0, "message": "on", "updateTime": "2023-11-14T22:13:20.123456Z",
    }  # fmt: skip
    assert (found["finishTime"], found["expireTime"]) == ("2023-11-14T22:13:29.123456Z", "2023-11-14T22:13:36.123456Z")
    again = lifecycle.new_run(job, NOW + 20 * SECOND)
    later = shown(again)
    assert (later["run"], len(later["attempts"]), later["startTime"]) == (2, 2, "2023-11-14T22:13:40.123456Z")
    for gone in ("error", "finishTime", "expireTime", "cancelTime"):
        assert gone not in later


@pytest.mark.parametrize(
    ("result", "key", "value"),
    [
        (Content(b"null"), "result", None),
        (Content(b'{"a":[1,2]}'), "result", {"a": [1.0, 2.0]}),
        (Content(b"9007199254740993"), "result", 9007199254740992.0),
        (Content(b"\0x", "a/b"), "resultData", {"data": "AHg=", "contentType": "a/b"}),
        (Content(b"", ""), "resultData", {}),
    ],
)
def test_results(result: Content, key: str, value: Any):
    job = lifecycle.started(a_job(), NOW, session="s", worker="w", fence=1)
    job = lifecycle.ended(job, NOW, Succeeded(result), random.Random())
    assert shown(job, full=True)[key] == value
    assert shown(job, result=True)[key] == value
    assert key not in shown(job)


def test_updates_of_a_watch():
    job = a_job()
    logs = (LogLine(Severity.WARNING, "hm", 1, 5, NOW),)
    update = JobUpdate(job, job.history, Progress(1, 2, "x", NOW), logs, 3, 1, 6, None, final=False, since=0, time=NOW)
    message = pb.WatchJobResponse()
    convert.fill_update(message, update, "token")
    found = MessageToDict(message)
    assert found["resumeToken"] == "token"
    assert found["droppedLogs"] == "3"
    assert "heartbeat" not in found
    assert found["transitions"] == [
        {"version": "1", "time": "2023-11-14T22:13:20.123456Z", "state": "PENDING", "cause": "SUBMITTED", "run": 1}
    ]
    assert found["logs"] == [
        {"offset": "5", "time": "2023-11-14T22:13:20.123456Z", "severity": "WARNING", "message": "hm", "attempt": 1}
    ]
    beat = JobUpdate(None, (), None, (), 0, 1, 0, None, final=False, since=1, time=NOW)
    message = pb.WatchJobResponse()
    convert.fill_update(message, beat, "token")
    assert MessageToDict(message) == {"resumeToken": "token", "heartbeat": True}


def test_a_plan_has_no_id_and_a_timetable():
    spec = build(submission(retryPolicy={"maxAttempts": 3, "jitter": 0.5}), "", NOW, INFO, 7 * SECOND)
    found = MessageToDict(convert.planned(spec, timetable(spec.retry, None)))
    assert "id" not in found["job"]
    assert "version" not in found["job"]
    assert [(one["number"], one["earliest"], one["latest"]) for one in found["plannedAttempts"]] == [
        (1, "0s", "0s"),
        (2, "0.500s", "1.500s"),
        (3, "1.500s", "4.500s"),
    ]


@given(seed=st.integers(0, 2**64))
def test_the_encoded_answer_is_the_message(seed: int):
    rng = random.Random(seed)
    request = random_message(pb.SubmitJobRequest, rng) if rng.random() < 0.5 else pb.SubmitJobRequest(type="work")
    for field in ("payload", "payload_data"):
        request.ClearField(field)
    if violations(request):
        return
    try:
        sub = convert.submission(request, rng.choice(["a", "b"]), "", 1 << 20, NOW)
    except InvalidArgument:
        return
    job = lifecycle.submitted(build(sub, f"id-{rng.random()}", NOW + rng.randrange(3), INFO, 7 * SECOND))
    for answer in (Submitted(job), Submitted(job, deduplicated=True)):
        response = pb.SubmitJobResponse(deduplicated=answer.deduplicated)
        convert.fill_job(response.job, job)
        assert pb.SubmitJobResponse.FromString(encoded.submitted(answer)) == response


@pytest.mark.parametrize("delay", [None, 0, 5])
@pytest.mark.parametrize(
    "limits", [{}, {"total_timeout": 9}, {"start_timeout": 7}, {"total_timeout": 9, "start_timeout": 7}]
)
def test_the_encoded_answer_has_every_instant_and_label(delay: int | None, limits: dict[str, int]):
    request = pb.SubmitJobRequest(type="work", labels={"a": "1", "b": ""}, request_id="r", priority=-3, queue="q")
    for name, seconds in limits.items():
        getattr(request, name).seconds = seconds
    if delay is not None:
        request.start_delay.FromSeconds(delay)
    sub = convert.submission(request, "a", "", 1 << 20, NOW)
    job = lifecycle.submitted(build(sub, "id-1", NOW, INFO, 7 * SECOND))
    expected = pb.SubmitJobResponse()
    convert.fill_job(expected.job, job)
    assert pb.SubmitJobResponse.FromString(encoded.submitted(Submitted(job))) == expected


@pytest.mark.parametrize("stamp", [(-62_135_596_801, 0), (253_402_300_800, 0), (0, -1), (0, 10**9)])
def test_instants_outside_of_the_calendar(stamp: tuple[int, int]):
    where = pb.JobFilter(create_time_before={"seconds": stamp[0], "nanos": stamp[1]})
    with pytest.raises(InvalidArgument) as caught:
        convert.job_filter(where, "a")
    assert [one.field for one in caught.value.violations] == ["filter.create_time_before"]


def test_a_filter_is_read_in_full():
    where = ParseDict(
        {
            "ids": ["a"],
            "states": ["RUNNING"],
            "types": ["t"],
            "queues": ["q"],
            "labels": {"k": "v"},
            "createTimeFrom": "1970-01-01T00:00:01Z",
            "createTimeBefore": "1970-01-01T00:00:02.000001Z",
        },
        pb.JobFilter(),
    )
    found = convert.job_filter(where, "ns")
    assert (found.namespace, found.ids, found.states) == ("ns", {"a"}, {State.RUNNING})
    assert (found.types, found.queues, found.labels) == ({"t"}, {"q"}, {"k": "v"})
    assert (found.created_from, found.created_before) == (SECOND, 2 * SECOND + 1)


@pytest.mark.parametrize(
    ("nanos", "micros"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (999_999_999, 1_000_000)]
)
def test_a_part_of_a_microsecond_counts_as_a_whole(nanos: int, micros: int):
    span = pb.GetJobRequest(wait={"seconds": 2, "nanos": nanos}).wait
    assert convert.micros(span, "wait") == 2 * SECOND + micros


def test_the_types_are_announced_in_full():
    info = TypeInfo(
        "t", "does", b'{"type":"object"}', b'{"type":"null"}', "q", RetryPolicy(), SECOND, 2 * SECOND, 3, "process"
    )
    assert MessageToDict(convert.job_type(info)) == {
        "name": "t", "description": "does", "payloadSchema": {"type": "object"}, "resultSchema": {"type": "null"},
        "queue": "q", "attemptTimeout": "1s", "totalTimeout": "2s", "concurrency": 3, "executor": "PROCESS",
        "retryPolicy": {
            "maxAttempts": 3, "initialBackoff": "1s", "backoffMultiplier": 2.0, "maxBackoff": "300s", "jitter": 0.2,
        },
    }  # fmt: skip
    assert "payloadSchema" not in MessageToDict(convert.job_type(replace(info, payload_schema=None)))
