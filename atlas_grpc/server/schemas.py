"""JSON Schemas that workers announce: checked when they come in, and applied to payloads.

They come from elsewhere, so nothing is fetched for them, no pattern may take long, and what is said about a payload
does not repeat it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import jsonschema_rs
import msgspec

from ..errors import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_VIOLATIONS = 20
_BACKTRACKING = 10_000
_KEPT = 1_000


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not part of the schema")


def compiled(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    """The validator of a schema (draft 2020-12, JSON text). Raises ValueError with what is wrong with it."""
    try:
        return jsonschema_rs.Draft202012Validator(
            msgspec.json.decode(schema),
            retriever=_refuse,
            mask="the value",
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKING),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(str(error).partition("\n")[0][:200]) from None


class Schemas:
    """Validators by schema, kept."""

    def __init__(self) -> None:
        self._compiled = lru_cache(_KEPT)(compiled)

    def violations(self, schema: bytes, payload: Any) -> Sequence[Violation]:
        """What a schema finds wrong with a payload, in paths from `payload` on."""
        validator = self._compiled(schema)
        if validator.is_valid(payload):
            return ()
        found: list[Violation] = []
        for error in validator.iter_errors(payload):
            found.append(Violation("payload" + _path(error.instance_path), error.message[:500]))
            if len(found) == _MOST_VIOLATIONS:
                break
        return found


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
