"""The import contracts hold, each of them bites, and what is loaded at run time agrees."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.pages import ROOT

LINT = str(Path(sys.prefix, "bin", "lint-imports"))

BREACHES = {
    "layers": ("engine/__init__.py", "import atlas_grpc.server"),
    "rules": ("lifecycle.py", "import time"),
    "engine": ("stores/memory.py", "import grpc"),
    "worker": ("worker/context.py", "import google.protobuf.struct_pb2"),
    "client": ("client/__init__.py", "import atlas_grpc.engine"),
    "pickle": ("worker/__init__.py", "import pickle"),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "atlas_grpc", tmp_path / "atlas_grpc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [LINT, "--no-cache", "--no-logo", "--contract", contract]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("contract", BREACHES)
def test_a_breach_is_seen(contract: str, copy: Path) -> None:
    assert lint(copy, contract).returncode == 0
    path, statement = BREACHES[contract]
    module = copy / "atlas_grpc" / path
    module.write_text(module.read_text("utf-8") + f"\n{statement}\n", encoding="utf-8")
    broken = lint(copy, contract)
    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import atlas_grpc", {"asyncio", "google", "grpc", "msgspec", "pydantic"}),
        ("from atlas_grpc import handler, JobContext, RetryIn", {"google", "grpc", "pydantic"}),
        ("import atlas_grpc.worker.registry, atlas_grpc.worker.runner", {"google", "grpc"}),
        ("from atlas_grpc import Client", {"atlas_grpc.server", "atlas_grpc.engine", "pydantic", "starlette"}),
        ("import atlas_grpc.cli", {"atlas_grpc.server", "google", "grpc", "pydantic"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, absent: set[str]) -> None:
    check = f"import sys; {statement}; print(*sorted({absent!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
