"""What an example can show, and how to see that it did: by what it printed, by what reached the server, and by what the
server then knows. Each check raises AssertionError where the feature was not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf import json_format

from atlas_grpc import pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.examples import Run

TROUBLES = 3
"""How many resumed streams the front breaks."""


@dataclass(frozen=True)
class Feature:
    """Something that an example can show."""

    check: Callable[[Run], None]
    trouble: bool = False
    """Whether it takes trouble to see it."""


def submit(run: Run) -> None:
    """It submits with a request id."""
    line = run.line("submit")
    assert line["created"] is True
    assert run.job(line["job"]).request_id == request_id_of(run)


def request_id_of(run: Run) -> str:
    """That of the first submit."""
    submits = run.calls_of("SubmitJob")
    assert submits, run.errors
    assert submits[0].request.request_id
    return submits[0].request.request_id  # type: ignore[no-any-return]


def submit_again(run: Run) -> None:
    """It submits again with the same request id, and gets the same job."""
    first, line = run.line("submit"), run.line("submit_again")
    assert line["created"] is False
    assert line["job"] == first["job"]
    assert len(run.calls_of("SubmitJob", request_id=request_id_of(run))) == 2


def watch(run: Run) -> None:
    """It sees every transition once, in order, to the end."""
    line, steps = run.line("watch"), run.transitions(run.line("submit")["job"])
    assert line["states"] == [pb.Job.State.Name(step.state) for step in steps]
    assert line["versions"] == [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert line["states"][-1] == "SUCCESS"


def resume(run: Run) -> None:
    """It breaks its stream off, and goes on from the token of the last message that it read."""
    assert run.line("watch")["resumed"] is True
    watch(run)
    streams = run.calls_of("WatchJob", id=run.line("submit")["job"])
    assert len(streams) == 2
    first, second = streams
    assert first.request.resume_token == ""
    assert second.request.resume_token in [message.resume_token for message in first.answers]


def retry(run: Run) -> None:
    """It repeats calls that fail with UNAVAILABLE, a submit with the same request id."""
    submits = run.calls_of("SubmitJob", request_id=request_id_of(run))
    assert len(submits) == 3
    assert all(submit.request == submits[0].request for submit in submits)
    # The first submit made the job, though its answer was lost.
    assert run.line("submit")["created"] is False
    assert len(run.calls_of("GetJob", id=run.line("submit")["job"])) == 2
    assert run.line("result")["result"] == result_of(run)
    assert len(run.calls_of("CancelJob", id=run.line("cancel")["job"])) == 2
    assert run.line("cancel")["state"] == "CANCELLED"
    assert run.exit_code == 0, run.errors


def reconnect(run: Run) -> None:
    """Its watch goes on after streams that end with UNAVAILABLE, and after the connection was cut."""
    watch(run)
    told = {""}
    streams = run.calls_of("WatchJob", id=run.line("submit")["job"])
    for stream in streams:
        assert stream.request.resume_token in told
        told |= {message.resume_token for message in stream.answers}
    assert sum(stream.request.resume_token != "" for stream in streams) > TROUBLES


def deadline(run: Run) -> None:
    """Every call but a watch has a deadline."""
    calls = [call for call in run.calls if call.method != "WatchJob"]
    assert {call.method for call in calls} >= {"SubmitJob", "GetJob", "CancelJob"}
    assert all(call.has_deadline for call in calls)


def result(run: Run) -> None:
    """It reads the result."""
    assert run.line("result")["result"] == result_of(run) == {"steps": 8}


def result_of(run: Run) -> object:
    return json_format.MessageToDict(run.job(run.line("submit")["job"]).result)


def cancel(run: Run) -> None:
    """It cancels a job, waits for the end and reads from its error why."""
    line = run.line("cancel")
    assert run.job(line["job"]).state == pb.Job.CANCELLED
    assert (line["state"], line["reason"]) == ("CANCELLED", "JOB_CANCELLED")
    assert run.calls_of("CancelJob", id=line["job"])


def error(run: Run) -> None:
    """It reads the reason of a refusal from its ErrorInfo, and the wrong field from its BadRequest."""
    line = run.line("error")
    assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert line["field"] == "payload.steps"


def not_found(run: Run) -> None:
    """It reads the reason of another error, one without wrong fields."""
    line = run.line("not_found")
    assert (line["code"], line["reason"], line.get("field")) == ("NOT_FOUND", "JOB_NOT_FOUND", None)


FEATURES = {
    "submit": Feature(submit),
    "submit_again": Feature(submit_again),
    "watch": Feature(watch),
    "resume": Feature(resume),
    "retry": Feature(retry, trouble=True),
    "reconnect": Feature(reconnect, trouble=True),
    "deadline": Feature(deadline),
    "result": Feature(result),
    "cancel": Feature(cancel),
    "error": Feature(error),
    "not_found": Feature(not_found),
}
