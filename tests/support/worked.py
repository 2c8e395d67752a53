"""`atlas worker` as a process of its own, that is killed, stopped and started again."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.program import PATIENCE, Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROGRAM = [sys.executable, str(Path(__file__).with_name("tapped_worker.py")), "worker"]
_CONNECTED = re.compile(rb'"connected"')


class Worked(Program):
    """A worker process, and the next one of the same name."""

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        handlers: str,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        with_spare: bool = False,
    ) -> None:
        spare = {"ATLAS_TEST_SPARE": "1"} if with_spare else {}
        super().__init__(environment={**os.environ, **(environment or {}), **spare}, with_spare=with_spare)
        self.name = name
        targets = [part for server in servers for part in ("--server", server)]
        self._arguments = [handlers, *targets, *flags, "--log-format", "json"]

    @property
    def life_name(self) -> str:
        """What Atlas knows this life of it by."""
        return f"{self.name}-{self.life}"

    def _command(self, life: int) -> Sequence[str]:
        return [*_PROGRAM, *self._arguments, "--name", f"{self.name}-{life}"]

    async def start(self) -> None:
        """Starts it; returns when it is connected, and perhaps dead again already."""
        if await self._begin(_CONNECTED) is None:  # perhaps it was killed before its last line had left
            assert await self.ended(PATIENCE) == -signal.SIGKILL, b"".join(self.said)
        await self._prepare()
