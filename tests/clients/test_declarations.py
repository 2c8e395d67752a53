"""What every client must have, whatever its toolchain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from clients.build import Client, clients
from tests.meta.pages import ROOT

from .features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = clients()
SCREEN = 45
"""Lines."""
LOCKS = {"Cargo.lock", "go.sum", "package-lock.json", "pom.xml", "requirements.txt"}
NO_HOST = {"https://github.com/rust-lang/crates.io-index", "http://maven.apache.org", "http://www.w3.org"}
"""Names of things that look like addresses."""


def tracked() -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "clients"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    yield from listed.stdout.splitlines()


@pytest.mark.parametrize("client", ALL, ids=lambda client: client.name)
def test_a_client_has_all_that_it_needs(client: Client) -> None:
    assert set(client.features) <= FEATURES.keys()
    assert len(set(client.features)) == len(client.features)
    readme = (client.folder / "README.md").read_text("utf-8").splitlines()
    assert len(readme) <= SCREEN
    assert (client.folder / "Makefile").exists()


def test_every_folder_is_a_client() -> None:
    folders = {name.split("/")[1] for name in tracked() if name.count("/") > 1}
    assert folders == {client.name for client in ALL} | {"bash"}, "which is a worker only"


def test_the_page_shows_what_is_declared() -> None:
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| \[([^\]]+)\]\(\.\./clients/(\w+)/README\.md\) \|", page, re.MULTILINE))
    assert rows == {client.language: client.name for client in ALL}
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert listed == list(FEATURES)


def test_nothing_generated_and_no_address_of_a_registry_is_committed() -> None:
    for name in tracked():
        assert not {"gen", "build", "target", "node_modules"} & set(name.split("/")), name
        if name.rpartition("/")[2] in LOCKS:
            found = re.findall(r"https?://[^\s\"/]+(?:/rust-lang/crates\.io-index)?", (ROOT / name).read_text("utf-8"))
            assert set(found) <= NO_HOST, name


@pytest.mark.parametrize("ci", [False, True])
def test_a_missing_toolchain_is_named_and_fails_on_ci_only(ci: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": "true"} if ci else {})
    program = (
        "import clients.build as build\n"
        "from dataclasses import replace\n"
        "first = build.clients()[0]\n"
        "build.clients = lambda: [replace(first, programs=['no-such-compiler'])]\n"
        "build.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == int(ci), done.stderr
    assert f"{ALL[0].name} " in done.stdout
    assert "no-such-compiler is not installed" in done.stdout


def test_a_probe_that_fails_is_named() -> None:
    client = replace(ALL[0], programs=[], probe=[sys.executable, "-c", "raise SystemExit(1)"])
    assert "raise SystemExit(1)" in (client.missing() or "")
