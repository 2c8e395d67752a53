"""Runs every command and program of README.md and docs/*.md; docs/contributing.md explains the marks of blocks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest

from tests.meta.pages import PAGES, ROOT, Block, Section, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

BIN = Path(sys.prefix, "bin")
GO_BIN = ROOT / ".cache" / "go" / "bin"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
NEEDS = {"go": "go", "grpcurl": "go", "node": "node", "npm": "npm", "curl": "curl"}
"""What must be installed for a command."""


class Server(NamedTuple):
    """Where a running `atlas serve` listens."""

    grpc_address: str
    http_address: str

    def adapt(self, text: str) -> str:
        """The text with this server's addresses instead of the usual ones."""
        return text.replace("127.0.0.1:50051", self.grpc_address).replace("127.0.0.1:8080", self.http_address)


@contextmanager
def serving(arguments: list[str], folder: Path) -> Iterator[Server]:
    """`atlas serve` in a process of its own, on free ports."""
    server = Server(free_address(), free_address())
    addresses = {"ATLAS_GRPC_ADDRESS": server.grpc_address, "ATLAS_HTTP_ADDRESS": server.http_address}
    with (
        (folder / "serve.log").open("w") as log,
        subprocess.Popen(
            [BIN / "atlas", *arguments], cwd=folder, env=os.environ | addresses, stdout=log, stderr=log
        ) as process,
    ):
        try:
            with grpc.insecure_channel(server.grpc_address) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=40)
            finally:
                process.kill()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(BIN), str(GO_BIN), os.environ["PATH"]])
    return os.environ | {"PATH": path, "GOBIN": str(GO_BIN), "ATLAS": str(ROOT)}


@cache
def build_grpcurl() -> None:
    if not (GO_BIN / "grpcurl").exists():
        subprocess.run(["go", "install", GRPCURL], env=environment(), check=True, timeout=300)


def demand_tools(script: str) -> None:
    """Skips the test when a command of the script is not installed; on CI it fails instead."""
    commands = set(re.findall(r"^(\w+)", script, re.MULTILINE))
    for tool in sorted({NEEDS[command] for command in commands & NEEDS.keys()}):
        if shutil.which(tool) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")
    if "grpcurl" in commands:
        build_grpcurl()


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
    with serving(
        ["serve", "--handlers", str(ROOT / "docs/examples/archive.py")], tmp_path_factory.mktemp("serve")
    ) as server:
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
