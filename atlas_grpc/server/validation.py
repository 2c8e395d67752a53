"""Checks a message against the rules that stand beside its fields in proto/ (protovalidate), behind one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protovalidate import Validator

from ..errors import InvalidArgument, Violation
from .simple_rules import is_simply_valid

if TYPE_CHECKING:
    from google.protobuf.message import Message

_collect = Validator().collect_violations


def violations(message: Message) -> list[Violation]:
    """What is wrong with a message, field by field, in proto names. Empty when nothing is."""
    if is_simply_valid(message):
        return []
    found = _collect(message)
    return [_violation(one.proto) for one in found] if found else []


def fault_of(message: Message) -> InvalidArgument | None:
    """The same as an error."""
    found = violations(message)
    return InvalidArgument.all_of(found) if found else None


def check(message: Message) -> None:
    """Raises InvalidArgument when anything is wrong."""
    error = fault_of(message)
    if error is not None:
        raise error


def by_item(message: Message, field: str) -> tuple[list[Violation], dict[int, list[Violation]]]:
    """The same for a message with a repeated `field`: what is wrong with it as a whole, and with each item (paths
    within it).
    """
    if is_simply_valid(message):
        return [], {}
    whole: list[Violation] = []
    items: dict[int, list[Violation]] = {}
    for one in _collect(message):
        elements = _elements(one)
        first = elements[0]
        if len(elements) > 1 and first.field_name == field and first.subscript is not None:
            found = Violation(_path(elements[1:]), one.proto.message)
            items.setdefault(int(first.subscript.value), []).append(found)
        else:
            whole.append(_violation(one.proto))
    return whole, items


def faults(message: Message, field: str) -> dict[int, InvalidArgument]:
    """What is wrong with items of a repeated `field`, by their place. Raises InvalidArgument for what is wrong with the
    message as a whole.
    """
    whole, items = by_item(message, field)
    if whole:
        raise InvalidArgument.all_of(whole)
    return {place: InvalidArgument.all_of(found) for place, found in items.items()}


def _violation(found: Any) -> Violation:
    return Violation(_path(found.field.elements), found.message)


def _elements(found: Any) -> Any:
    return found.proto.field.elements


def _path(elements: Any) -> str:
    path = ""
    for element in elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            path += f"[{key}]" if isinstance(key, int) else f"[{key!r}]"
    return path
