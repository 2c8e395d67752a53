"""What streaming methods return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Self

T = TypeVar("T")


class Stream(Generic[T]):
    """An asynchronous iterator that holds a call to the server.

    It ends by itself, by `aclose()`, or with an `async with` block around it. Leaving an `async for` early without
    one of these lets go of the call only when the garbage collector finds it.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._source)

    async def aclose(self) -> None:
        """Ends the stream and its call. May be repeated."""
        await self._source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
