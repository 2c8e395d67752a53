from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc import errors
from atlas_grpc.status import MAX_VIOLATIONS, STATUS_LIMIT, failure_status, from_status, reason_of, to_status

KINDS = sorted(set(errors.BY_REASON.values()) - {errors.AtlasError}, key=lambda kind: kind.__name__)


def attributes(err: errors.AtlasError):
    return type(err), err.message, err.reason, err.metadata, err.violations, err.resource, err.retry_after


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives(kind):
    err = kind(
        "what happened",
        metadata={"job_id": "j"},
        violations=[errors.Violation("payload.a", "is wrong"), errors.Violation("queue", "too")],
        resource=("atlas.v1.Job", "j"),
        retry_after=1.25,
    )
    assert attributes(from_status(to_status(err))) == attributes(err)


def test_error_info_always_and_precondition_failure_where_it_applies():
    status = to_status(errors.JobTerminal("it has finished", metadata={"job_id": "j"}))
    info, failure = ErrorInfo(), PreconditionFailure()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("atlas", "JOB_TERMINAL")
    assert status.details[1].Unpack(failure)
    violation = failure.violations[0]
    assert (violation.type, violation.subject, violation.description) == ("JOB_TERMINAL", "j", "it has finished")


@given(
    kind=st.sampled_from(KINDS),
    message=st.text(max_size=50).map(lambda text: text * 200),
    metadata=st.dictionaries(st.text(), st.text().map(lambda text: text * 50), max_size=30),
    violations=st.lists(st.tuples(st.text(), st.text()), max_size=60),
    retry_after=st.none() | st.floats(allow_nan=False),
)
def test_a_status_is_always_small_and_readable(kind, message, metadata, violations, retry_after):
    err = kind(
        message,
        metadata=metadata,
        violations=[errors.Violation(*one) for one in violations],
        resource=("r" * 999, "é" * 999),
        retry_after=retry_after,
    )
    status = to_status(err)
    assert status.ByteSize() <= STATUS_LIMIT
    assert type(from_status(Status.FromString(status.SerializeToString()))) is kind


def test_the_worst_case_is_small():
    violations = [errors.Violation("f" * 999, "d" * 999)] * 99
    for text in ("x" * 9999, "é" * 9999):
        err = errors.JobTerminal(text, metadata={str(n) * 99: text for n in range(20)}, violations=violations)
        err.resource, err.retry_after = (text, text), 1e99
        assert to_status(err).ByteSize() <= STATUS_LIMIT


def test_at_most_twenty_violations():
    err = errors.InvalidArgument.all_of([errors.Violation(f"f{number}", "no") for number in range(50)])
    assert len(from_status(to_status(err)).violations) == MAX_VIOLATIONS == 20


def test_a_reason_of_another_domain_does_not_choose_the_class():
    status = Status(code=5, message="nothing")
    status.details.add().Pack(ErrorInfo(domain="example.com", reason="STORE_FULL"))
    err = from_status(status)
    assert (type(err), err.reason) == (errors.NotFound, "NOT_FOUND")


def test_a_newer_reason_keeps_its_name():
    status = to_status(errors.NotFound("gone", reason="QUEUE_NOT_FOUND"))
    err = from_status(status)
    assert (type(err), err.reason) == (errors.NotFound, "QUEUE_NOT_FOUND")


def test_foreign_and_broken_statuses_are_read():
    assert type(from_status(Status(code=99))) is errors.Unknown
    assert type(from_status(Status(code=15, message="lost"))) is errors.Unknown
    broken = to_status(errors.JobNotFound.of("j"))
    broken.details[0].value = b"\xff\xff\xff"
    assert type(from_status(broken)) is errors.NotFound


def test_failure_status_carries_its_reason():
    status = failure_status(2, "OUT_OF_INK", "a" * 5000)
    assert reason_of(status) == "OUT_OF_INK"
    assert len(status.message.encode()) <= 2048
    assert reason_of(Status()) == ""


def test_text_that_is_not_unicode_is_no_obstacle():
    assert to_status(errors.Internal("a\ud800b")).message == "a?b"
