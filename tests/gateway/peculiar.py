"""The differences that some requests show, by the names that the table in docs/rest.md has.

Each says whether it is what two answers differ by, and the whole of it: it demands what grpc-gateway answers and what
the mirror does, so that a mirror that fails, or says something else, is not excused.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes

from .shapes import (
    JSON,
    error,
    filled,
    first,
    header,
    is_empty,
    masked,
    no_job,
    parameters,
    path_of,
    query_of,
    refused,
    refused_by_go,
    says,
    taken,
    violations,
    without_nulls,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .doors import Answer, Ask

    Is = Callable[[Ask, Answer, Answer], bool]

MAX_BODY = 4 << 20
_TIME = re.compile(r"\d{4}-\d\d-\d\d[tT]\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)")
_SHORT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d:\d\d:\d\d.*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_FRACTION = re.compile(r"\d{16,}\.\d")
_FORWARDED = re.compile("grpcgateway-|x-forwarded-")
_OWN_HEADERS = ("atlas-namespace", "traceparent", "tracestate")
_EVENTS = "text/event-stream"
_NO_JSON = "must be JSON in UTF-8, nested at most a few dozen levels"
_TEXT = "must be percent-encoded UTF-8"


def _wrong_method(asked: Ask, mirror: Answer) -> bool:
    """405, with what the path takes."""
    allow = mirror.headers.get("allow", "")
    body = error(12, f"this path takes only {allow}", "METHOD_NOT_ALLOWED", allow=allow)
    return bool(allow) and asked.method not in allow.split(", ") and says(mirror, 405, body)


def _method(asked: Ask, go: Answer, mirror: Answer) -> bool:
    as_form = asked.method == "POST" and "form-urlencoded" in header(asked, "content-type")
    by_go = taken(go) if as_form else refused_by_go(go, 501, 12, "^Method Not Allowed$")
    return by_go and _wrong_method(asked, mirror)


def _head(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if asked.method != "HEAD" or (go.status, go.kind, go.metadata, go.body) != (501, JSON, {}, []):
        return False
    length = int(mirror.headers.get("content-length", "0"))
    return (mirror.status, mirror.kind, mirror.metadata, mirror.body) == (200, JSON, {}, []) and length > 0


def _verb(asked: Ask, go: Answer, mirror: Answer) -> bool:
    job = re.search(r"/([^/]+:\w+)$", asked.path)
    return job is not None and says(go, 404, no_job(job[1])) and _wrong_method(asked, mirror)


def _empty_segment(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if not re.search(r"/(:\w+)?$", path_of(asked)) or not says(go, 400, wrong("id", "must be at least 1 characters")):
        return False
    return says(mirror, 404, error(5, "there is nothing at this path", "PATH_NOT_FOUND"))


def _escape(asked: Ask, go: Answer, mirror: Answer) -> bool:
    """For the last segment of a path, which has a verb for grpc-gateway."""
    segment = path_of(asked).rpartition("/")[2]
    if not re.search("%(2F|3A)", segment):
        return False
    theirs, ours = unquote(segment).rpartition(":")[0], unquote(segment.partition(":")[0])
    by_go = refused_by_go(go, 404, 5, "^Not Found$") if "/" in theirs else _is_of(asked, go, theirs)
    return by_go and _is_of(asked, mirror, ours)


def _is_of(asked: Ask, answer: Answer, value: str) -> bool:
    """Whether the value came to the server: as the id of no job, or in what is echoed."""
    if asked.path.startswith("/v1/jobs/"):
        return says(answer, 404, no_job(value))
    inner = first(answer).get("inner") or {}
    return taken(answer) and value == (inner.get("text") or first(answer).get("text"))


def _plain(asked: Ask, go: Answer, mirror: Answer) -> bool:
    plain = ("text/plain; charset=utf-8", {}, "400 Bad Request")
    by_go = (go.status, go.kind, go.metadata, go.body) == (400, *plain)
    return bool(re.search("%(?![0-9A-Fa-f]{2})", path_of(asked))) and by_go and refused(mirror, r"\w+", _TEXT)


def _utf8(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if not refused_by_go(go, 500, 13, "invalid UTF-8"):
        return False
    if not _is_utf8(path_of(asked)):
        return refused(mirror, r"\w+", _TEXT)
    return not _is_utf8(query_of(asked)) and refused(mirror, "query", f"{_TEXT} with at most 4096 parameters")


def _is_utf8(escaped: str) -> bool:
    try:
        unquote_to_bytes(escaped).decode()
    except UnicodeDecodeError:
        return False
    return True


def _semicolon(asked: Ask, go: Answer, mirror: Answer) -> bool:
    """For a list of jobs of a type that has a semicolon: there are none."""
    by_go = refused_by_go(go, 400, 3, "^invalid semicolon separator in query$")
    return ";" in query_of(asked) and by_go and says(mirror, 200, {"jobs": [], "nextPageToken": ""})


def _wider(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if not taken(mirror):
        return False
    lower = [(name, value) for name, value in parameters(asked) if _TIME.fullmatch(value) and re.search("[tz]", value)]
    if lower:
        meant = [_has_time(mirror, name, value.upper()) for name, value in lower]
        return refused_by_go(go, 400, 3, "^parsing field .* parsing time") and all(meant)
    body = str(asked.body)
    if _SURROGATE.search(body):
        return '"unknown"' in body and refused_by_go(go, 400, 3, "^proto: (unexpected EOF$|syntax error)")
    number = _FRACTION.search(body)
    if number is None or not refused_by_go(go, 400, 3, "^proto: .*invalid value for int64"):
        return False
    return first(mirror).get("big") == str(int(float(number[0])))


def _has_time(mirror: Answer, name: str, value: str) -> bool:
    """Whether a time was understood: it is echoed, or one job is newer."""
    return first(mirror).get("at") == value if name == "at" else len(first(mirror).get("jobs", [])) == 1


def _enum(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if asked.body is None or not refused(mirror, ".+", r"must be a value of the enum \w+") or not taken(go):
        return False
    ((name, _),) = violations(mirror)
    body = json.loads(asked.body) if isinstance(asked.body, str) else asked.body
    for part in re.findall(r"\w+", name):
        body = body[int(part)] if isinstance(body, list) else body[part]
    dropped = name not in first(go) or is_empty(first(go)[name])
    return isinstance(body, str) and dropped


def _strict(asked: Ask, go: Answer, mirror: Answer) -> bool:
    # What grpc-gateway takes, the server may refuse for another reason.
    if not taken(go) and not _refused_by_server(go):
        return False
    if asked.body is None:
        short = [name for name, value in parameters(asked) if _SHORT_TIME.fullmatch(value)]
        return any(refused(mirror, re.escape(name), "must be a timestamp such as .*") for name in short)
    body = str(asked.body)
    if re.search(r'"[+-]?\.s"', body) and refused(mirror, ".+", "must be a duration such as .*"):
        return True
    if '"any"' in body and refused(mirror, "any", "must name its type by @type"):
        return True
    mistake = _mistake(body)
    return bool(mistake) and refused(mirror, "body", re.escape(mistake))


def _refused_by_server(go: Answer) -> bool:
    return bool(violations(go)) and says(go, 400, without_nulls(first(go)))


def _mistake(body: str) -> str:
    """What is wrong with JSON that is read strictly."""
    try:
        json.loads(body, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError:
        return _NO_JSON
    except ValueError as err:
        return str(err)
    return ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("must not have a key twice in one JSON object")
    return made


def _refuse(constant: str) -> Any:
    raise ValueError(f"must not hold {constant}, which is not JSON")


def _finite(digits: str) -> float:
    if float(digits) in (float("inf"), float("-inf")):
        raise ValueError("must not hold a number beyond the range of a double")
    return float(digits)


def _deep(asked: Ask, go: Answer, mirror: Answer) -> bool:
    """The message has the whole path of the field, of which the detail has the beginning."""
    by_go = (go.status, go.kind, go.metadata, len(go.body)) == (400, JSON, {}, 1) and not violations(go)
    info = (first(go).get("details") or [{}])[0]
    if (
        not by_go
        or (first(go).get("code"), info.get("reason")) != (3, "MALFORMED_REQUEST")
        or len(violations(mirror)) != 1
    ):
        return False
    ((field, description),) = violations(mirror)
    message = first(mirror).get("message", "")
    whole = message.removesuffix(": is nested too deeply")
    meant = wrong(field, "is nested too deeply") | {"message": message}
    begins = re.fullmatch(r"payload(\.a)+", whole) is not None and whole.startswith(field.removesuffix("…"))
    return description == "is nested too deeply" and begins and says(mirror, 400, meant)


def _content_type(asked: Ask, go: Answer, mirror: Answer) -> bool:
    kind = header(asked, "content-type")
    if not kind or JSON in kind or mirror.headers.get("accept") != JSON:
        return False
    by_go = taken(go) if isinstance(asked.body, dict) else refused_by_go(go, 400, 3, "^invalid character")
    return by_go and says(mirror, 415, error(3, f"the content type must be {JSON}", "UNSUPPORTED_MEDIA_TYPE"))


def _too_large(asked: Ask, go: Answer, mirror: Answer) -> bool:
    message = f"a request may have at most {MAX_BODY} bytes"
    by_go = len(json.dumps(asked.body)) > MAX_BODY and refused_by_go(go, 429, 8, "message larger than max")
    return by_go and says(mirror, 413, error(8, message, "REQUEST_TOO_LARGE", limit=str(MAX_BODY)))


def _empty_body(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if asked.method not in {"POST", "PUT"} or asked.body:
        return False
    if go.status == 400:
        fields = {field.partition(".")[0] for field, _ in violations(go)}
        return _refused_by_server(go) and len(fields) == 1 and says(mirror, 400, wrong(*fields, "value is required"))
    return taken(go) and taken(mirror) and len(_more(go, mirror)) == 1


def _more(go: Answer, mirror: Answer) -> set[str]:
    """The fields that grpc-gateway shows as empty messages and the mirror not at all; none if more differs."""
    theirs, ours = first(go), first(mirror)
    more = theirs.keys() - ours.keys()
    rest = {name: item for name, item in theirs.items() if name not in more}
    return (
        more
        if rest == ours and all(isinstance(theirs[name], dict) and is_empty(theirs[name]) for name in more)
        else set()
    )


def _unknown_below(asked: Ask, go: Answer, mirror: Answer) -> bool:
    above = {name.split(".")[0].replace("_", "").lower() for name, _ in parameters(asked) if "." in name}
    if asked.method != "GET" or not above or not taken(mirror):
        return False
    if go.status == 400:
        return refused_by_go(go, 400, 3, "already set for oneof")
    more = _more(go, mirror)
    return taken(go) and bool(more) and {name.lower() for name in more} <= above


def _mask(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return refused_by_go(go, 500, 2, r"google\.protobuf\.FieldMask") and refused(
        mirror, "mask", "must be paths of fields"
    )


def _binary(asked: Ask, go: Answer, mirror: Answer) -> bool:
    shown = {
        name: [base64.b64encode(one.encode("latin-1")).decode() for one in values] if name.endswith("-bin") else values
        for name, values in go.metadata.items()
    }
    rest = (go.status, go.kind, go.body) == (mirror.status, mirror.kind, mirror.body)
    return rest and shown != go.metadata and shown == mirror.metadata


def _own_header(asked: Ask, go: Answer, mirror: Answer) -> bool:
    own = {name: [header(asked, name)] for name in _OWN_HEADERS if header(asked, name)}
    if not own or not taken(mirror):
        return False
    if go.status == 404:
        job = re.fullmatch("job '([0-9a-f-]{36})' does not exist", first(go).get("message", ""))
        return (
            job is not None
            and says(go, 404, no_job(job[1]))
            and first(mirror).get("namespace") == own["atlas-namespace"][0]
        )
    theirs, ours = _heard(go), _heard(mirror)
    return taken(go) and not own.keys() & theirs.keys() and theirs | own == ours


def _forwarded(asked: Ask, go: Answer, mirror: Answer) -> bool:
    bodies = [{name: item for name, item in first(one).items() if name != "payload"} for one in (go, mirror)]
    if not taken(go) or not taken(mirror) or bodies[0] != bodies[1] or "payload" not in first(go):
        return False
    added = any(_FORWARDED.match(name) for name in first(go)["payload"])
    kept = not any(_FORWARDED.match(name) for name in first(mirror).get("payload", {}))
    return added and kept and _heard(go) == _heard(mirror)


def _heard(answer: Answer) -> dict[str, Any]:
    """The metadata that the backend was sent, without what each client adds of itself."""
    heard = first(answer).get("payload", {})
    return {name: heard[name] for name in heard if name != "user-agent" and not _FORWARDED.match(name)}


def _events(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if header(asked, "accept") != _EVENTS or go.status != 200 or go.metadata != mirror.metadata:
        return False
    if go.body == []:
        return (go.kind, mirror.status, mirror.kind, mirror.body) == ("", 204, "", [])
    if not isinstance(go.body, list) or (go.kind, mirror.status, mirror.kind) != (JSON, 200, _EVENTS):
        return False
    meant = [[name.replace("result", "message"), one] for line in go.body for name, one in line.items()]
    ended = [] if meant[-1:] and meant[-1][0] == "error" else [["end", {}]]
    events = [event for event in _events_of(str(mirror.body)) if "data" in event]
    said = [[event.get("event", "message"), json.loads(event["data"])] for event in events]
    if masked(filled([*meant, *ended], said)) != masked(said):
        return False
    ids = [event.get("id") for event in events] == [one.get("resumeToken") for _, one in said]
    stops = not ended or int(events[-1].get("retry", "0")) > 60_000
    return ids and stops and mirror.headers.get("cache-control") == "no-store"


def _events_of(text: str) -> list[dict[str, str]]:
    """Server-Sent Events, each by its fields."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [{name: value for name, _, value in (line.partition(": ") for line in lines)} for lines in blocks]


def _trailers(asked: Ask, go: Answer, mirror: Answer) -> bool:
    announced = go.metadata.get("trailer") == ["Grpc-Trailer-X-End"] and header(asked, "te") == "trailers"
    rest = {name: values for name, values in go.metadata.items() if name != "trailer"}
    return announced and (go.status, go.kind, rest, go.body) == (
        mirror.status,
        mirror.kind,
        mirror.metadata,
        mirror.body,
    )


PARTICULAR: dict[str, Is] = {
    "method": _method,
    "head": _head,
    "verb": _verb,
    "empty-segment": _empty_segment,
    "escape": _escape,
    "plain": _plain,
    "utf8": _utf8,
    "semicolon": _semicolon,
    "wider": _wider,
    "enum": _enum,
    "strict": _strict,
    "deep": _deep,
    "content-type": _content_type,
    "too-large": _too_large,
    "empty-body": _empty_body,
    "unknown-below": _unknown_below,
    "mask": _mask,
    "binary": _binary,
    "own-header": _own_header,
    "events": _events,
    "trailers": _trailers,
    "forwarded": _forwarded,
}
