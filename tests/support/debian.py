"""Debian packages whose programs tests drive: installed once, where the tests run as root on such a system."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE = 300
"""Seconds for each of the two steps; it is a large download over what may be a slow line."""
TIMEOUT = 2 * PATIENCE + 60
"""For `pytest.mark.timeout` of tests that may have to install."""
_APT = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", f"DPkg::Lock::Timeout={PATIENCE}")
_LOCK = Path(tempfile.gettempdir(), "atlas-tests-apt.lock")
"""apt does not wait for another one that reads the package lists; test runs of ours do."""


def provided(find: Callable[[], T | None], *packages: str) -> T:
    """What `find` finds, if need be after installing the packages; None means that it is not there.

    When it cannot be had, the test is skipped with the reason, but fails when `CI` is set.
    """
    found = find()
    if found is not None:
        return found
    problem = _obstacle()
    if problem is None:
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = find()
            if found is not None:
                return found
            problem = _install(packages)
            found = find()
    if found is not None:
        return found
    reason = (
        f"needs the Debian packages {', '.join(packages)}: {problem or 'installed, but the programs are not found'}"
    )
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _obstacle() -> str | None:
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    return None if os.geteuid() == 0 else "only root may install it"


def _install(packages: tuple[str, ...]) -> str | None:
    """Installs; answers what went wrong."""
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        try:
            subprocess.run(
                [*_APT, *command],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return f"apt-get {command[0]} took more than {PATIENCE} s"
        except subprocess.CalledProcessError as err:
            return f"apt-get {command[0]} failed: {err.stdout[-800:].strip()}"
    return None
