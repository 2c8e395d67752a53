"""`make demo` tells the truth, and can tell that it does not; `make run` serves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from atlas_grpc import SyncClient
from tests.meta.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEMO = ROOT / "docs" / "examples" / "demo.py"

pytestmark = pytest.mark.slow


def run(demo: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, demo], capture_output=True, text=True, timeout=50, check=False)


def test_demo_succeeds_and_shows_what_was_promised() -> None:
    done = run(DEMO)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "100%",
        "ended as FAILED",
        "ATTEMPT_FAILED",
        "→ CANCELLED",
        "the connection is cut",
        "all 15 transitions",
    ):
        assert shown in done.stdout, shown


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("demo.py", '"fail_times": 4}', '"fail_times": 5}'),
        ("archive.py", "ctx.attempt <= fail_times", "ctx.attempt < fail_times"),
        ("archive.py", "from atlas_grpc.worker import", "from atlas_grpc.no_such_module import"),
    ],
)
def test_demo_fails_when_a_claim_is_not_true(path: str, right: str, wrong: str, tmp_path: Path) -> None:
    for name in ("demo.py", "archive.py"):
        shutil.copy(DEMO.parent / name, tmp_path / name)
    text = (tmp_path / path).read_text("utf-8")
    assert right in text
    (tmp_path / path).write_text(text.replace(right, wrong), encoding="utf-8")
    done = run(tmp_path / "demo.py")
    assert done.returncode == 1, done.stdout
    assert "not true" in done.stderr


def test_make_run_serves_with_the_example_handlers() -> None:
    addresses = "ARGS=--grpc-address 127.0.0.1:0 --http-address 127.0.0.1:0 --log-format text"
    command = ["make", "--assume-old=.venv/.installed", "run", addresses]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        try:
            shown = "".join(takewhile(lambda line: "from another shell" not in line, process.stdout))
            address = re.search(r"gRPC +(\S+)", shown)
            page = re.search(r"API page +(\S+)", shown)
            assert address
            assert page
            with SyncClient(address[1]) as client:
                assert {"archive", "sleep"} <= {one.name for one in client.types()}
            assert b"swagger" in urlopen(page[1], timeout=10).read()
        finally:
            os.killpg(process.pid, signal.SIGTERM)
