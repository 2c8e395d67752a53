"""Ending a process with all that descends from it, on Linux; elsewhere the process group is all that can be reached.

A program can leave its group and its session (daemons do), and loses its parent when that ends. So a child process has
such orphans fall to itself (`adopt_orphans`): while it lives, whatever a job started hangs below it, and is found
through /proc. When it dies by itself its orphans fall to somebody else; these are found by a mark in the environment
that they inherited.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "_ATLAS_CHILD"
"""The environment variable that says which child processes a program descends from."""
LINUX = sys.platform == "linux"
_PATIENCE = 2.0
"""Seconds that killed processes have to be gone."""
_PAUSE = 0.001
_ROUNDS = 100
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


def adopt_orphans() -> None:
    """Makes this process the parent of each of its descendants that loses its own."""
    if LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> bool:
    """Kills and collects all that descends from this process; False when something is left. What it costs when there is
    nothing is a system call.
    """
    deadline = time.monotonic() + _PATIENCE
    while LINUX and _has_children():
        for pid in descendants(os.getpid()):
            _kill(pid)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def end_tree(leader: int) -> None:
    """Kills the leader of a process group, its group and all that descends from it."""
    if LINUX:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(leader, signal.SIGSTOP)  # it starts no more, and keeps its orphans
        seen: set[int] = set()
        for _ in range(_ROUNDS):
            more = descendants(leader) - seen
            if not more:
                break
            for pid in more:
                _kill(pid)
            seen |= more
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def end_marked(value: str) -> None:
    """Kills what has that unique mark in its environment, wherever it is, and waits for its end. It reads the
    environment of every process.
    """
    mark = value.encode()
    killed: set[int] = set()
    for _ in range(_ROUNDS if LINUX else 0):
        found = {pid for pid in _all() if mark in _read(_PROC / str(pid) / "environ")}
        killed |= found
        if not found and all(map(_has_ended, killed)):
            return
        for pid in found:
            _kill(pid)
        time.sleep(_PAUSE)


def descendants(pid: int) -> set[int]:
    """The processes below one; those that have ended but were not collected yet among them."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        fresh = set(_children(waiting.pop())) - found
        found |= fresh
        waiting += fresh
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
    return [int(child) for task in tasks for child in _read(task / "children").split()]


def _all() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended, or belongs to somebody else
        return b""


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or would be if somebody collected it."""
    return _read(_PROC / str(pid) / "stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"], [b"X"])


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
