"""The docs agree with the code."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

import atlas_grpc
from atlas_grpc.errors import BY_REASON, Code
from atlas_grpc.gateway.app import SERVICES
from tests.meta.docs_tables import BLOCK, TABLES, rendered
from tests.meta.pages import PAGES, ROOT, sections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")


def by_name(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_block_says_whether_it_is_run(page: Path) -> None:
    for section in sections(page):
        for block in section.blocks:
            assert block.mark in {"run", "serve", "file", "not run"} or block.language == "mermaid", block.text
            assert block.argument or block.mark not in {"file", "not run"}, block.text


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert rendered(text) == text, "make gen"


def test_a_stale_table_is_seen() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert BLOCK.search(text)
    assert rendered(text.replace("| `JOB_NOT_FOUND` |", "| `JOB_MISSING` |")) == text


def test_every_service_of_the_mirror_is_in_the_table_of_routes() -> None:
    routes = "\n".join(TABLES["routes"]())
    assert all(f"`{service.name}`, in `proto/{service.file.name}`" in routes for service in SERVICES)
    assert "| `GET /v1/jobs/{id}` | GetJob |  | `job` |" in routes
    assert "| `POST /v1/worker:finish` | FinishJobs | `FinishJobsRequest` | `FinishJobsResponse` |" in routes


def test_every_reason_of_a_job_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8").partition("<!-- reasons of jobs")[2]
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(reasons_of_jobs())


def reasons_of_jobs() -> Iterator[str]:
    """What looks like a reason in the modules that say why jobs fail."""
    package, known = ROOT / "atlas_grpc", BY_REASON.keys() | Code.__members__.keys()
    for path in [package / "errors.py", package / "lifecycle.py", *sorted((package / "worker").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Constant(str(text)) if REASON.fullmatch(text) and text not in known:
                    yield text


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == atlas_grpc.__version__
    assert f"\n## {atlas_grpc.__version__}\n" in (ROOT / "docs" / "changelog.md").read_text("utf-8")


def test_contributing_lists_the_test_folders() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `tests/(\w+)` \|", page, re.MULTILINE))
    there = {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir() and folder.name[0].isalpha()}
    assert there <= documented
