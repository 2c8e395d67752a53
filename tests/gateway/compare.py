"""How an answer of grpc-gateway and one of the mirror are held beside each other.

What may differ is in `GENERAL` (in any answer) and in `PARTICULAR` (for some requests), by the names that the table in
docs/rest.md has. Everything else must be the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from google.rpc import code_pb2

from .peculiar import PARTICULAR
from .shapes import INFO, filled, masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .doors import Answer, Ask

GENERAL = {"unset", "early-error", "words", "stream", "grpc-header"}
_GRPC = re.compile("grpc-metadata-(content-type|grpc-.*)$")


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
    if _same(go, mirror):
        return Verdict(general, "")
    reworded = _words(go, mirror)
    if reworded is not None and _same(reworded, mirror):
        return Verdict(general | {"words"}, "")
    rows = [name for name, is_it in PARTICULAR.items() if is_it(asked, go, mirror)]
    if len(rows) == 1:
        return Verdict(general, rows[0])
    raise Unexplained("\n".join([f"{rows} {asked}", *_gaps("", _shown(go), _shown(mirror))]))


def _same(go: Answer, mirror: Answer) -> bool:
    if (go.status, go.kind, go.metadata) != (mirror.status, mirror.kind, mirror.metadata):
        return False
    return bool(go.body == mirror.body or masked(go.body) == masked(mirror.body))


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
    body = filled(go.body, mirror.body)
    return None if body == go.body else replace(go, body=body)


def _early_error(go: Answer, mirror: Answer) -> Answer | None:
    """The error of a stream that has not begun: wrapped as if it had, or an error like others."""
    wrapped, plain = _error(go), _error(mirror)
    if go.status < 400 or wrapped is None or plain is None or len(go.body) != 1:
        return None
    if go.body[0].keys() != {"error"} or plain is not mirror.body[-1]:
        return None
    return replace(go, body=[wrapped])


def _words(go: Answer, mirror: Answer) -> Answer | None:
    """What a gateway refuses by itself, it refuses in its own words; the mirror with details as Atlas has them.

    What a server refuses has a reason of its own.
    """
    theirs, ours = _error(go), _error(mirror)
    if theirs == ours or theirs is None or ours is None:
        return None
    if theirs["code"] != ours["code"] or theirs["details"] or not ours["message"]:
        return None
    info = next((detail for detail in ours["details"] if detail["@type"] == INFO), {"reason": ""})
    if info["reason"] not in {code_pb2.Code.Name(ours["code"]), "PATH_NOT_FOUND"}:
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
    "stream": _stream,
    "grpc-header": _grpc_header,
}
