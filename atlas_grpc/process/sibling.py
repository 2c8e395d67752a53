"""What a process knows of its siblings; who starts them is told in `siblings`."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

VARIABLE = "ATLAS_SIBLING"
READY = b"r"


class Sibling(NamedTuple):
    """One of several, or one that is watched over: its name, a socket to the parent, and the folder that all share."""

    name: str
    lifeline: socket.socket
    folder: Path | None = None

    @classmethod
    def of(cls, env: MutableMapping[str, str]) -> Sibling | None:
        """What the environment says; None for a process that stands alone. What it starts itself is nobody's sibling,
        and does not hold the lifeline: so that is taken out of the environment.
        """
        text = env.pop(VARIABLE, None)
        if not text:
            return None
        told = json.loads(text)
        lifeline = socket.socket(fileno=told["lifeline"])
        lifeline.set_inheritable(False)
        return cls(told["name"], lifeline, Path(told["folder"]) if told["folder"] else None)

    def environment(self) -> dict[str, str]:
        """What `of` reads in the process that inherits the lifeline."""
        folder = None if self.folder is None else str(self.folder)
        return {VARIABLE: json.dumps({"name": self.name, "lifeline": self.lifeline.fileno(), "folder": folder})}

    def hold_on(self, parent_gone: Callable[[], object]) -> None:
        """Calls back once the parent is gone."""
        self.lifeline.setblocking(False)
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not self.lifeline.recv(1):
                loop.remove_reader(self.lifeline)
                parent_gone()

        loop.add_reader(self.lifeline, heard)

    def at_work(self) -> None:
        """Tells the parent that this process is at work."""
        with suppress(BrokenPipeError):  # it is gone already: the reader says so
            self.lifeline.send(READY)
