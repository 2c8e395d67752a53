"""Files that change, for `--reload`. The system tells of them, by the library watchfiles: only those need it who
develop handlers, so it is an extra of the package.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Self

from ..observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EXTRA = "reload"

log = get_logger("atlas.reload")


class Place(NamedTuple):
    """A folder to look after: whether with all below it, and whether for Python files only."""

    folder: Path
    deep: bool
    python: bool = True


class CannotWatch(Exception):
    """There is no way to learn of changes. The text says why, and what to do."""


class Changes:
    """Changes in these places, within `async with`. Raises CannotWatch when it is made.

    What the default of watchfiles leaves out is left out: caches, version control, virtual environments, and the
    temporary files of editors.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        try:
            import watchfiles
        except ModuleNotFoundError:
            raise CannotWatch(f"--reload needs the package watchfiles: pip install 'atlas-grpc[{EXTRA}]'") from None
        self._watch = watchfiles.awatch
        self._filters = {True: watchfiles.PythonFilter(), False: watchfiles.DefaultFilter()}
        self._places = sorted(set(places))
        for place in self._places:
            if not place.folder.is_dir():
                raise CannotWatch(f"--reload: {place.folder} is no folder")
        self._found: set[str] = set()
        self._some = asyncio.Event()
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        kinds = sorted({(place.deep, place.python) for place in self._places})
        self._tasks = [asyncio.create_task(self._look(deep=deep, python=python)) for deep, python in kinds]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self) -> list[str]:
        """Waits for changes since the last call, and answers the files."""
        await self._some.wait()
        self._some.clear()
        found, self._found = self._found, set()
        return sorted(found)

    async def _look(self, *, deep: bool, python: bool) -> None:
        folders = [place.folder for place in self._places if (place.deep, place.python) == (deep, python)]
        kind = self._filters[python]
        try:
            async for changes in self._watch(*folders, watch_filter=kind, recursive=deep, stop_event=self._over):
                self._found.update(path for _, path in changes)
                self._some.set()
        except Exception as error:  # the system has no more watches to give, say
            log.error("changes of files are not seen any more", folders=[*map(str, folders)], error=str(error))
