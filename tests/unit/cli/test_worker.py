"""What `atlas worker` and `atlas serve` refuse before they begin."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from atlas_grpc.cli.app import execute

if TYPE_CHECKING:
    from pathlib import Path


def refusal(*args: str) -> str:
    with CliRunner().isolation() as streams:
        assert execute(args) == 2
    return streams[1].getvalue().decode()


@pytest.fixture(autouse=True)
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["worker", "mine.py", "--burst", "--reload"], "--burst and --reload exclude each other"),
        (["worker", "mine.py", "--reload-dir", "."], "--reload-dir belongs to --reload"),
        (["worker", "mine.py", "--reload", "--reload-dir", "mine.py"], "'--reload-dir': Directory 'mine.py' is a file"),
        (["worker", "theirs.py", "--reload"], "theirs.py: no such file"),
        (["worker", "theirs", "--reload"], "there is no module theirs"),
        (["worker", "mine.py", "--processes", "0"], "'--processes'"),
        (["worker", "mine.py", "--max-jobs", "0"], "'--max-jobs'"),
        (["serve", "--reload"], "--reload has nothing to look after"),
        (["serve", "--handlers", "theirs.py", "--reload"], "theirs.py: no such file"),
        (["serve", "--reload-dir", "."], "--reload-dir belongs to --reload"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_by_name(args: list[str], words: str) -> None:
    assert words in refusal(*args)


@pytest.mark.parametrize("args", [["worker", "mine.py"], ["serve", "--handlers", "mine.py"]], ids=" ".join)
def test_without_watchfiles_reload_says_what_to_install(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "pip install 'atlas-grpc[reload]'" in refusal(*args, "--reload")
