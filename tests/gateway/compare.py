"""How an answer of grpc-gateway and one of the mirror are held beside each other.

What may differ is in `GENERAL` (in any answer) and in `PARTICULAR` (for some requests), by the names that the table in
docs/rest.md has. Everything else must be the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from .peculiar import PARTICULAR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .doors import Answer, Ask

GENERAL = {"unset", "early-error", "words", "stream", "grpc-header"}
_OWN = {"resumeToken", "nextPageToken", "session", "token"}
"""Fields that no two jobs, streams or sessions share."""
_GRPC = re.compile("grpc-metadata-(content-type|grpc-.*)$")
_MASKS = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "$time"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "$id"),
    (re.compile("door-of-(gateway|mirror)"), "$door"),
]


class Verdict(NamedTuple):
    """What was found."""

    general: set[str]
    particular: str
    """Empty: the answers are the same otherwise."""


class Unexplained(AssertionError):
    """A difference that nobody intended."""


def compare(asked: Ask, go: Answer, mirror: Answer) -> Verdict:
    """Raises Unexplained."""
    general: set[str] = set()
    for name, settle in _SETTLE.items():
        settled = settle(go, mirror)
        if settled is not None:
            general.add(name)
            go = settled
    if (go.status, go.kind, go.metadata) == (mirror.status, mirror.kind, mirror.metadata) and (
        go.body == mirror.body or masked(go.body) == masked(mirror.body)
    ):
        return Verdict(general, "")
    for name, is_it in PARTICULAR.items():
        if is_it(asked, go, mirror):
            return Verdict(general, name)
    raise Unexplained("\n".join([str(asked), *_gaps("", _shown(go), _shown(mirror))]))


def _shown(answer: Answer) -> dict[str, Any]:
    return {"status": answer.status, "kind": answer.kind, "metadata": answer.metadata, "body": answer.body}


def _gaps(where: str, go: Any, mirror: Any) -> Iterator[str]:
    """Where two answers differ."""
    if isinstance(go, dict) and isinstance(mirror, dict):
        for name in [*go, *(mirror.keys() - go.keys())]:
            yield from _gaps(f"{where}.{name}", go.get(name, "(not there)"), mirror.get(name, "(not there)"))
    elif isinstance(go, list) and isinstance(mirror, list) and len(go) == len(mirror):
        for index, (one, other) in enumerate(zip(go, mirror, strict=True)):
            yield from _gaps(f"{where}[{index}]", one, other)
    elif masked(go) != masked(mirror):
        yield f"  {where}: grpc-gateway has {str(go)[:300]!r}, the mirror {str(mirror)[:300]!r}"


def _unset(go: Answer, mirror: Answer) -> Answer | None:
    """Messages that are not set: null, or left out."""
    body = _filled(go.body, mirror.body)
    return None if body == go.body else replace(go, body=body)


def _filled(go: Any, mirror: Any) -> Any:
    if isinstance(go, dict) and isinstance(mirror, dict):
        shown = {name: item for name, item in go.items() if item is not None or name in mirror}
        return {name: _filled(item, mirror.get(name)) for name, item in shown.items()}
    if isinstance(go, list) and isinstance(mirror, list):
        return [_filled(item, other) for item, other in zip_longest(go, mirror[: len(go)])]
    return go


def _early_error(go: Answer, mirror: Answer) -> Answer | None:
    """The error of a stream that has not begun: wrapped as if it had, or an error like others."""
    wrapped = _error(go)
    if go.status < 400 or wrapped is None or go.body[-1].keys() != {"error"} or _error(mirror) is not mirror.body[-1]:
        return None
    return replace(go, body=[wrapped])


def _words(go: Answer, mirror: Answer) -> Answer | None:
    """What a gateway refuses by itself, it refuses in its own words; the mirror with details as Atlas has them."""
    theirs, ours = _error(go), _error(mirror)
    if theirs == ours or theirs is None or ours is None:
        return None
    if theirs["code"] != ours["code"] or theirs["details"] or not ours["details"]:
        return None
    return replace(go, body=[*go.body[:-1], mirror.body[-1]])


def _error(answer: Answer) -> Any:
    """The error that an answer is, or that a stream ends with."""
    last = answer.body[-1] if isinstance(answer.body, list) and answer.body else None
    if isinstance(last, dict) and last.keys() == {"error"}:
        last = last["error"]
    return last if isinstance(last, dict) and last.keys() == {"code", "message", "details"} else None


def _stream(go: Answer, mirror: Answer) -> Answer | None:
    """The content type of a stream."""
    if go.status == 200 and go.kind in {"application/json", ""} and mirror.kind == "application/x-ndjson":
        return replace(go, kind=mirror.kind)
    return None


def _grpc_header(go: Answer, mirror: Answer) -> Answer | None:
    """gRPC's own headers."""
    metadata = {name: values for name, values in go.metadata.items() if not _GRPC.match(name)}
    return None if metadata == go.metadata else replace(go, metadata=metadata)


_SETTLE = {
    "early-error": _early_error,
    "unset": _unset,
    "words": _words,
    "stream": _stream,
    "grpc-header": _grpc_header,
}


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
