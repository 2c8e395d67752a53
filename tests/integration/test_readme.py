"""Runs every command and program of README.md and docs/*.md; docs/contributing.md explains the marks of blocks."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.meta.pages import PAGES, ROOT, Block, Section, sections
from tests.support.programs import PATIENCE, demand, environment, grpcurl
from tests.support.serving import EXAMPLES, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420 + PATIENCE)]

NEEDS = {"go": "go", "grpcurl": "go", "node": "node", "npm": "npm", "curl": "curl"}
"""What must be installed for a command."""


def demand_tools(script: str) -> None:
    """Skips the test when a command of the script is not installed; on CI it fails instead."""
    commands = set(re.findall(r"^(\w+)", script, re.MULTILINE))
    for tool in sorted({NEEDS[command] for command in commands & NEEDS.keys()}):
        demand(tool)
    if "grpcurl" in commands:
        grpcurl()


def output_of(block: Block, server: Server, folder: Path) -> str:
    """What the block prints. Fails the test when it does not exit with 0."""
    text = server.adapt(block.text)
    if block.language == "sh":
        demand_tools(text)
    command = {"sh": ["bash", "-euo", "pipefail", "-c", text], "python": [sys.executable, "-W", "error", "-c", text]}
    done = subprocess.run(
        command[block.language],
        cwd=folder,
        env=environment() | {"ATLAS_SERVER": server.grpc_address},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{text}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def example_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `make run`."""
    with serving(["serve", "--handlers", str(EXAMPLES)], tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, and that blocks may write to."""
    for name in ("proto", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


RUNNABLE = [section for page in PAGES for section in sections(page) if section.runs]


@pytest.mark.parametrize("section", RUNNABLE, ids=lambda section: f"{section.page.name}: {section.title}")
def test_section_is_true(section: Section, example_server: Server, folder: Path) -> None:
    server = example_server
    with ExitStack() as servers:
        for block in section.blocks:
            match block.mark:
                case "file":
                    (folder / block.argument).write_text(server.adapt(block.text), encoding="utf-8")
                case "serve":
                    server = servers.enter_context(serving(block.text.split()[1:], folder))
                case "run":
                    printed = output_of(block, server, folder)
                    wanted = block.argument.removeprefix("prints ")
                    assert wanted in printed, f"{block.text}\nprinted\n{printed}"
