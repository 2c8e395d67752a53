"""`atlas run` and `atlas watch`: streams, exit codes, Ctrl-C, the terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from atlas_grpc import pb
from atlas_grpc.errors import InvalidArgument, JobNotFound, ServerDraining, StoreFull, Violation
from tests.unit.cli.scripted import ID, STARTED, SUBMITTED, ended, make_job, read_all, step, success, told

if TYPE_CHECKING:
    import subprocess

    from tests.unit.cli.scripted import Atlas


def test_a_job_that_succeeds(atlas: Atlas) -> None:
    atlas.script.updates = [
        SUBMITTED,
        STARTED,
        told((1, 4, "packing"), logs=("first", "second\x1b[2J")),
        success({"n": 3}),
    ]
    code, out, err = atlas("run", "sleep", "seconds=3")
    assert (code, out) == (0, '{"n":3}\n')
    lines = err.splitlines()
    assert lines[0] == f"job {ID}"
    assert [line.split(maxsplit=1)[1] for line in lines[1:3]] == [
        "PENDING   submitted",
        "RUNNING   started, attempt 1 on w-1",
    ]
    assert "INFO      first" in lines[3]
    assert lines[4].endswith("second\\x1b[2J")
    assert lines[5].split() == ["progress", "25", "%", "(1/4)", "packing"]
    assert lines[-1] == "SUCCESS in 3.0s"
    (request,) = atlas.script.of(pb.SubmitJobRequest)
    assert (request.type, dict(request.payload)) == ("sleep", {"seconds": 3})
    assert request.request_id


def test_a_job_that_fails(atlas: Atlas) -> None:
    atlas.script.updates = [SUBMITTED, STARTED, ended("FAILED", "ATTEMPT_FAILED", "NO_SPACE", "disk full")]
    code, out, err = atlas("run", "sleep")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "FAILED in 3.0s: NO_SPACE: disk full"


def test_a_job_that_is_cancelled(atlas: Atlas) -> None:
    atlas.script.updates = [SUBMITTED, STARTED, ended("CANCELLED", "CANCELLED", "CANCELLED", "enough")]
    assert atlas("run", "sleep").code == 3


@pytest.mark.slow
def test_a_job_that_takes_too_long_lives_on(atlas: Atlas) -> None:
    atlas.script.updates, atlas.script.hold = [SUBMITTED, STARTED], True
    code, out, err = atlas("run", "sleep", "--wait", "1s")
    assert (code, out) == (4, "")
    assert f"atlas watch {ID}" in err
    assert not atlas.script.of(pb.CancelJobRequest)


@pytest.mark.parametrize(("result", "text"), [(None, "null\n"), ("text", '"text"\n'), ([1, 2.5], "[1,2.5]\n")])
def test_any_json_result_is_printed(atlas: Atlas, result: object, text: str) -> None:
    atlas.script.updates = [SUBMITTED, STARTED, success(result)]
    assert atlas("run", "sleep").out == text


def test_a_result_of_bytes_is_printed_as_it_is(atlas: Atlas) -> None:
    last = step(2, "SUCCESS", "SUCCEEDED")
    last.job.result_data.data = b"GIF89a\n"
    atlas.script.updates = [SUBMITTED, last]
    assert atlas("run", "sleep", "--quiet") == (0, "GIF89a\n", "")


def test_json_is_the_job_at_its_end(atlas: Atlas) -> None:
    found = json.loads(atlas("run", "sleep", "-o", "json").out)
    assert (found["id"], found["state"], found["result"]) == (ID, "SUCCESS", {"slept": 3})


def test_jsonl_is_every_message(atlas: Atlas) -> None:
    atlas.script.updates = [SUBMITTED, STARTED, told((1, 2, "x"), logs=("line",)), success(1)]
    found = [json.loads(line) for line in atlas("run", "sleep", "-o", "jsonl").out.splitlines()]
    assert [message["transitions"][0]["cause"] for message in found if message["transitions"]] == [
        "SUBMITTED",
        "STARTED",
        "SUCCEEDED",
    ]
    assert [message["logs"][0]["message"] for message in found if message["logs"]] == ["line"]
    assert [message["progress"]["total"] for message in found if "progress" in message] == [2]
    assert found[-1]["job"]["result"] == 1
    assert found[-1]["resumeToken"] == "token-3"


def test_watch_ends_as_run_does(atlas: Atlas) -> None:
    assert atlas("watch", ID).code == 0
    atlas.script.updates = [SUBMITTED, STARTED, ended("FAILED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "late")]
    assert atlas("watch", ID).code == 1
    assert atlas("watch", "unknown").code == 64 + 5


def test_many_are_watched_until_the_stream_is_over(atlas: Atlas) -> None:
    atlas.script.errors["WatchJobs"] = JobNotFound.of("x")
    assert atlas("watch", "--all").code == 64 + 5
    (request,) = atlas.script.of(pb.WatchJobsRequest)
    assert request.filter == pb.JobFilter()


def test_many_are_watched_with_filters(atlas: Atlas) -> None:
    atlas.script.hold = True
    atlas.script.changes = [pb.WatchJobsResponse(jobs=[make_job(1), make_job(2)], deleted_ids=["gone"], synced=True)]
    process = atlas.start("watch", "--type", "sleep", "--state", "failed", "--label", "a=b", "-o", "jsonl")
    assert process.stdout
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    interrupt(process)
    assert (process.wait(20), process.communicate()) == (130, ("", ""))
    assert [line.get("id") for line in lines[:2]] == [make_job(1).id, make_job(2).id]
    assert lines[2] == {"deletedId": "gone"}
    (request,) = atlas.script.of(pb.WatchJobsRequest)
    assert request.filter == pb.JobFilter(types=["sleep"], states=[pb.Job.FAILED], labels={"a": "b"})


@pytest.mark.parametrize(
    "args",
    [("watch",), ("watch", ID, "--all"), ("watch", ID, "--type", "x"), ("watch", "--all", "-o", "json"), ("run",)],
)
def test_wrong_usage(atlas: Atlas, args: tuple[str, ...]) -> None:
    code, out, err = atlas(*args)
    assert (code, out) == (2, "")
    assert "Usage:" in err
    assert not atlas.script.asked


def test_a_refused_job_says_what_is_wrong(atlas: Atlas) -> None:
    violations = [Violation("payload.seconds", "must not be negative"), Violation("queue", "is too long")]
    atlas.script.errors["SubmitJob"] = InvalidArgument.all_of(violations)
    code, out, err = atlas("run", "sleep", "seconds=-1")
    assert (code, out) == (64 + 3, "")
    assert err.splitlines() == [
        "atlas: INVALID_ARGUMENT: payload.seconds: must not be negative (and 1 more)",
        "  payload.seconds: must not be negative",
        "  queue: is too long",
    ]


def test_one_violation_is_said_once(atlas: Atlas) -> None:
    atlas.script.errors["SubmitJob"] = InvalidArgument.of("type", "is unknown")
    assert atlas("run", "sleep").err == "atlas: INVALID_ARGUMENT: type: is unknown\n"


def test_when_to_try_again_is_said(atlas: Atlas) -> None:
    atlas.script.errors["SubmitJob"] = StoreFull("the store is full", retry_after=2.5)
    code, _, err = atlas("run", "sleep")
    assert (code, err) == (64 + 8, "atlas: STORE_FULL: the store is full\n  try again in 2s500ms\n")


def test_a_draining_server_is_not_one_that_cannot_be_reached(atlas: Atlas) -> None:
    atlas.script.errors["SubmitJob"] = ServerDraining("the server is about to stop")
    code, _, err = atlas("run", "sleep")
    assert (code, err) == (64 + 14, "atlas: SERVER_DRAINING: the server is about to stop\n")


@pytest.mark.slow
def test_nobody_there(atlas: Atlas) -> None:
    atlas.stop()
    for args in (("run", "sleep"), ("watch", "--all")):
        code, out, err = atlas(*args)
        assert (code, out) == (64 + 14, "")
        assert err.startswith(f"atlas: cannot reach the server at {atlas.address}\n")
        assert "atlas serve" in err


def test_json_stays_json_where_the_encoding_lacks_characters(atlas: Atlas) -> None:
    for args in (("run", "sleep", "--quiet"), ("run", "sleep", "--quiet", "-o", "json")):
        atlas.script.updates = [SUBMITTED, STARTED, success({"name": "\N{SNOWMAN}\N{GRINNING FACE}"})]
        process = atlas.start(*args, env={"PYTHONIOENCODING": "latin-1"})
        out, _ = process.communicate(timeout=20)
        found = json.loads(out)
        assert found.get("result", found) == {"name": "\N{SNOWMAN}\N{GRINNING FACE}"}


def test_a_dumb_terminal_sees_lines(atlas: Atlas) -> None:
    ours, theirs = pty.openpty()
    process = atlas.start("run", "sleep", stderr=theirs, env={"TERM": "dumb"})
    os.close(theirs)
    shown = read_all(ours)
    process.communicate(timeout=20)
    assert "RUNNING   started" in shown
    assert "\x1b" not in shown


def test_sigterm_detaches_and_shows_the_cursor_again(atlas: Atlas) -> None:
    atlas.script.updates, atlas.script.hold = [SUBMITTED, STARTED, told(logs=("at work",))], True
    ours, theirs = pty.openpty()
    process = atlas.start("run", "sleep", stderr=theirs)
    os.close(theirs)
    shown = ""
    while "at work" not in shown:
        shown += os.read(ours, 4096).decode()
    process.terminate()
    shown += read_all(ours)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert f"atlas watch {ID}" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is shown again"


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def test_ctrl_c_detaches(atlas: Atlas) -> None:
    atlas.script.updates, atlas.script.hold = [SUBMITTED, STARTED], True
    process = atlas.start("run", "sleep")
    assert process.stderr
    while "started" not in process.stderr.readline():
        assert process.poll() is None
    interrupt(process)
    interrupt(process)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == f"detached; the job goes on. Re-attach with: atlas watch {ID}\n"
    assert not atlas.script.of(pb.CancelJobRequest)


def test_ctrl_c_before_the_answer_tells_how_to_find_out(atlas: Atlas) -> None:
    atlas.script.stalled = threading.Event()
    process = atlas.start("run", "sleep", "--request-id", "key-1")
    assert atlas.script.stalled.wait(20)
    interrupt(process)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "--request-id key-1" in err


def test_a_terminal_sees_a_bar(atlas: Atlas) -> None:
    atlas.script.updates = [
        SUBMITTED,
        STARTED,
        told((21, 50, "packing"), logs=("a [bold]line[/bold]",)),
        success({"n": 1}),
    ]
    ours, theirs = pty.openpty()
    process = atlas.start("run", "sleep", stderr=theirs)
    os.close(theirs)
    shown = read_all(ours)
    assert process.stdout
    assert process.stdout.read() == '{"n":1}\n'
    assert process.wait(20) == 0
    process.stdout.close()
    assert "\x1b[" in shown
    assert "42 % (21/50) packing" in shown
    assert "a [bold]line[/bold]" in shown
    assert "SUCCESS in 3.0s" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is shown again"
