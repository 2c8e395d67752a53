"""The differences that some requests show, by the names that the table in docs/rest.md has; each says by itself whether
it is what two answers differ by.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .doors import Answer, Ask

    Is = Callable[[Ask, Answer, Answer], bool]

_TIME = re.compile(r"\d{4}-\d\d-\d\d[tT]\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)")
_LENIENT = re.compile(r"\d{16,}\.\d|\\u[dD][89a-fA-F]")
_FORWARDED = re.compile("grpcgateway-|x-forwarded-|user-agent$")


def _method(asked: Ask, go: Answer, mirror: Answer) -> bool:
    as_form = asked.method == "POST" and "form-urlencoded" in _header(asked, "content-type")
    return mirror.status == 405 and "allow" in mirror.headers and (go.status == 501 or as_form)


def _head(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return asked.method == "HEAD" and (go.status, mirror.status, mirror.body) == (501, 200, [])


def _verb(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return re.search(r":\w+$", asked.path) is not None and (go.status, mirror.status) == (404, 405)


def _empty_segment(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return re.search(r"/(:\w+)?$", _path(asked)) is not None and (go.status, mirror.status) == (400, 404)


def _escape(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return re.search("%(2F|3A)", _path(asked)) is not None


def _plain(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return (go.status, go.kind, mirror.status) == (400, "text/plain; charset=utf-8", 400)


def _utf8(asked: Ask, go: Answer, mirror: Answer) -> bool:
    try:
        unquote_to_bytes(asked.path).decode()
    except UnicodeDecodeError:
        return (go.status, mirror.status) == (500, 400)
    return False


def _semicolon(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return ";" in _query(asked) and (go.status, mirror.status) == (400, 200)


def _wider(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if (go.status, mirror.status) != (400, 200):
        return False
    in_query = any(_TIME.fullmatch(value) for _, value in _parameters(asked))
    return in_query or _LENIENT.search(str(asked.body)) is not None


def _enum(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return "must be a value of the enum" in _description(mirror) and asked.body is not None


def _strict(asked: Ask, go: Answer, mirror: Answer) -> bool:
    if mirror.status != 400:
        return False
    if asked.body is None:
        return go.status == 200 and "must be a timestamp" in _description(mirror)
    if not isinstance(asked.body, str):
        return False
    if "must name its type" in _description(mirror) or re.search(r'"[+-]?\.s"', asked.body):
        return True
    try:
        json.loads(asked.body, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except ValueError:
        return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice")
    return made


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    if float(digits) in (float("inf"), float("-inf")):
        raise ValueError(digits)
    return float(digits)


def _deep(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return "nested too deeply" in _description(mirror) and "MALFORMED_REQUEST" in str(go.body)


def _content_type(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return mirror.status == 415


def _too_large(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return (go.status, mirror.status) == (429, 413)


def _own_header(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return bool(_header(asked, "atlas-namespace"))


def _events(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return (_header(asked, "accept"), mirror.kind) == ("text/event-stream", "text/event-stream")


def _forwarded(asked: Ask, go: Answer, mirror: Answer) -> bool:
    heard = [_first(answer).get("payload", {}) for answer in (go, mirror)]
    rest = [{name: one[name] for name in one if not _FORWARDED.match(name)} for one in heard]
    return rest[0] == rest[1] and "x-forwarded-for" in heard[0]


def _empty_body(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return asked.method in {"POST", "PUT"} and not asked.body and go.status == mirror.status


def _unknown_below(asked: Ask, go: Answer, mirror: Answer) -> bool:
    one, other = _first(go), _first(mirror)
    if (go.status, mirror.status) == (400, 200):
        return "already set for oneof" in str(go.body) and "." in _query(asked)
    above = {name.split(".")[0].replace("_", "").lower() for name, _ in _parameters(asked) if "." in name}
    more = one.keys() - other.keys()
    return go.status == mirror.status == 200 and bool(more) and {name.lower() for name in more} <= above


def _mask(asked: Ask, go: Answer, mirror: Answer) -> bool:
    return (go.status, mirror.status) == (500, 400) and "FieldMask" in str(go.body)


def _binary(asked: Ask, go: Answer, mirror: Answer) -> bool:
    names = {name for name in go.metadata if name.endswith("-bin")}
    rest = [{name: one.metadata[name] for name in one.metadata if name not in names} for one in (go, mirror)]
    return bool(names) and rest[0] == rest[1] and go.status == mirror.status


def _trailers(asked: Ask, go: Answer, mirror: Answer) -> bool:
    rest = {name: values for name, values in go.metadata.items() if name != "trailer"}
    return "trailer" in go.metadata and rest == mirror.metadata and go.body == mirror.body


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


def _header(asked: Ask, name: str) -> str:
    headers = asked.headers.items() if isinstance(asked.headers, dict) else asked.headers
    return next((value for key, value in headers if key.lower() == name), "")


def _path(asked: Ask) -> str:
    return asked.path.partition("?")[0]


def _query(asked: Ask) -> str:
    return asked.path.partition("?")[2]


def _parameters(asked: Ask) -> list[tuple[str, str]]:
    return parse_qsl(_query(asked), keep_blank_values=True)


def _description(mirror: Answer) -> str:
    """What the mirror says is wrong with a field."""
    details = _first(mirror).get("details", [])
    return " ".join(one["description"] for detail in details for one in detail.get("fieldViolations", []))


def _first(answer: Answer) -> dict[str, Any]:
    """The JSON object that an answer is, or begins with."""
    return answer.body[0] if isinstance(answer.body, list) and answer.body and isinstance(answer.body[0], dict) else {}
