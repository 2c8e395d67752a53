"""What a server process knows of the siblings that share its ports; who starts them is told in `siblings`."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "ATLAS_SIBLING"
READY = b"r"


class Sibling(NamedTuple):
    """One of several: its name among them, the folder that they share, and a socket to the parent."""

    name: str
    folder: Path
    lifeline: socket.socket

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Sibling | None:
        """What the environment says; None for a server that stands alone."""
        text = env.get(VARIABLE)
        if not text:
            return None
        told = json.loads(text)
        return cls(told["name"], Path(told["folder"]), socket.socket(fileno=told["lifeline"]))

    def environment(self) -> dict[str, str]:
        """What `of` reads in the process that inherits the lifeline."""
        told = {"name": self.name, "folder": str(self.folder), "lifeline": self.lifeline.fileno()}
        return {VARIABLE: json.dumps(told)}

    def hold_on(self, parent_gone: Callable[[], object]) -> None:
        """Tells the parent that this process serves, and calls back once the parent is gone."""
        self.lifeline.setblocking(False)
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not self.lifeline.recv(1):
                loop.remove_reader(self.lifeline)
                parent_gone()

        loop.add_reader(self.lifeline, heard)
        self.lifeline.send(READY)
