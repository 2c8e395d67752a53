"""Packaging, the lock, the Makefile and the contract's breaking check do what the docs say."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.meta.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADED_BY_NAME = {"fastapi-swagger"}
"""It is a box of files."""
BIN = Path(sys.prefix, "bin")
LOCK = (ROOT / "tests" / "requirements.lock").read_text("utf-8")
ALLOWED = {"LICENSE", "Makefile", "README.md", "pyproject.toml"} | {
    "atlas_grpc",
    "benchmarks",
    "clients",
    "docs",
    "proto",
    "tests",
}


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NEEDED = names(PYPROJECT["project"]["dependencies"])
OPTIONAL = {name for extra in PYPROJECT["project"]["optional-dependencies"].values() for name in names(extra)}
"""What a store needs is imported by that store's own modules only."""
FOR_DEVELOPMENT = names(PYPROJECT["dependency-groups"]["dev"])


def test_the_lock_has_every_dependency_and_no_address() -> None:
    assert locked().keys() >= NEEDED | FOR_DEVELOPMENT
    assert "://" not in LOCK
    for entry in re.split(r"\n(?=[a-z])", LOCK.strip())[1:]:
        assert "--hash=sha256:" in entry, entry


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    found = imported_distributions("atlas_grpc")
    assert found - OPTIONAL == NEEDED - LOADED_BY_NAME


@pytest.mark.parametrize("folder", ["benchmarks", "docs/examples", "proto", "tests"])
def test_what_is_imported_for_development_is_declared(folder: str) -> None:
    assert imported_distributions(folder) <= NEEDED | OPTIONAL | FOR_DEVELOPMENT


def imported_distributions(folder: str) -> set[str]:
    """The distributions that the modules in a folder import, but for our own and those that come with another."""
    known = {module: names for module, names in packages_distributions().items() if module != "google"}
    known |= {"google.protobuf": ["protobuf"], "google.rpc": ["googleapis-common-protos"]}
    known |= {"google.api": ["googleapis-common-protos"]}
    found: set[str] = set()
    for module in {module for path in (ROOT / folder).rglob("*.py") for module in imported_modules(path)}:
        words = 2 if module.startswith("google.") else 1
        found |= {name.lower().replace("_", "-") for name in known.get(".".join(module.split(".")[:words]), [])}
    return found - {"atlas-grpc", "pydantic-core"}


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(str(module), _, 0):
                yield module


def test_stubs_are_made_by_the_oldest_supported_grpc_and_run_on_the_locked_one() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    oldest = re.search(r'"grpcio>=([\d.]+),', project)
    assert oldest
    assert locked()["grpcio-tools"].startswith(oldest[1] + ".")
    assert locked()["grpcio"] == locked()["grpcio-health-checking"] == locked()["grpcio-reflection"]
    assert f"grpcio {locked()['grpcio']} in the lock" in (ROOT / "docs" / "decisions.md").read_text("utf-8")


def test_the_wheel_has_types_stubs_and_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("atlas_grpc/")}
    kept = (path for path in (ROOT / "atlas_grpc").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {str(path.relative_to(ROOT)) for path in kept}
    assert {"atlas_grpc/py.typed", "atlas_grpc/_gen/atlas/v1/job_pb2.pyi"} <= packed


@pytest.mark.parametrize("change", ["removed", "renumbered"])
def test_a_breaking_change_of_the_contract_is_seen(change: str, tmp_path: Path) -> None:
    proto = shutil.copytree(ROOT / "proto", tmp_path / "proto")
    against = [str(BIN / "buf"), "breaking", "--against", str(ROOT / "tests" / "meta" / "released.binpb")]
    assert subprocess.run(against, cwd=proto, capture_output=True, check=False).returncode == 0
    job = proto / "atlas" / "v1" / "job.proto"
    line = re.search(r"^  int32 priority = 8 .*\n", job.read_text("utf-8"), re.MULTILINE)
    assert line
    new = {"removed": "", "renumbered": line[0].replace("= 8", "= 99")}[change]
    job.write_text(job.read_text("utf-8").replace(line[0], new), encoding="utf-8")
    broken = subprocess.run(against, cwd=proto, capture_output=True, text=True, check=False)
    assert broken.returncode == 100
    assert "priority" in broken.stdout


def test_help_lists_every_verb() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)", text, re.MULTILINE)
    assert phony
    assert re.findall(r"^  make (\S+)", make("help").stdout, re.MULTILINE) == phony[1].split()
    assert make().stdout == make("help").stdout


def test_an_old_python_is_refused_with_a_hint(tmp_path: Path) -> None:
    for path in ("Makefile", "pyproject.toml", "tests/requirements.lock"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("check-gen", f"PYTHON={old}", folder=tmp_path)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_nothing_else_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= ALLOWED


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test\n" in script.read_text("utf-8")
    assert "make test" in (ROOT / "README.md").read_text("utf-8")
