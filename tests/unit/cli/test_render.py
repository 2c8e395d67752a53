"""Messages as people and programs read them."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc import pb
from atlas_grpc.cli import render
from atlas_grpc.cli.exits import clean
from atlas_grpc.status import failure_status

NOW = 1_900_000_000.0


def job(**more: object) -> pb.Job:
    """A job that was created two minutes before NOW, from proto JSON."""
    base = {
        "id": "01970000-0000-7000-8000-000000000001",
        "type": "sleep",
        "queue": "default",
        "namespace": "default",
        "state": "PENDING",
        "pendingReason": "WAITING_FOR_WORKER",
        "version": 1,
        "run": 1,
        "createTime": "2030-03-17T17:44:40Z",
        "retryPolicy": {
            "maxAttempts": 3,
            "initialBackoff": "1s",
            "backoffMultiplier": 2,
            "maxBackoff": "300s",
            "jitter": 0.2,
        },
    }
    return json_format.ParseDict(base | more, pb.Job())


def attempt(number: int, **more: object) -> dict[str, object]:
    return {"number": number, "run": 1, "worker": "w-1", "startTime": "2030-03-17T17:46:30Z", **more}


def test_a_waiting_job_is_a_row() -> None:
    row = dict(zip(render.JOB_COLUMNS, render.job_row(job(), NOW), strict=True))
    assert row == {
        "ID": "01970000-0000-7000-8000-000000000001",
        "TYPE": "sleep",
        "QUEUE": "default",
        "STATE": "PENDING",
        "ATTEMPT": "-/3",
        "AGE": "2m",
        "TOOK": "-",
        "NOTE": "waits for a worker",
    }


def test_a_running_job_shows_attempt_time_and_progress() -> None:
    found = job(
        state="RUNNING",
        pendingReason=0,
        attempts=[attempt(1)],
        progress={"current": 21, "total": 50, "message": "packing"},
    )
    row = render.job_row(found, NOW)
    assert row[3:] == ("RUNNING", "1/3", "2m", "10s", "42 % (21/50) packing")


def test_the_note_says_what_matters_most() -> None:
    waits = job(pendingReason="WAITING_FOR_RETRY", nextStartTime="2030-03-17T17:46:45Z")
    assert render.note(waits, NOW) == "waits for its retry, in 5.0s"
    failed = job(state="FAILED")
    failed.error.CopyFrom(failure_status(9, "NO_SPACE", "disk\nfull"))
    assert render.note(failed, NOW) == "NO_SPACE: disk\\nfull"
    assert render.note(job(state="RUNNING", cancelTime="2030-03-17T17:46:39Z"), NOW) == "is being cancelled"
    assert render.note(job(state="SUCCESS"), NOW) == ""


def test_an_attempt_of_an_earlier_run_does_not_count() -> None:
    assert render.job_row(job(run=2, attempts=[attempt(3)]), NOW)[4] == "-/3"


def test_all_of_a_job_in_lines() -> None:
    found = job(
        payload={"seconds": 3},
        labels={"b": "2", "a": "1"},
        result=[1, 2.5, "x"],
        attemptTimeout="90s",
        priority=5,
        requestId="key-1",
        progress={"current": 7},
    )
    text = "\n".join(render.job_text(found, NOW))
    for line in (
        "Job:             01970000-0000-7000-8000-000000000001",
        "State:           PENDING",
        "Labels:          a=1 b=2",
        "Priority:        5",
        "Request id:      key-1",
        "Version:         1, run 1",
        "Retries:         up to 3 attempts, pause 1s x2 up to 5m, jitter 20%",
        "Attempt timeout: 1m30s",
        "Progress:        7",
        'Payload:         {"seconds":3}',
        'Result:          [1,2.5,"x"]',
    ):
        assert line in text
    assert "(2m ago)" in text
    assert "Finish time" not in text


def test_bytes_are_told_not_shown() -> None:
    found = job(payloadData={"data": "AAEC", "contentType": "image/png"})
    assert "Payload:         3 bytes of image/png" in render.job_text(found, NOW)


def test_attempts_are_rows() -> None:
    ended = attempt(1, endTime="2030-03-17T17:46:32Z", outcome="FAILED", error={"code": 2, "message": "boom"})
    rows = render.attempt_rows(job(attempts=[ended, attempt(2)]), NOW)
    assert [(row[0], row[1], row[2], row[4], row[5], row[6]) for row in rows] == [
        ("1", "1", "FAILED", "2.0s", "w-1", "code 2: boom"),
        ("1", "2", "running", "10s", "w-1", ""),
    ]


def test_json_is_that_of_rest() -> None:
    found = render.as_json(job(payload={"seconds": 3, "share": 0.5}, progress={"current": 2}))
    assert found["payload"] == {"seconds": 3, "share": 0.5}
    assert found["state"] == "PENDING"
    assert found["version"] == "1"
    assert found["requestId"] == ""
    assert found["attempts"] == []
    assert render.dumps(found["payload"]) == '{"seconds":3,"share":0.5}'
    assert json_format.ParseDict(found, pb.Job()).payload["seconds"] == 3


def test_error_details_are_in_the_json() -> None:
    found = job(state="FAILED")
    found.error.CopyFrom(failure_status(9, "NO_SPACE", "full"))
    assert render.as_json(found)["error"]["details"][0]["reason"] == "NO_SPACE"


def test_transitions_are_lines() -> None:
    step = pb.Transition(version=4, state=pb.Job.PENDING, cause=pb.Transition.ATTEMPT_FAILED, attempt=1, worker="w-1")
    step.time.FromSeconds(int(NOW))
    step.next_start_time.FromSeconds(int(NOW) + 60)
    step.error.CopyFrom(failure_status(2, "BOOM", "it broke"))
    clock, state, rest = render.transition_text(step).split(maxsplit=2)
    assert (state, clock.count(":")) == ("PENDING", 2)
    assert rest.startswith("attempt failed, attempt 1 on w-1, next start ")
    assert rest.endswith(", BOOM: it broke")


def test_numbers_of_newer_enums_are_shown_as_they_are() -> None:
    assert render.state_of(pb.Job(state=77)) == "77"  # type: ignore[arg-type]
    assert " 88 " in render.log_text(pb.LogEntry(severity=88, message="x"))  # type: ignore[arg-type]


def test_a_type_is_a_row_and_a_text() -> None:
    kind = pb.JobType(name="sleep", queue="default", description="Waits.\n\nNothing else.", concurrency=4)
    kind.executor = pb.JobType.TASK
    kind.retry_policy.max_attempts = 1
    kind.payload_schema.update({"type": "object"})
    assert render.type_row(kind) == ("sleep", "default", "task", "1", "-", "Waits.")
    text = render.type_text(kind)
    assert "Retries:         none" in text
    assert "Concurrency:     4 a worker" in text
    assert "Nothing else." in text
    schema = text[text.index("Payload schema:") + 1 :]
    assert json.loads("\n".join(schema)) == {"type": "object"}


def test_an_explanation_is_sentences() -> None:
    answer = pb.ExplainJobResponse(state=pb.Job.PENDING, summary="It waits.", jobs_ahead=3, slots=2, busy_slots=2)
    answer.next_event_time.FromSeconds(int(NOW) + 30)
    answer.next_event = pb.Transition.START_DEADLINE_EXCEEDED
    assert render.explain_text(answer, NOW) == [
        "It waits.",
        "Next by itself: start deadline exceeded, in 30s.",
        "3 jobs are ahead of it; 2 of 2 slots for it are busy.",
    ]
    answer.slots = 0
    assert render.explain_text(answer, NOW)[-1].endswith("no worker serves it.")


def test_columns_are_aligned() -> None:
    assert render.columns(("A", "B"), [("1", "2"), ("333", "")]) == ["A    B", "1    2", "333"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2504, "250ms"),
        (3.42, "3.4s"),
        (59.6, "1m"),
        (312, "5m12s"),
        (11_045, "3h4m"),
        (1_047_600, "12d3h"),
        (-1, "0s"),
    ],
)
def test_spans_have_two_units(seconds: float, text: str) -> None:
    assert render.span(seconds) == text


def test_text_from_elsewhere_cannot_move_the_cursor() -> None:
    assert clean("a\tb") == "a\tb"
    assert clean("\x1b[31mred\r\n\x9b\u202e") == "\\x1b[31mred\\r\\n\\x9b\\u202e"
    assert clean("Grüße 日本 🙂") == "Grüße 日本 🙂"


@given(st.text())
def test_clean_text_is_one_harmless_line(text: str) -> None:
    shown = clean(text)
    assert shown.encode().decode() == shown
    assert all(char == "\t" or ord(char) >= 32 for char in shown)
    assert len(shown.splitlines()) <= 1
