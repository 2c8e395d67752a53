"""Proto <-> records for WorkerService: hellos, asks, assignments, updates, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .. import pb
from ..engine.submit import effective_policy
from ..errors import Code, InvalidArgument
from ..model import (
    Assignment,
    Content,
    Failed,
    Failure,
    LogLine,
    Progress,
    Released,
    Report,
    RetryPolicy,
    Severity,
    Stopped,
    Succeeded,
    TimedOut,
    TypeInfo,
    Update,
)
from ..status import to_status
from .admission import objection
from .convert import fill_span, fill_stamp, micros, retry_override
from .schemas import compiled
from .structs import NotJson, fill_struct, from_struct, from_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..errors import AtlasError
    from ..model import Outcome

NO_FENCE = -1
"""The token of whoever has none: no attempt has it."""

_WIDEST = 6
"""Bytes that one of JSON takes in a Struct, at most: the number of `0,` takes eleven."""
_FRAME = 512
_MAX_SCHEMA = 64 * 1024
_MAX_FENCE = 2**63 - 1
_MAX_FAILURE = 8_192
_MAX_LINE = 16 * 1024
_EXECUTORS = {pb.JobType.TASK: "task", pb.JobType.THREAD: "thread", pb.JobType.PROCESS: "process"}
_SEVERITIES = {int(severity) for severity in Severity}
_REASONS = {"cancelled": pb.JobStop.CANCELLED, "lost": pb.JobStop.LOST}
_NULL = Content(b"null")
_ACCEPTED, _LOST = pb.JobAnswer(status=pb.JobAnswer.ACCEPTED), pb.JobAnswer(status=pb.JobAnswer.LOST)
_encode_json = msgspec.json.Encoder(order="sorted").encode
_decode_json = msgspec.json.decode


def fence(token: str) -> int:
    """The fence of a token; `NO_FENCE` for what is none of ours."""
    if not (token.isascii() and token.isdigit()):
        return NO_FENCE
    number = int(token)
    return number if number <= _MAX_FENCE else NO_FENCE


def held(jobs: Iterable[pb.HeldJob]) -> list[tuple[str, int]]:
    """Job ids and fences."""
    return [(job.id, fence(job.token)) for job in jobs]


def type_infos(types: Sequence[pb.JobType], field: str) -> list[TypeInfo]:
    """What a worker announces. Raises InvalidArgument."""
    return [_type_info(message, f"{field}[{index}]") for index, message in enumerate(types)]


def _type_info(message: pb.JobType, field: str) -> TypeInfo:
    policy = RetryPolicy()
    if message.HasField("retry_policy"):
        policy = effective_policy(policy, retry_override(message.retry_policy))
    return TypeInfo(
        message.name,
        message.description,
        _schema(message, "payload_schema", field),
        _schema(message, "result_schema", field),
        message.queue or "default",
        policy,
        micros(message.attempt_timeout, f"{field}.attempt_timeout") if message.HasField("attempt_timeout") else None,
        micros(message.total_timeout, f"{field}.total_timeout") if message.HasField("total_timeout") else None,
        message.concurrency,
        _EXECUTORS.get(message.executor, ""),
    )


def _schema(message: pb.JobType, name: str, field: str) -> bytes | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    try:
        data = _encode_json(from_struct(getattr(message, name)))
    except NotJson as error:
        path, text = error.args
        raise InvalidArgument.of(f"{field}.{name}{path}", text) from None
    if len(data) > _MAX_SCHEMA:
        raise InvalidArgument.of(f"{field}.{name}", f"takes {len(data)} bytes, and at most {_MAX_SCHEMA} are allowed")
    try:
        compiled(data)
    except ValueError as error:
        raise InvalidArgument.of(f"{field}.{name}", f"is not a JSON Schema: {error}") from None
    return data


def weight(record: Assignment, *, json_text: bool) -> int:
    """The bytes that its message takes, at most."""
    payload = record.payload
    size = len(payload.data) if json_text or not payload.is_json else _WIDEST * len(payload.data)
    return size + _FRAME + sum(4 * (len(key) + len(value)) + 10 for key, value in record.labels.items())


def fill_assignment(message: pb.Assignment, record: Assignment, *, json_text: bool) -> None:
    """Writes an assignment into an empty message."""
    message.id = record.job_id
    message.token = str(record.fence)
    message.namespace = record.namespace
    message.type = record.type
    message.queue = record.queue
    payload = record.payload
    if payload.content_type is not None:
        message.payload_data.data = payload.data
        message.payload_data.content_type = payload.content_type
    elif json_text:
        message.payload_json = payload.data.decode()
    else:
        fill_struct(message.payload, _decode_json(payload.data))
    message.run = record.run
    message.attempt = record.attempt
    message.max_attempts = record.max_attempts
    if record.time_left is not None:
        fill_span(message.time_left, record.time_left)
    if record.labels:
        message.labels.update(record.labels)
    fill_stamp(message.create_time, record.create_time)
    if record.traceparent:
        message.traceparent = record.traceparent


def stop(job_id: str, number: int, why: str) -> pb.JobStop:
    """An order to stop."""
    return pb.JobStop(id=job_id, token=str(number), reason=_REASONS[why])


def update(message: pb.JobUpdate) -> Update:
    """What a running job tells. Raises InvalidArgument."""
    progress = None
    if message.HasField("progress"):
        shown = message.progress
        if not (abs(shown.current) < float("inf") and abs(shown.total) < float("inf")):
            raise InvalidArgument.of("progress", "must be of finite numbers")
        progress = Progress(shown.current, shown.total, _text(shown.message, 1024))
    return Update(message.id, fence(message.token), progress, tuple(map(_line, message.logs)))


def _line(entry: pb.LogEntry) -> LogLine:
    number = int(entry.severity)
    severity = Severity(number) if number in _SEVERITIES else Severity.INFO
    return LogLine(severity, _text(entry.message, _MAX_LINE))


def _text(value: str, limit: int) -> str:
    return value.replace("\0", "\N{SYMBOL FOR NULL}")[:limit]


def report(message: pb.JobReport, max_result: int) -> Report:
    """How an attempt ended. Raises InvalidArgument."""
    return Report(message.id, fence(message.token), _outcome(message, max_result))


def _outcome(message: pb.JobReport, max_result: int) -> Outcome:
    match message.WhichOneof("outcome"):
        case "success":
            return Succeeded(_result(message.success, max_result))
        case "failure":
            return _failed(message.failure)
        case "release":
            delay = message.release.delay
            return Released(micros(delay, "release.delay"))
        case "cancelled":
            return Stopped()
        case "timed_out":
            return TimedOut()
        case _:
            raise InvalidArgument.of("outcome", "is required")


def _result(message: pb.JobSuccess, limit: int) -> Content:
    kind = message.WhichOneof("output")
    if kind is None or (kind == "result_json" and message.result_json == "null"):
        return _NULL
    if kind == "result_data":
        content = Content(message.result_data.data, message.result_data.content_type)
    elif kind == "result_json":
        content = Content(message.result_json.encode())
        try:
            _decode_json(content.data)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidArgument.of("success.result_json", "is not valid JSON") from None
    else:
        try:
            content = Content(_encode_json(from_value(message.result)))
        except NotJson as error:
            path, text = error.args
            raise InvalidArgument.of(f"success.result{path}", text) from None
    problem = objection(content, limit)
    if problem is not None:
        raise InvalidArgument.of(f"success.{kind}", problem)
    return content


def _failed(message: pb.JobFailure) -> Failed:
    code = Code(message.code) if message.code else Code.INTERNAL
    failure = Failure(code, message.reason or "HANDLER_FAILED", _text(message.message, _MAX_FAILURE))
    pause = micros(message.retry_delay, "failure.retry_delay") if message.HasField("retry_delay") else None
    return Failed(failure, not message.final, pause)


def answer(outcome: bool | AtlasError) -> pb.JobAnswer:
    """What became of a word about a job: taken, lost, or refused for that reason. Not to be changed."""
    if isinstance(outcome, bool):
        return _ACCEPTED if outcome else _LOST
    return pb.JobAnswer(status=pb.JobAnswer.REFUSED, error=to_status(outcome))
