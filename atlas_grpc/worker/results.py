"""What a handler returned, as the content that is stored."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from ..model import Content, Succeeded
from .problems import ResultRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    Admit = Callable[[Content], str | None]

RESULT_INVALID = "RESULT_INVALID"
RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
NOTHING = Succeeded(Content(b"null"))
"""The outcome of a handler that returned None: most do, and this one needs no check."""
DEFAULT_MAX_BYTES = 1024 * 1024
LONGEST_MEDIA_TYPE = 127
MEDIA_TYPE = "^([!-~]([!-:<-~]| +; *[!-~]|;[; ]*[!-:<-~])*(;([; ]*;)?)?)?$"
"""Both are the contract's, of `Data.content_type`."""
_is_media_type = re.compile(MEDIA_TYPE).fullmatch
_ANYTHING = TypeAdapter(Any)


def encode(value: Any, adapter: TypeAdapter[Any] | None) -> Content:
    """The content of a result; `adapter` is that of its declared type. Raises `ResultRefused`."""
    if isinstance(value, Content):
        return _checked(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return Content(bytes(value), "application/octet-stream")
    try:
        if adapter is None:
            data = to_json(value, inf_nan_mode="constants", fallback=msgspec.to_builtins)
        else:
            data = adapter.dump_json(value, by_alias=True, warnings=False, fallback=msgspec.to_builtins)
    except (PydanticSerializationError, TypeError, RecursionError) as exc:
        raise ResultRefused(RESULT_INVALID, f"a {type(value).__name__} that cannot be turned into JSON") from exc
    _refuse_unreal_numbers(value, data, adapter)
    return Content(data)


def _checked(content: Content) -> Content:
    """A content that the handler made itself, whose types nobody checked."""
    data: object = content.data
    kind: object = content.content_type
    if not isinstance(data, bytes) or not (kind is None or isinstance(kind, str)):
        raise ResultRefused(RESULT_INVALID, "a Content must be of bytes, with a media type or None")
    if kind is None:
        try:  # `admit` takes it for granted
            msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ResultRefused(RESULT_INVALID, "a Content without media type that is no JSON") from exc
    elif len(kind) > LONGEST_MEDIA_TYPE or not _is_media_type(kind):
        raise ResultRefused(RESULT_INVALID, "a Content whose media type is none, such as text/html; charset=utf-8")
    return content


def admitted(content: Content, admit: Admit | None, max_bytes: int) -> Succeeded:
    """The outcome with that result. Raises `ResultRefused` when it is too large or `admit` has a reason against it."""
    if len(content.data) > max_bytes:
        message = f"the result has {len(content.data)} bytes; at most {max_bytes} are kept"
        raise ResultRefused(RESULT_TOO_LARGE, message)
    if admit is not None and (problem := admit(content)) is not None:
        raise ResultRefused(RESULT_INVALID, f"the result is refused: {problem}")
    return Succeeded(content)


def _refuse_unreal_numbers(value: Any, data: bytes, adapter: TypeAdapter[Any] | None) -> None:
    """JSON has no NaN and no infinity. Pydantic writes the names, or null, by the configuration of each model."""
    if b"null" not in data and b"NaN" not in data and b"Infinity" not in data:
        return
    plain = (adapter or _ANYTHING).dump_python(value, warnings=False)
    if _has_unreal(plain):
        raise ResultRefused(RESULT_INVALID, "the result holds a number that is not finite")


def _has_unreal(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_unreal(one) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_has_unreal(one) for one in value)
    return False
