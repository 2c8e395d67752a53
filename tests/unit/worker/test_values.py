"""Results, failures, log buffers and texts: the values between a handler and its source."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from atlas_grpc import pb
from atlas_grpc.errors import LONGEST_PAUSE, Code, FailNow, GiveBack, RetryIn
from atlas_grpc.model import SECOND, Content, Failed, Released, Severity
from atlas_grpc.server.simple_rules import rules_of
from atlas_grpc.worker.context import JobContext
from atlas_grpc.worker.failures import frames, outcome_of, worth_logging
from atlas_grpc.worker.output import MAX_BYTES, MAX_LINE, MAX_LINES, Output
from atlas_grpc.worker.problems import ResultRefused
from atlas_grpc.worker.results import LONGEST_MEDIA_TYPE, MEDIA_TYPE, admitted, encode
from atlas_grpc.worker.text import REASON, clean, cut, pieces
from tests.unit.worker.memory_source import BOUND, MemorySource


class Summary(BaseModel):
    total: float = Field(serialization_alias="sum")
    extra: object = None


@dataclass
class Pair:
    a: float


class Record(msgspec.Struct):
    x: int


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, None, 3),
        ("ü", None, "ü"),
        ({"when": datetime(2031, 5, 4, tzinfo=UTC)}, None, {"when": "2031-05-04T00:00:00Z"}),
        (Pair(1.5), None, {"a": 1.5}),
        (Summary(total=2), Summary, {"sum": 2.0, "extra": None}),
        ([Pair(1)], list[Pair], [{"a": 1.0}]),
        ({"r": Record(3)}, None, {"r": {"x": 3}}),
        ({"not": "as declared"}, Summary, {"not": "as declared"}),
        ({"text": "NaN null Infinity"}, None, {"text": "NaN null Infinity"}),
    ],
)
def test_results_become_json(value, hint, expected):
    content = encode(value, None if hint is None else TypeAdapter(hint))
    assert content.content_type is None
    assert json.loads(content.data) == expected


def test_bytes_and_contents_pass_as_they_are():
    assert encode(b"\x00", None) == Content(b"\x00", "application/octet-stream")
    image = Content(b"\x89", "image/png")
    assert encode(image, None) is image


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (NAN, None),
        (INF, float),
        ({"a": [1, -INF]}, None),
        (Pair(NAN), None),
        (Pair(NAN), Pair),
        (Summary(total=NAN), Summary),
        (Summary(total=NAN), None),
        (Summary(total=1, extra={"deep": (NAN,)}), Summary),
        (object(), None),
        ("\ud800", None),
    ],
)
def test_what_is_no_json_is_no_result(value, hint):
    with pytest.raises(ResultRefused) as refused:
        encode(value, None if hint is None else TypeAdapter(hint))
    assert refused.value.reason == "RESULT_INVALID"


@pytest.mark.parametrize(
    "content",
    [
        Content("text"),
        Content(b"no json"),
        Content(b"\xff"),
        Content(b"x", 5),
        Content(b"x", "\ud800"),
        Content(b"x", "line\nbreak"),
        Content(b"x", "y" * 128),
        Content(b"x", "text/html charset=utf-8"),
        Content(b"x", ";a" * 40 + "\x7f"),
    ],
)
def test_a_content_that_cannot_be_sent_is_no_result(content):
    with pytest.raises(ResultRefused) as refused:
        encode(content, None)
    assert refused.value.reason == "RESULT_INVALID"


def test_a_result_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(ResultRefused):
        encode(loop, None)


def test_admission_says_why():
    with pytest.raises(ResultRefused) as refused:
        admitted(Content(b"x" * 11), None, 10)
    assert refused.value.reason == "RESULT_TOO_LARGE"
    with pytest.raises(ResultRefused) as refused:
        admitted(Content(b"x"), lambda _content: "too deep", 10)
    assert (refused.value.reason, "too deep" in refused.value.message) == ("RESULT_INVALID", True)
    assert admitted(Content(b"x"), lambda _content: None, 1).result == Content(b"x")


@pytest.mark.parametrize("signal", [RetryIn, GiveBack])
def test_a_pause_is_no_longer_than_the_contract_allows(signal):
    for field in (
        pb.JobFailure.DESCRIPTOR.fields_by_name["retry_delay"],
        pb.JobRelease.DESCRIPTOR.fields_by_name["delay"],
    ):
        assert rules_of(field).duration.lte.seconds == LONGEST_PAUSE
    assert signal(timedelta(days=7)).delay == LONGEST_PAUSE
    for beyond in (timedelta(days=7, microseconds=1), 1e300):
        with pytest.raises(ValueError, match="7 days"):
            signal(beyond)
    late = signal(1)
    late.delay = 1e300
    outcome = outcome_of(late)
    assert (outcome.retry_in if signal is RetryIn else outcome.delay) == LONGEST_PAUSE * SECOND


def test_reasons_and_media_types_are_those_of_the_contract():
    media_type = rules_of(pb.Data.DESCRIPTOR.fields_by_name["content_type"]).string
    assert (media_type.pattern, media_type.max_len) == (MEDIA_TYPE, LONGEST_MEDIA_TYPE)
    reason = rules_of(pb.JobFailure.DESCRIPTOR.fields_by_name["reason"]).string
    assert reason.pattern == f"^({REASON.pattern})?$"


class HTTPServerError(Exception): ...


class WithReason(Exception):
    reason = "NO_MONEY"


class WithBadReason(Exception):
    reason = "not legal"


class Ünïcode(Exception): ...  # noqa: PLC2401 - such names are legal


class RaisingReason(Exception):
    @property
    def reason(self):
        raise SystemExit


class Unprintable(Exception):
    def __str__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("exc", "reason", "message"),
    [
        (ValueError("wrong"), "VALUE_ERROR", "ValueError: wrong"),
        (KeyError("k"), "KEY_ERROR", "KeyError: 'k'"),
        (OSError(), "OS_ERROR", "OSError"),
        (HTTPServerError("x"), "HTTP_SERVER_ERROR", "HTTPServerError: x"),
        (WithReason("x"), "NO_MONEY", "WithReason: x"),
        (WithBadReason("x"), "WITH_BAD_REASON", "WithBadReason: x"),
        (Ünïcode("x"), "HANDLER_ERROR", "Ünïcode: x"),
        (RaisingReason("x"), "RAISING_REASON", "RaisingReason: x"),
        (Unprintable(), "UNPRINTABLE", "Unprintable: its text could not be made"),
        (SystemExit(3), "SYSTEM_EXIT", "SystemExit: 3"),
        (ValueError("a\x00b\ud800c"), "VALUE_ERROR", "ValueError: a\ufffdb\ufffdc"),
    ],
)
def test_exceptions_become_failures(exc, reason, message):
    outcome = outcome_of(exc)
    assert outcome == Failed(outcome.failure)
    assert (outcome.failure.code, outcome.failure.reason, outcome.failure.message) == (Code.UNKNOWN, reason, message)


def test_a_huge_exception_is_cut():
    outcome = outcome_of(ValueError("ä" * 50_000_000))
    assert len(outcome.failure.message.encode()) <= 4096
    assert outcome.failure.message.endswith("[cut]")


def test_signals_become_what_they_ask_for():
    assert outcome_of(GiveBack(1.5)) == Released(1_500_000)
    retry = outcome_of(RetryIn(2, "soon", reason="BUSY_NOW"))
    assert (retry.retryable, retry.retry_in, retry.failure.reason) == (True, 2_000_000, "BUSY_NOW")
    never = outcome_of(FailNow("no", reason="not legal"))
    assert (never.retryable, never.failure.reason, never.failure.message) == (False, "HANDLER_FAILED", "no")


class Trap(str):
    """A string that works only where nobody looks at it."""

    __slots__ = ()

    def __getitem__(self, index):
        raise RuntimeError

    def __format__(self, spec):
        raise RuntimeError

    def __str__(self):
        return self


class TrapText(Exception):
    reason = Trap("A_TRAP")

    def __str__(self):
        return Trap("text")


class NoClass(Exception):
    @property
    def __class__(self):
        raise RuntimeError


class NoMessage(FailNow):
    message = property(lambda self: 1 / 0, lambda self, value: None)


def no_delay():
    signal = GiveBack()
    signal.delay = NAN
    return signal


@pytest.mark.parametrize("make", [NoClass, lambda: NoMessage("x"), no_delay])
def test_an_exception_that_cannot_be_looked_at_is_a_failure(make):
    exc = make()
    assert outcome_of(exc).failure.reason == "HANDLER_ERROR"
    assert isinstance(worth_logging(exc), bool)


def test_text_of_an_exception_becomes_a_plain_string():
    failure = outcome_of(TrapText()).failure
    assert (failure.reason, failure.message) == ("A_TRAP", "TrapText: text")
    assert (type(failure.reason), type(failure.message)) == (str, str)
    failed = outcome_of(FailNow(Unprintable()))
    assert (failed.retryable, failed.failure.message) == (False, "its text could not be made")


def test_frames_do_not_hold_the_text_of_the_exception():
    try:
        raise ValueError("s3cret value of a job")
    except ValueError as exc:
        told = frames(exc)
    assert "ValueError" in told
    assert "test_values.py" in told
    assert "s3cret value of a job" not in told.replace('raise ValueError("s3cret value of a job")', "")


@given(st.text(st.characters(), max_size=60), st.integers(12, 80))
def test_clean_text_is_valid_and_bounded(text, limit):
    tidy = clean(text, limit)
    data = tidy.encode()
    assert len(data) <= limit
    assert b"\x00" not in data
    if len(text.encode("utf-8", "surrogatepass")) <= limit and "\x00" not in text:
        assert len(tidy) == len(text)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60), st.integers(4, 20))
def test_pieces_are_whole_characters_and_all_there_is(text, limit):
    parts = pieces(text, limit)
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= limit for part in parts) or parts == [""]


@given(st.binary(max_size=30), st.integers(4, 20))
def test_a_cut_is_near_the_limit_whatever_the_bytes_are(data, limit):
    assert min(len(data), limit - 3) <= cut(data, limit) <= min(len(data), limit)


class Notified:
    def __init__(self):
        self.calls = 0
        self.output = Output(4, self)

    def __call__(self):
        self.calls += 1


def test_progress_is_coalesced_and_announced_once():
    told = Notified()
    for n in range(1000):
        told.output.progress(n, 1000, "m")
    assert told.calls == 1
    progress, logs = told.output.take()
    assert (progress.current, progress.total, progress.message, logs) == (999.0, 1000.0, "m", ())
    assert told.output.take() == (None, ())
    told.output.progress(1, 0, "")
    assert told.calls == 2


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_progress_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        Notified().output.progress(bad, 1, "")


def test_log_lines_are_split_and_bounded():
    told = Notified()
    output = told.output
    output.log(Severity.ERROR, "ü" * MAX_LINE)
    logs = output.take()[1]
    assert [len(line.message.encode()) for line in logs] == [MAX_LINE, MAX_LINE]
    assert {(line.severity, line.attempt) for line in logs} == {(Severity.ERROR, 4)}
    output.log(Severity.INFO, "x" * (MAX_BYTES + 1))
    assert output.take()[1][-1].message.endswith("[cut]"), "no line is without bound"
    for n in range(MAX_LINES + 5):
        output.log(Severity.INFO, str(n))
    before = told.calls
    assert [one.message for one in output.take()[1]] == [str(n) for n in range(MAX_LINES)]
    assert told.calls == before + 1, "there is more"
    (said,) = output.take()[1]
    assert said.severity is Severity.WARNING
    assert said.message.startswith("5 log lines were dropped")


def test_what_is_printed_waits_where_what_is_logged_is_dropped():
    output, relieved = Notified().output, []
    output.when_room(lambda: relieved.append(output.full))
    output.printed(Severity.INFO, [str(n) for n in range(MAX_LINES + 7)])
    assert output.full
    output.log(Severity.ERROR, "room of its own")
    assert len(output.take()[1]) == MAX_LINES
    assert (output.full, relieved) == (True, [])
    assert [line.message for line in output.take()[1]][-2:] == [str(MAX_LINES + 6), "room of its own"]
    assert relieved == [False]
    output.printed(Severity.INFO, ["x" * MAX_BYTES])
    assert output.full
    output.close()
    assert relieved == [False, False], "nobody waits for an attempt that is over"
    output.printed(Severity.INFO, ["late"])
    assert len(output.take()[1]) == MAX_BYTES // MAX_LINE


@pytest.mark.parametrize("severity", ["ERROR", 0, 30, None])
def test_what_is_no_severity_is_refused(severity):
    output = Notified().output
    with pytest.raises(ValueError, match="Severity"):
        output.log(severity, "line")
    output.log(2, "line")
    assert [line.severity for line in output.take()[1]] == [Severity.INFO]


def test_the_log_buffer_is_bounded_in_bytes():
    output = Notified().output
    for _ in range(100):
        output.log(Severity.INFO, "x" * MAX_LINE)
    _, logs = output.take()
    assert sum(len(one.message) for one in logs[:-1]) <= MAX_BYTES
    assert "were dropped" in logs[-1].message


def test_a_closed_output_tells_nobody():
    told = Notified()
    told.output.close()
    told.output.log(Severity.INFO, "late")
    assert told.calls == 0


def context():
    source = MemorySource()
    source.add("x")
    return JobContext(source.waiting[0], Notified().output)


def test_all_who_wait_for_a_stop_are_woken():
    ctx = context()
    assert not ctx.wait_cancelled(0)
    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(ctx.wait_cancelled, BOUND) for _ in range(4)]
        ctx.request_stop()
        assert all(wait.result() for wait in waits)
    assert ctx.cancelled
    assert ctx.wait_cancelled(BOUND)


def test_sleep_is_for_coroutines():
    ctx = context()
    with pytest.raises(RuntimeError, match="wait_cancelled"):
        ctx.sleep(1).send(None)
    assert ctx.time_left() is None
