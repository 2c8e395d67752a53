"""Programs that tests drive and that do not come from the lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.pages import ROOT

BIN = Path(sys.prefix, "bin")
GO_BIN = ROOT / ".cache" / "go" / "bin"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
PATIENCE = 900
"""Seconds for building a program, once per machine."""


def environment() -> dict[str, str]:
    """What a newcomer's shell has after the README's first lines, and ATLAS, the checkout."""
    path = os.pathsep.join([str(BIN), str(GO_BIN), os.environ["PATH"]])
    return os.environ | {"PATH": path, "GOBIN": str(GO_BIN), "ATLAS": str(ROOT)}


def demand(tool: str) -> None:
    """Skips the test when the program is not installed; on CI it fails instead."""
    if shutil.which(tool) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")


def grpcurl() -> Path:
    """The real one, built once per checkout."""
    program = GO_BIN / "grpcurl"
    GO_BIN.mkdir(parents=True, exist_ok=True)
    with (GO_BIN / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            demand("go")
            subprocess.run(["go", "install", GRPCURL], env=environment(), check=True, timeout=PATIENCE)
    return program
