"""Messages of the contract as people and programs read them. Pure: no output, no clock of its own."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import json_format

from .. import pb
from ..config import format_duration
from ..status import reason_of
from .exits import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.rpc.status_pb2 import Status

Row: TypeAlias = "tuple[str, ...]"

JOB_COLUMNS = ("ID", "TYPE", "QUEUE", "STATE", "ATTEMPT", "AGE", "TOOK", "NOTE")
TYPE_COLUMNS = ("NAME", "QUEUE", "EXECUTOR", "ATTEMPTS", "TIMEOUT", "DESCRIPTION")
ATTEMPT_COLUMNS = ("RUN", "ATTEMPT", "OUTCOME", "STARTED", "TOOK", "WORKER", "ERROR")
PLAN_COLUMNS = ("ATTEMPT", "EARLIEST", "LATEST")
STATE_COLOURS = {"PENDING": "yellow", "RUNNING": "cyan", "SUCCESS": "green", "FAILED": "red", "CANCELLED": "magenta"}

_FREE = frozenset({"payload", "result", "labels", "payloadSchema", "resultSchema"})
"""Fields that hold JSON of the user's making."""
_INSTANTS = (
    "create_time",
    "start_time",
    "next_start_time",
    "start_deadline",
    "deadline",
    "cancel_time",
    "finish_time",
    "expire_time",
)
_PENDING = {
    pb.Job.WAITING_FOR_START_TIME: "waits for its start time",
    pb.Job.WAITING_FOR_RETRY: "waits for its retry",
    pb.Job.WAITING_FOR_WORKER: "waits for a worker",
}


def as_json(message: Message) -> dict[str, Any]:
    """The proto JSON of a message as REST gives it: lowerCamelCase, all fields, integral numbers as integers."""
    found: dict[str, Any] = _plain(json_format.MessageToDict(message, always_print_fields_with_no_presence=True))
    return found


def value_of(value: Message) -> Any:
    """The JSON value that a `google.protobuf.Value` or `Struct` holds."""
    return _plain(json_format.MessageToDict(value), free=True)


def _plain(value: Any, *, free: bool = False) -> Any:
    """Integral numbers as integers. The keys of a `free` object are sorted: a protobuf map has no order to keep."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        items = sorted(value.items()) if free else value.items()
        return {key: _plain(item, free=free or key in _FREE) for key, item in items}
    return [_plain(item, free=free) for item in value] if isinstance(value, list) else value


def dumps(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON text; on one line without `indent`."""
    separators = None if indent else (",", ":")
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)


def state_of(job: pb.Job) -> str:
    """The name of the state; the number of one that this version does not know."""
    return _name(pb.Job.State, job.state)


def _name(enum: Any, number: int) -> str:
    return str(enum.Name(number)) if number in enum.values() else str(number)


def job_row(job: pb.Job, now: float) -> Row:
    """The cells of `JOB_COLUMNS`; `now` is in seconds since 1970."""
    attempt = job.attempts[-1] if job.attempts else None
    made = str(attempt.number) if attempt and attempt.run == job.run else "-"
    limit = f"/{job.retry_policy.max_attempts}" if job.retry_policy.max_attempts else ""
    return (
        job.id,
        clean(job.type),
        clean(job.queue),
        state_of(job),
        made + limit,
        age(job.create_time, now),
        _took(job, now),
        note(job, now),
    )


def job_line(job: pb.Job, now: float) -> str:
    """A job that changed, on one line."""
    cells = (clock_time(job.update_time), job.id, f"{state_of(job):<9}", clean(job.type), note(job, now))
    return "  ".join(cells).rstrip()


def _took(job: pb.Job, now: float) -> str:
    """From the first start of the current run to its end, or until now."""
    starts = [attempt.start_time for attempt in job.attempts if attempt.run == job.run]
    if not starts:
        return "-"
    end = seconds_of(job.finish_time) if job.HasField("finish_time") else now
    return span(end - seconds_of(starts[0]))


def note(job: pb.Job, now: float) -> str:
    """What matters most about a job in a few words: its error, what it waits for, or how far it is."""
    if job.HasField("error"):
        return error_text(job.error)
    if job.state == pb.Job.PENDING:
        until = f", {relative(job.next_start_time, now)}" if job.HasField("next_start_time") else ""
        return _PENDING.get(job.pending_reason, "waits") + until
    if job.state == pb.Job.RUNNING and job.HasField("cancel_time"):
        return "is being cancelled"
    return progress_text(job.progress) if job.HasField("progress") and job.state == pb.Job.RUNNING else ""


def progress_text(progress: pb.Progress) -> str:
    """`42 % (21/50) unpacking`; without a total, `21 unpacking`."""
    done, total = f"{progress.current:g}", f"{progress.total:g}"
    share = f"{progress.current / progress.total:.0%}".replace("%", " %") if progress.total > 0 else ""
    return " ".join(filter(None, [f"{share} ({done}/{total})" if share else done, clean(progress.message)]))


def error_text(status: Status) -> str:
    """`REASON: message` on one line."""
    return ": ".join(filter(None, [reason_of(status) or f"code {status.code}", clean(status.message)]))


def seconds_of(moment: Timestamp | Duration) -> float:
    """Seconds, from either of the two."""
    return moment.seconds + moment.nanos / 1e9


def span(seconds: float) -> str:
    """A time span in at most two units: `0s`, `250ms`, `3.4s`, `5m12s`, `3h4m`, `12d3h`."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    unit = next(unit for limit, unit in ((3600, 1), (86_400, 60), (float("inf"), 3600)) if whole < limit)
    return format_duration(whole - whole % unit)


def age(moment: Timestamp, now: float) -> str:
    """How long ago, roughly: the largest unit alone."""
    passed = max(now - seconds_of(moment), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if passed >= 2 * size:
            return f"{int(passed // size)}{unit}"
    return f"{int(passed)}s"


def relative(moment: Timestamp, now: float) -> str:
    """`in 5m12s` or `3.4s ago`."""
    ahead = seconds_of(moment) - now
    return f"in {span(ahead)}" if ahead >= 0 else f"{span(-ahead)} ago"


def local(moment: Timestamp) -> str:
    """The instant in local time, to the millisecond, with its offset."""
    whole, part = moment.seconds, moment.nanos // 1_000_000
    when = time.localtime(whole)
    return time.strftime("%Y-%m-%d %H:%M:%S", when) + f".{part:03}" + time.strftime("%z", when)


def clock_time(moment: Timestamp) -> str:
    """The local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment.seconds))


def job_text(job: pb.Job, now: float) -> list[str]:
    """All of a job in readable lines, without its attempts."""
    lines = [("Job", job.id), ("State", state_of(job)), ("Note", note(job, now)), ("Type", clean(job.type))]
    lines += [("Queue", clean(job.queue)), ("Namespace", clean(job.namespace)), ("Request id", clean(job.request_id))]
    lines += [("Priority", str(job.priority) if job.priority else ""), ("Labels", _labels(job.labels))]
    lines += [("Version", f"{job.version}, run {job.run}"), ("Retries", policy_text(job.retry_policy))]
    spans = ("attempt_timeout", "total_timeout", "start_timeout", "retention")
    lines += [(_title(name), format_duration(seconds_of(found))) for name, found in _set(job, spans)]
    lines += [(_title(name), f"{local(found)} ({relative(found, now)})") for name, found in _set(job, _INSTANTS)]
    if job.HasField("progress"):
        lines.append(("Progress", progress_text(job.progress)))
    lines += [("Payload", _content(job, "input", "payload")), ("Result", _content(job, "output", "result"))]
    return [f"{name + ':':<17}{text}" for name, text in lines if text]


def _set(message: Message, names: Iterable[str]) -> list[tuple[str, Any]]:
    """Those of the fields that are set."""
    return [(name, getattr(message, name)) for name in names if message.HasField(name)]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{clean(key)}={clean(labels[key])}" for key in sorted(labels))


def _content(job: pb.Job, oneof: Any, name: str) -> str:
    kind = job.WhichOneof(oneof)
    if kind is None:
        return ""
    found = getattr(job, kind)
    if kind == name:
        return clean(dumps(value_of(found)))
    return f"{len(found.data)} bytes of {clean(found.content_type) or 'application/octet-stream'}"


def policy_text(policy: pb.RetryPolicy) -> str:
    """A retry policy in words."""
    if policy.max_attempts <= 1:
        return "none"
    first, most = (format_duration(seconds_of(time)) for time in (policy.initial_backoff, policy.max_backoff))
    text = f"up to {policy.max_attempts} attempts, pause {first} x{policy.backoff_multiplier:g} up to {most}"
    never = f", never on {', '.join(policy.non_retryable_reasons)}" if policy.non_retryable_reasons else ""
    return f"{text}, jitter {policy.jitter:.0%}{never}"


def attempt_rows(job: pb.Job, now: float) -> list[Row]:
    """The cells of `ATTEMPT_COLUMNS`, an attempt a row."""
    rows: list[Row] = []
    for attempt in job.attempts:
        running = attempt.outcome == pb.Attempt.OUTCOME_UNSPECIFIED
        outcome = "running" if running else _name(pb.Attempt.Outcome, attempt.outcome)
        end = now if running else seconds_of(attempt.end_time)
        error = error_text(attempt.error) if attempt.HasField("error") else ""
        took = span(end - seconds_of(attempt.start_time))
        numbers = (str(attempt.run), str(attempt.number))
        rows.append((*numbers, outcome, local(attempt.start_time), took, clean(attempt.worker), error))
    return rows


def transition_text(step: pb.Transition) -> str:
    """One step of a job on one line: `12:03:04 RUNNING started, attempt 2 on host-1`."""
    parts = [_name(pb.Transition.Cause, step.cause).lower().replace("_", " ")]
    if step.attempt and step.state != pb.Job.SUCCESS:
        parts.append(f"attempt {step.attempt}" + (f" on {clean(step.worker)}" if step.worker else ""))
    if step.HasField("next_start_time"):
        parts.append(f"next start {clock_time(step.next_start_time)}")
    if step.HasField("error"):
        parts.append(error_text(step.error))
    return f"{clock_time(step.time)} {_name(pb.Job.State, step.state):<9} {', '.join(parts)}"


def log_text(entry: pb.LogEntry) -> str:
    """One line that a handler logged."""
    return f"{clock_time(entry.time)} {_name(pb.LogEntry.Severity, entry.severity):<9} {clean(entry.message)}"


def type_row(kind: pb.JobType) -> Row:
    """The cells of `TYPE_COLUMNS`."""
    timeout = format_duration(seconds_of(kind.attempt_timeout)) if kind.HasField("attempt_timeout") else "-"
    first = clean(kind.description.strip().partition("\n")[0])
    attempts = str(kind.retry_policy.max_attempts)
    executor = _name(pb.JobType.Executor, kind.executor).lower() if kind.executor else "-"
    return clean(kind.name), clean(kind.queue), executor, attempts, timeout, first


def clean_lines(text: str) -> list[str]:
    """The lines of a text from elsewhere."""
    return [clean(line) for line in text.split("\n")]


def type_text(kind: pb.JobType) -> list[str]:
    """All of a job type in readable lines."""
    lines = [f"{'Type:':<17}{clean(kind.name)}", f"{'Queue:':<17}{clean(kind.queue)}"]
    if kind.executor:
        lines.append(f"{'Executor:':<17}{_name(pb.JobType.Executor, kind.executor).lower()}")
    lines.append(f"{'Retries:':<17}{policy_text(kind.retry_policy)}")
    for name, found in _set(kind, ("attempt_timeout", "total_timeout")):
        lines += [f"{_title(name) + ':':<17}{format_duration(seconds_of(found))}"]
    if kind.concurrency:
        lines.append(f"{'Concurrency:':<17}{kind.concurrency} a worker")
    lines += ["", *clean_lines(kind.description.strip())] if kind.description else []
    for name, schema in _set(kind, ("payload_schema", "result_schema")):
        lines += ["", f"{_title(name)}:", *clean_lines(dumps(value_of(schema), indent=2))]
    return lines


def explain_text(answer: pb.ExplainJobResponse, now: float) -> list[str]:
    """Why a job is where it is, in sentences."""
    lines = [clean(answer.summary)]
    if answer.HasField("next_event_time"):
        event = _name(pb.Transition.Cause, answer.next_event).lower().replace("_", " ")
        what = "deletion" if answer.next_event == pb.Transition.CAUSE_UNSPECIFIED else event
        lines.append(f"Next by itself: {what}, {relative(answer.next_event_time, now)}.")
    if answer.state == pb.Job.PENDING:
        busy = f"{answer.busy_slots} of {answer.slots} slots for it are busy"
        lines.append(f"{answer.jobs_ahead} jobs are ahead of it; {busy if answer.slots else 'no worker serves it'}.")
    return lines


def plan_rows(plan: Iterable[pb.PlannedAttempt]) -> list[Row]:
    """The cells of `PLAN_COLUMNS`: when each attempt would start if all before it failed at once."""
    return [(str(one.number), span(seconds_of(one.earliest)), span(seconds_of(one.latest))) for one in plan]


def columns(head: Row, rows: Sequence[Row]) -> list[str]:
    """Aligned plain lines, for pipes and files: two spaces between columns, nothing cut."""
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
