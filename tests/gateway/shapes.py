"""What requests and answers look like: their parts, the errors of both doors, and values without what no two share."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from .doors import Answer, Ask

JSON = "application/json"
INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_RESOURCE = "type.googleapis.com/google.rpc.ResourceInfo"
_OWN = {"resumeToken", "nextPageToken", "session", "token"}
"""Fields that no two jobs, streams or sessions share."""
_MASKS = [
    (re.compile(r"\d{4}-\d\d-\d\d(T| )\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)"), "$time"),
    (re.compile(r"\b\d+\.\d (d|h|min|s)\b"), "$span"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "$id"),
    (re.compile("door-of-(gateway|mirror)"), "$door"),
]


def header(asked: Ask, name: str) -> str:
    headers = asked.headers.items() if isinstance(asked.headers, dict) else asked.headers
    return next((value for key, value in headers if key.lower() == name), "")


def path_of(asked: Ask) -> str:
    return asked.path.partition("?")[0]


def query_of(asked: Ask) -> str:
    return asked.path.partition("?")[2]


def parameters(asked: Ask) -> list[tuple[str, str]]:
    return parse_qsl(query_of(asked), keep_blank_values=True)


def first(answer: Answer) -> dict[str, Any]:
    """The JSON object that an answer is, or begins with."""
    return answer.body[0] if isinstance(answer.body, list) and answer.body and isinstance(answer.body[0], dict) else {}


def error(code: int, message: str, reason: str, *details: dict[str, Any], **metadata: str) -> dict[str, Any]:
    """An error as Atlas makes them."""
    info = {"@type": INFO, "reason": reason, "domain": "atlas", "metadata": metadata}
    return {"code": code, "message": message, "details": [info, *details]}


def no_job(job_id: str) -> dict[str, Any]:
    """The error of the server for an id that is none."""
    resource = {"resourceType": "atlas.v1.Job", "resourceName": job_id, "owner": "", "description": ""}
    return error(5, f"job {job_id!r} does not exist", "JOB_NOT_FOUND", {"@type": _RESOURCE} | resource, job_id=job_id)


def wrong(field: str, description: str) -> dict[str, Any]:
    """The error for one field that is wrong."""
    violation = {"field": field, "description": description, "reason": ""}
    bad = {"@type": _BAD_REQUEST, "fieldViolations": [violation]}
    return error(3, f"{field}: {description}", "INVALID_ARGUMENT", bad)


def says(answer: Answer, status: int, body: dict[str, Any]) -> bool:
    """Whether an answer is this one JSON object, and brings no metadata."""
    told = (answer.status, answer.kind, answer.metadata, without_nulls(answer.body))
    return told == (status, JSON, {}, [body])


def violations(answer: Answer) -> list[tuple[str, str]]:
    """The fields that an error calls wrong, and why."""
    details = [detail for detail in first(answer).get("details", []) if detail["@type"] == _BAD_REQUEST]
    return [(one["field"], one["description"]) for detail in details for one in detail["fieldViolations"]]


def refused(mirror: Answer, field: str, description: str) -> bool:
    """Whether the mirror refuses this field (a pattern) for this reason (another), and does nothing else."""
    found = violations(mirror)
    if len(found) != 1 or not re.fullmatch(field, found[0][0]) or not re.fullmatch(description, found[0][1]):
        return False
    return says(mirror, 400, wrong(*found[0]))


def refused_by_go(go: Answer, status: int, code: int, text: str) -> bool:
    """Whether grpc-gateway refuses by itself, in words that have this text (a pattern)."""
    body = first(go)
    words = str(body.get("message")).replace("\xa0", " ")  # protobuf-go writes either, by chance at each build
    same = (go.status, go.kind, go.metadata) == (status, JSON, {}) and len(go.body) == 1
    return same and (body.get("code"), body.get("details")) == (code, []) and re.search(text, words) is not None


def taken(answer: Answer) -> bool:
    """Whether an answer is one JSON object that says something, and no error."""
    good = (answer.status, answer.kind, answer.metadata) == (200, JSON, {})
    return good and len(answer.body) == 1 and first(answer) != {}


def is_empty(value: Any) -> bool:
    """Whether a message has nothing set."""
    if isinstance(value, dict):
        return all(is_empty(item) for item in value.values())
    return not value or value == "0" or str(value).endswith("_UNSPECIFIED")


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def filled(go: Any, mirror: Any) -> Any:
    """What grpc-gateway shows, without the nulls that the mirror leaves out."""
    if isinstance(go, dict) and isinstance(mirror, dict):
        shown = {name: item for name, item in go.items() if item is not None or name in mirror}
        return {name: filled(item, mirror.get(name)) for name, item in shown.items()}
    if isinstance(go, list) and isinstance(mirror, list):
        return [filled(item, other) for item, other in zip_longest(go, mirror[: len(go)])]
    return go


def masked(value: Any) -> Any:
    """The value without what differs by nature between two requests: times, ids, tokens."""
    if isinstance(value, dict):
        return {
            key: f"${key}" if key in _OWN and isinstance(item, str) and item else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, str):
        for pattern, name in _MASKS:
            value = pattern.sub(name, value)
    return value
