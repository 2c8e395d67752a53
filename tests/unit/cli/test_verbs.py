"""Every other client verb, against a scripted server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from atlas_grpc import pb
from atlas_grpc.errors import InvalidArgument, Unavailable
from tests.unit.cli.scripted import ID, make_job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.scripted import Atlas


def submitted(atlas: Atlas) -> pb.SubmitJobRequest:
    (request,) = atlas.script.of(pb.SubmitJobRequest)
    found: pb.SubmitJobRequest = request
    return found


def test_submit_prints_the_id(atlas: Atlas) -> None:
    assert atlas("submit", "sleep", '{"seconds": 3}') == (0, f"{ID}\n", "")
    assert dict(submitted(atlas).payload) == {"seconds": 3}
    assert atlas.script.metadata["atlas-namespace"] == "default"


def test_submit_prints_what_is_asked_for(atlas: Atlas) -> None:
    assert [line.split() for line in atlas("submit", "sleep", "-o", "table").out.splitlines()] == [
        ["ID", "TYPE", "STATE"],
        [ID, "sleep", "PENDING"],
    ]
    assert json.loads(atlas("submit", "sleep", "-o", "json").out)["type"] == "sleep"
    assert atlas("submit", "sleep", "-o", "jsonl").out.count("\n") == 1


def test_every_option_of_a_job_arrives(atlas: Atlas) -> None:
    options = (
        "--queue=slow --label=a=1 -l b=x=y --priority=-5 --delay=1h --max-attempts=7 --backoff=250ms "
        "--backoff-multiplier=3 --max-backoff=5m --jitter=0.5 --no-retry-on=NO_SPACE --no-retry-on=GONE "
        "--attempt-timeout=30s --total-timeout=1d --start-timeout=10 --retention=0 --request-id=key-1"
    )
    code, _, err = atlas("submit", "sleep", *options.split())
    assert (code, err) == (0, "")
    expected = pb.SubmitJobRequest(
        type="sleep",
        queue="slow",
        labels={"a": "1", "b": "x=y"},
        priority=-5,
        start_delay=Duration(seconds=3600),
        attempt_timeout=Duration(seconds=30),
        total_timeout=Duration(seconds=86400),
        start_timeout=Duration(seconds=10),
        retention=Duration(),
        request_id="key-1",
    )
    expected.payload.SetInParent()
    policy = expected.retry_policy
    policy.max_attempts, policy.backoff_multiplier, policy.jitter = 7, 3, 0.5
    policy.initial_backoff.FromMilliseconds(250)
    policy.max_backoff.FromSeconds(300)
    policy.non_retryable_reasons.extend(["NO_SPACE", "GONE"])
    assert submitted(atlas) == expected


def test_an_instant_and_a_namespace(atlas: Atlas) -> None:
    atlas("submit", "sleep", "--at", "2030-01-31T09:00:00Z", "--namespace", "tenant-1")
    assert submitted(atlas).start_time.ToDatetime(UTC) == datetime(2030, 1, 31, 9, tzinfo=UTC)
    assert atlas.script.metadata["atlas-namespace"] == "tenant-1"


def test_bytes_and_their_kind(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01")
    atlas("submit", "sleep", "--data", str(tmp_path / "x"), "--content-type", "image/png")
    assert submitted(atlas).payload_data == pb.Data(data=b"\x00\x01", content_type="image/png")


def test_the_payload_on_standard_input(atlas: Atlas) -> None:
    atlas("submit", "sleep", "-", stdin=b'{"a": 1}')
    assert dict(submitted(atlas).payload) == {"a": 1}


def test_a_job_that_was_there_is_told(atlas: Atlas) -> None:
    code, out, err = atlas("submit", "sleep", "--request-id", "again")
    assert (code, out) == (0, f"{ID}\n")
    assert "submitted before" in err


def test_a_dry_run_shows_the_timetable(atlas: Atlas) -> None:
    code, out, _ = atlas("submit", "sleep", "--validate-only")
    assert code == 0
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["ATTEMPT", "EARLIEST", "LATEST"],
        ["1", "0s", "0s"],
        ["2", "5.0s", "0s"],
    ]
    found = json.loads(atlas("submit", "sleep", "--validate-only", "-o", "json").out)
    assert found["plannedAttempts"][1]["earliest"] == "5s"
    assert all(request.validate_only and not request.request_id for request in atlas.script.of(pb.SubmitJobRequest))


def test_copies_have_request_ids_of_their_own(atlas: Atlas) -> None:
    code, out, _ = atlas("submit", "sleep", "n=1", "--count", "3")
    assert (code, len(out.splitlines())) == (0, 3)
    (batch,) = atlas.script.of(pb.SubmitJobsRequest)
    assert len({request.request_id for request in batch.requests}) == 3
    assert all(dict(request.payload) == {"n": 1} for request in batch.requests)


LINES = b"""{"type": "squash", "payload": {"n": 1}, "labels": {"own": "1"}, "requestId": "key-1"}

{"payload": {"n": 2}}
not json
{"typ": "sleep"}
{"type": "bad"}
"""


def test_lines_of_a_file(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(LINES)
    code, out, err = atlas("submit", "sleep", "--from", str(tmp_path / "jobs.jsonl"), "--label", "all=1")
    assert (code, len(out.splitlines())) == (64 + 3, 2)
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["line 4", "line 5", "line 6"]
    (batch,) = atlas.script.of(pb.SubmitJobsRequest)
    first, second, _ = batch.requests
    assert (first.type, dict(first.payload), dict(first.labels)) == ("squash", {"n": 1}, {"own": "1", "all": "1"})
    assert first.request_id == "key-1"
    assert (second.type, dict(second.payload)) == ("sleep", {"n": 2})
    assert second.request_id


def test_outcomes_are_told_in_order(atlas: Atlas) -> None:
    found = [
        json.loads(line)
        for line in atlas("submit", "sleep", "--from", "-", "-o", "jsonl", stdin=LINES).out.splitlines()
    ]
    assert ["error" if "error" in line else "response" for line in found] == ["response", "response", *["error"] * 3]
    assert found[4]["error"]["details"][0]["reason"] == "INVALID_ARGUMENT"
    assert len(json.loads(atlas("submit", "sleep", "--from", "-", "-o", "json", stdin=LINES).out)) == 5
    table = atlas("submit", "sleep", "--from", "-", "-o", "table", stdin=LINES).out.splitlines()
    assert [line.split()[0] for line in table] == ["LINE", "1", "3", "4", "5", "6"]
    assert table[-1].endswith("refused: INVALID_ARGUMENT")


def test_one_ctrl_c_ends_the_reading_of_lines(atlas: Atlas) -> None:
    process = atlas.start("submit", "sleep", "--from", "-", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write('{"payload": {}}\n' * 1000)  # a whole chunk: once it is answered, the next is read
    process.stdin.flush()
    assert process.stdout
    for _ in range(1000):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr
    assert process.stderr.read() == "atlas: interrupted\n"


def test_a_series_stops_when_the_server_is_gone(atlas: Atlas) -> None:
    atlas.script.errors["SubmitJobs"] = Unavailable("away")
    code, out, err = atlas("submit", "--from", "-", stdin=b'{"type":"a"}\n' * 3)
    assert (code, out) == (64 + 14, "")
    assert err.splitlines()[0] == "atlas: stopped at line 1: from here on nothing is known to be submitted"


@pytest.mark.parametrize(
    "args",
    [
        ("submit",),
        ("submit", "sleep", "--delay", "1s", "--at", "2030-01-31T09:00"),
        ("submit", "sleep", "-l", "a=1", "-l", "a=2"),
        ("submit", "sleep", "--delay", "soon"),
        ("submit", "sleep", "--count", "2", "--request-id", "x"),
        ("submit", "sleep", "n=1", "--from", "-"),
        ("submit", "sleep", "--content-type", "a/b"),
        ("submit", "sleep", "[1]"),
        ("list", "--state", "DONE"),
        ("cancel",),
        ("get",),
        ("unknown",),
        ("list", "--output", "xml"),
    ],
)
def test_wrong_usage(atlas: Atlas, args: tuple[str, ...]) -> None:
    code, out, err = atlas(*args)
    assert (code, out) == (2, "")
    assert "Error:" in err
    assert not atlas.script.asked


def test_list_follows_pages_up_to_the_limit(atlas: Atlas) -> None:
    atlas.script.jobs = [make_job(number) for number in range(1, 1201)]
    code, out, err = atlas("list", "--limit", "0", "-o", "jsonl")
    assert (code, err, len(out.splitlines())) == (0, "", 1200)
    assert len({json.loads(line)["id"] for line in out.splitlines()}) == 1200
    code, out, err = atlas("list", "--limit", "3")
    assert (code, len(out.splitlines())) == (0, 4)
    assert err == "there are more than 3 jobs; raise --limit (0 means all)\n"
    assert len(json.loads(atlas("list", "--limit", "1200", "-o", "json").out)) == 1200


def test_list_sends_its_filters(atlas: Atlas) -> None:
    args = "--type a --type b --queue q --state failed --state PENDING --label x=1 --created-from 2030-01-31T09:00:00Z"
    atlas("list", *args.split())
    expected = pb.JobFilter(types=["a", "b"], queues=["q"], states=[pb.Job.FAILED, pb.Job.PENDING], labels={"x": "1"})
    expected.create_time_from.FromJsonString("2030-01-31T09:00:00Z")
    assert atlas.script.of(pb.ListJobsRequest)[0].filter == expected


def test_no_jobs_are_an_empty_answer(atlas: Atlas) -> None:
    atlas.script.jobs = []
    assert atlas("list", "-o", "json").out == "[]\n"
    assert atlas("list", "-o", "jsonl").out == ""
    assert atlas("list").out.split()[0] == "ID"


def test_get_shows_all_of_a_job(atlas: Atlas) -> None:
    made: dict[str, Any] = {"payload": {"seconds": 3}, "attempts": [{"number": 1, "run": 1, "outcome": "LOST"}]}
    atlas.script.jobs = [make_job(state="RUNNING", **made)]
    code, out, _ = atlas("get", ID)
    assert code == 0
    assert 'Payload:         {"seconds":3}' in out
    assert out.splitlines()[-2].split() == ["RUN", "ATTEMPT", "OUTCOME", "STARTED", "TOOK", "WORKER", "ERROR"]
    assert "LOST" in out.splitlines()[-1]
    assert json.loads(atlas("get", ID, "-o", "json").out)["payload"] == {"seconds": 3}
    atlas("get", ID, "--wait", "2s")
    assert atlas.script.of(pb.GetJobRequest)[-1].wait.seconds == 2


def test_a_job_that_is_not_there(atlas: Atlas) -> None:
    assert atlas("get", "nope") == (64 + 5, "", "atlas: JOB_NOT_FOUND: job 'nope' does not exist\n")


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_several_jobs_at_once(atlas: Atlas, verb: str) -> None:
    atlas.script.jobs = [make_job(1), make_job(2)]
    code, out, err = atlas(verb, make_job(1).id, "nope", make_job(2).id)
    assert code == 64 + 5
    assert [line.split()[0] for line in out.splitlines()] == [make_job(1).id, make_job(2).id]
    assert err == "atlas: JOB_NOT_FOUND: job 'nope' does not exist\n"


def test_cancel_sends_reason_and_version(atlas: Atlas) -> None:
    code, out, _ = atlas("cancel", ID, "--reason", "enough", "--if-version", "1", "-o", "json")
    assert (code, json.loads(out)["state"]) == (0, "CANCELLED")
    assert atlas.script.of(pb.CancelJobRequest) == [pb.CancelJobRequest(id=ID, reason="enough", if_version=1)]


def test_explain_prints_sentences(atlas: Atlas) -> None:
    assert atlas("explain", ID).out.startswith("Nobody serves it.\n")
    assert json.loads(atlas("explain", ID, "-o", "json").out)["state"] == "PENDING"


def test_types_and_one_of_them(atlas: Atlas) -> None:
    assert [line.split()[0] for line in atlas("types").out.splitlines()] == ["NAME", "sleep", "squash"]
    assert atlas("types", "squash").out.startswith("Type:            squash\n")
    assert json.loads(atlas("types", "squash", "-o", "json").out)["name"] == "squash"
    assert [kind["name"] for kind in json.loads(atlas("types", "-o", "json").out)] == ["sleep", "squash"]
    assert atlas("types", "nope").code == 64 + 5


def test_health_is_an_exit_code(atlas: Atlas) -> None:
    assert atlas("health") == (0, "SERVING\n", "")
    atlas.ready(False)
    code, out, err = atlas("health")
    assert (code, out) == (1, "NOT_SERVING\n")
    assert atlas.address in err
    assert atlas("health", "--service", "unknown").code == 1
    assert json.loads(atlas("health", "-o", "json").out) == {"status": "NOT_SERVING"}


def test_health_waits_for_a_server_to_become_ready(atlas: Atlas) -> None:
    atlas.ready(False)
    process = atlas.start("health", "--wait", "20s")
    atlas.ready(True)
    assert process.communicate(timeout=20)[0] == "SERVING\n"
    assert process.returncode == 0


def test_health_waits_no_longer_for_a_server_that_says_nothing(atlas: Atlas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        code, out, err = atlas("health", "--wait", "300ms", "--server", address)
    assert (code, out) == (1, "UNKNOWN\n")
    assert address in err
    assert time.monotonic() - started < 10


def test_an_error_that_came_from_the_client_library_reads_the_same(atlas: Atlas) -> None:
    atlas.script.errors["ListJobs"] = InvalidArgument.of("filter.types", "too many")
    assert atlas("list").err == "atlas: INVALID_ARGUMENT: filter.types: too many\n"
