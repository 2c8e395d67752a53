"""Processes that somebody else started, by their ids."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def alive(pid: int) -> bool:
    """False for a process that is gone, or a zombie that nobody has collected."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def descendants(pid: int) -> list[int]:
    """What the process started, and what that started, as long as the one who did runs. Only Linux tells."""
    with suppress(FileNotFoundError, ProcessLookupError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [*children, *(below for child in children for below in descendants(child))]
    return []


async def end_family(process: asyncio.subprocess.Process) -> None:
    """Kills the process, if it has not ended, and whatever it started, which may have minutes to drain."""
    if process.returncode is None:
        family = descendants(process.pid)
        process.kill()
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await process.wait()
