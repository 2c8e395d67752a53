"""Checks a message against the rules that stand beside its fields in proto/ (protovalidate), behind one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protovalidate import Validator

from ..errors import Violation
from .simple_rules import is_simply_valid, rules_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

_collect = Validator().collect_violations


def violations(message: Message) -> list[Violation]:
    """What is wrong with a message, field by field, in proto names. Empty when nothing is."""
    if is_simply_valid(message):
        return []
    found = _collect(message)
    return [_violation(one.proto) for one in found] if found else []


def by_item(message: Message, field: str) -> tuple[list[Violation], dict[int, list[Violation]]]:
    """The same for a message with a repeated `field`: what is wrong with it as a whole, and with each item (paths
    within it).
    """
    inside = getattr(message, field)
    if 0 < len(inside) <= _max_items(message.DESCRIPTOR, field) and all(map(is_simply_valid, inside)):
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


def _max_items(descriptor: Any, field: str) -> int:
    rules = rules_of(descriptor.fields_by_name[field])
    return 0 if rules is None else int(rules.repeated.max_items)
