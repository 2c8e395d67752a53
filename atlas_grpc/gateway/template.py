"""Path templates of `google.api.http`: `/v1/jobs/{id}:cancel`, `/v1/{name=shelves/*/books/**}`, `/v1/*/x`.

    Template = "/" Segments [ ":" Verb ]
    Segments = Segment { "/" Segment }
    Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"

A template becomes one regular expression over the path as it was sent, before percent-decoding, so that a `%2F` or
`%3A` in a variable is part of its value and neither ends a segment nor starts a verb.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .scalars import BAD_ESCAPE, Malformed

_RESERVED = re.compile(rb"%(2[1346789ABCFabcf]|3[ABDFabdf]|40|5[BDbd])")
_VERB = re.compile(r":([^:/{}]+)$")
_PART = re.compile(r"\{([A-Za-z_][\w.]*)(?:=([^{}]+))?\}|(\*\*)|(\*)|([^/{}*]+)")


class Variable(NamedTuple):
    """A `{…}` of a template."""

    path: str
    """The dotted path of the field it fills."""
    several: bool
    """Whether it may span several segments."""


class Template(NamedTuple):
    """A compiled path template."""

    text: str
    regex: re.Pattern[bytes]
    variables: tuple[Variable, ...]
    verb: str
    rank: tuple[int, int, int]
    """Sorts templates by precedence: verbs first, then more literal segments, then fewer wildcards."""


def compile_template(text: str) -> Template:
    """Raises ValueError when `text` is no path template."""
    if "{" in re.sub(r"\{[^{}]*\}", "", text):
        msg = f"a brace is not closed in the path template {text!r}"
        raise ValueError(msg)
    verb_match = _VERB.search(text)
    verb = verb_match[1] if verb_match else ""
    body = text[: verb_match.start()] if verb_match else text
    if not body.startswith("/"):
        msg = f"a path template starts with a slash: {text!r}"
        raise ValueError(msg)
    variables: list[Variable] = []
    pattern = "".join("/" + _segment(part, variables, text) for part in _split(body[1:]))
    suffix = re.escape(":" + verb) if verb else ""
    literals = sum(1 for part in body.split("/")[1:] if "*" not in part and "{" not in part)
    rank = (0 if verb else 1, -literals, body.count("**"))
    return Template(text, re.compile((pattern + suffix).encode()), tuple(variables), verb, rank)


def decode(raw: bytes, variable: Variable) -> str:
    """The value of a variable. Reserved characters stay encoded where it spans segments, as RFC 6570 has it."""
    if BAD_ESCAPE.search(raw):
        raise Malformed("must be percent-encoded UTF-8", variable.path)
    if variable.several:
        parts = _RESERVED.split(raw)
        data = b"".join(b"%" + part if index % 2 else unquote_to_bytes(part) for index, part in enumerate(parts))
    else:
        data = unquote_to_bytes(raw)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("must be percent-encoded UTF-8", variable.path) from None


def _split(body: str) -> list[str]:
    """The segments; a slash inside braces belongs to the variable."""
    return re.findall(r"(?:\{[^{}]*\}|[^/{}])+", body)


def _segment(part: str, variables: list[Variable], text: str) -> str:
    match = _PART.fullmatch(part)
    if match is None:
        msg = f"cannot read segment {part!r} of the path template {text!r}"
        raise ValueError(msg)
    path, inner, many, one, _literal = match.groups()
    if path is not None:
        inner = inner or "*"
        variables.append(Variable(path, several="/" in inner or "**" in inner))
        return "(" + "/".join(_segment(sub, [], text) for sub in inner.split("/")) + ")"
    if many:
        return ".*"
    return "[^/]+" if one else re.escape(part)
