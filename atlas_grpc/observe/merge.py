"""The metrics of several processes as one answer: whoever of them is asked answers for all.

Each process hands out its own metrics on a Unix socket in a folder that the siblings share. The one that is scraped
reads them all and marks every sample with the process it is of, because a counter that came from another process each
time would go up and down. What is of the store that they share, and not of a process, is told once, as the first of
them that knows it does: a sum over processes would count it again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

LABEL = "process"
_PATIENCE = 2.0
"""Seconds that a sibling has to answer; one that is too busy or just gone is left out."""


class SharedMetrics:
    """The metrics of process `name` and of those that share `folder` with it. `start` it, and `stop` it.

    `shared` are the names of those that are not of a process.
    """

    def __init__(
        self, folder: Path, name: str, render: Callable[[], Awaitable[bytes]], shared: Collection[str] = ()
    ) -> None:
        self._folder = folder
        self._name = name
        self._render = render
        self._shared = shared
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Hands out the metrics of this process to its siblings."""
        path = self._folder / f"{self._name}.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def stop(self) -> None:
        """Hands out nothing any more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all, and their content type."""
        paths = sorted(self._folder.glob("*.sock"))
        texts = await asyncio.gather(*map(_ask, paths))
        found = {path.stem: text for path, text in zip(paths, texts, strict=True) if text is not None}
        registry = CollectorRegistry()
        registry.register(_Merged(found, self._shared))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(await self._render())
            await writer.drain()
        writer.close()


async def _ask(path: Path) -> str | None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    return None


class _Merged:
    def __init__(self, texts: Mapping[str, str], shared: Collection[str]) -> None:
        self._texts = texts
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        return iter(merge(self._texts, self._shared))


def merge(texts: Mapping[str, str], shared: Collection[str] = ()) -> Iterable[Metric]:
    """The families of several processes, by process name, each once and with every sample marked, but for those that
    are shared."""
    merged: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            if family.name in shared:
                into.samples = into.samples or family.samples
            else:
                into.samples += [sample._replace(labels={**sample.labels, LABEL: process}) for sample in family.samples]
    return merged.values()
