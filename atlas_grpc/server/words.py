"""What workers say about their jobs, by a stream or by a unary call, and what they are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..errors import AtlasError
from . import worker_convert as convert

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from .. import pb

M = TypeVar("M")
R = TypeVar("R")


async def told(
    messages: Iterable[M],
    wrong: Mapping[int, AtlasError],
    convert_one: Callable[[M], R],
    tell: Callable[[Sequence[R]], Awaitable[list[bool]]],
) -> list[pb.JobAnswer]:
    """Hands in a worker's words, each on its own: one that breaks a rule is refused and does not hold up the rest.
    `wrong` are those that are known to, by their place.
    """
    records: list[R] = []
    refused: list[AtlasError | None] = []
    for place, message in enumerate(messages):
        error = wrong.get(place)
        if error is None:
            try:
                records.append(convert_one(message))
            except AtlasError as found:
                error = found
        refused.append(error)
    taken = iter(await tell(records) if records else ())
    return [convert.answer(next(taken) if error is None else error) for error in refused]
