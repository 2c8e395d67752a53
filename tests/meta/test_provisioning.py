"""What a test does when a program it needs is not there: installs it where it may, else skips, and on CI fails."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import debian

if TYPE_CHECKING:
    from pathlib import Path

APT = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$*" in
*" update") ;;
*{failing}*) echo "no such package" >&2; exit 100 ;;
*) : > "{folder}/program"; chmod +x "{folder}/program" ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH but /bin; its apt-get knows every package but `missing`, and installs `program`."""
    (tmp_path / "apt-get").write_text(APT.format(folder=tmp_path, failing="missing"), encoding="utf-8")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr(debian, "_LOCK", tmp_path / "lock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def program() -> str | None:
    return shutil.which("program")


def outcome(*packages: str) -> tuple[str, str]:
    """How a test that needs the program ends, and the reason."""
    try:
        return "found", debian.provided(program, *packages)
    except pytest.skip.Exception as skipped:
        return "skipped", str(skipped)
    except pytest.fail.Exception as failed:
        return "failed", str(failed)


def test_it_is_installed_once(folder: Path) -> None:
    for _ in range(2):
        assert outcome("one", "two") == ("found", str(folder / "program"))
    update, install = (folder / "calls").read_text("utf-8").splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends one two")


@pytest.mark.parametrize(("ci", "ending"), [("", "skipped"), ("true", "failed")])
def test_what_stands_in_the_way_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, ci: str, ending: str) -> None:
    monkeypatch.setenv("CI", ci)
    assert outcome("missing") == (ending, "needs the Debian packages missing: apt-get install failed: no such package")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert outcome("one") == (ending, "needs the Debian packages one: only root may install it")
    (folder / "apt-get").unlink()
    monkeypatch.setenv("PATH", str(folder))
    assert outcome("one") == (ending, "needs the Debian packages one: there is no apt-get")
