"""Pydantic's validation errors as violations of the contract: paths in proto names, and no echo of what was sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..errors import Violation
from .text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails, ValidationError

MAX_VIOLATIONS = 50
_MAX_KEY = 100
_MAX_PATH = 500
_MAX_TEXT = 500
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NO_ECHO = {
    "uuid_parsing": "Input should be a valid UUID",
    "url_parsing": "Input should be a valid URL",
    "url_syntax_violation": "Input should be a valid URL",
}
"""Pydantic's own text for these errors repeats parts of the input."""


def violations(error: ValidationError, root: str) -> list[Violation]:
    """One violation for each thing that is wrong, at most `MAX_VIOLATIONS`; `root` is the field of the payload."""
    details = error.errors(include_url=False, include_input=False)
    found = [Violation(_path(root, one["loc"]), _text(one)) for one in details[:MAX_VIOLATIONS]]
    if len(details) > len(found):
        found.append(Violation(root, f"and {len(details) - len(found)} more errors"))
    return found


def _path(root: str, loc: tuple[int | str, ...]) -> str:
    return clean(root + "".join(_steps(loc)), _MAX_PATH)


def _steps(loc: tuple[int | str, ...]) -> Iterator[str]:
    for step in loc:
        if isinstance(step, int):
            yield f"[{step}]"
        elif _PLAIN.fullmatch(step) and len(step) <= _MAX_KEY:
            yield f".{step}"
        else:
            yield f"[{json.dumps(clean(step, _MAX_KEY))}]"


def _text(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "union_tag_invalid":
        return f"Input tag should be one of {detail['ctx']['expected_tags']}"
    return _NO_ECHO.get(kind) or clean(detail["msg"], _MAX_TEXT)
