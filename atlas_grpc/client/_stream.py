"""What streaming methods return."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Self

T = TypeVar("T")


class Stream(Generic[T]):
    """An asynchronous iterator that holds a call to the server.

    It ends by itself, by `aclose()`, or with an `async with` block around it. Leaving an `async for` early without
    one of these lets go of the call only when the garbage collector finds it. Cancelling a read, as a timeout around it
    does, ends the stream as well; reading on raises Cancelled then.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._torn = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._torn:  # the generator would say that all was told
            raise Cancelled("the stream ended when a read of it was cancelled; open another one")
        try:
            return await anext(self._source)
        except asyncio.CancelledError:
            self._torn = True
            raise

    async def aclose(self) -> None:
        """Ends the stream and its call. May be repeated."""
        self._torn = False
        await self._source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
