"""What counts as a change of files, and where they are looked for."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.process.changes import CannotWatch, Changes, Place
from atlas_grpc.worker.loading import source_folders
from atlas_grpc.worker.problems import LoadFailed

if TYPE_CHECKING:
    from pathlib import Path

BOUND = 20.0


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def saved(changes: Changes, file: Path) -> set[str]:
    """Writes the file, again and again until that was seen, as the watch may not have begun; answers all that was."""
    seen: set[str] = set()
    async with asyncio.timeout(BOUND):
        for text in itertools.count():
            write(file, str(text))
            waiting = asyncio.ensure_future(changes.next())
            await asyncio.wait([waiting], timeout=0.5)
            waiting.cancel()
            if waiting.done():
                seen.update(waiting.result())
            if str(file) in seen:
                break
    return seen


async def test_python_files_beside_and_all_files_below(tmp_path: Path):
    here, deep = tmp_path / "here", tmp_path / "deep"
    for folder in (here, here / "below", deep, deep / "below", deep / "__pycache__"):
        folder.mkdir()
    async with Changes([Place(here, deep=False), Place(deep, deep=True, python=False)]) as changes:
        expected = [here / "a.py", deep / "below" / "page.html", deep / "last.txt"]
        seen = await saved(changes, expected[0]) | await saved(changes, expected[1])
        for file in (here / "a.txt", here / "below" / "a.py", deep / "a.pyc", deep / "__pycache__" / "b.txt"):
            file.write_text("x")
        seen |= await saved(changes, here / "a.py") | await saved(changes, expected[2])
    assert seen == set(map(str, expected))


async def test_a_file_that_is_replaced_is_seen_each_time(tmp_path: Path):
    """As editors save: the new text under another name, which is then given the old one's."""
    file = tmp_path / "a.py"
    file.write_text("1")
    async with Changes([Place(tmp_path, deep=False)]) as changes:
        await saved(changes, tmp_path / "begin.py")
        for text in ("22", "333"):
            (tmp_path / "a.tmp").write_text(text)
            (tmp_path / "a.tmp").replace(file)
            async with asyncio.timeout(BOUND):
                while str(file) not in await changes.next():
                    pass


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(CannotWatch, match=r"pip install 'atlas-grpc\[reload\]'"):
        Changes([Place(tmp_path, deep=True)])


def test_where_the_source_of_handlers_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "shop" / "jobs"
    package.mkdir(parents=True)
    for file in (
        tmp_path / "shop" / "__init__.py",
        package / "__init__.py",
        package / "mail.py",
        tmp_path / "single.py",
    ):
        file.write_text("raise SystemExit('nothing is imported')")
    monkeypatch.chdir(tmp_path)
    assert source_folders("shop.jobs.mail") == [(tmp_path / "shop", True)]
    assert source_folders("single") == [(tmp_path, False)]
    assert source_folders("single.py") == [(tmp_path, False)]
    assert source_folders("shop/jobs/mail.py") == [(package, False)]
    for missing in ("nowhere", "nowhere.py", "sys"):
        with pytest.raises(LoadFailed):
            source_folders(missing)
