"""The benchmark runs from end to end and answers complete figures. What the figures are is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = {"unary calls", "batches", "latency", "drain", "watch", "memory"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_quick_run_measures_everything(tmp_path):
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    figures = json.loads(target.read_text())
    assert {"python", "grpcio", "protobuf", "cpu", "cores"} <= figures["environment"].keys()
    rows = figures["rows"]
    assert {row["section"] for row in rows} > SECTIONS
    assert sum(row["section"].startswith("cost with") for row in rows) == 3
    for row in rows:
        for figure in (row["atlas"], row["baseline"], *row["more"].values()):
            assert figure is None or (figure["unit"] and figure["values"]), row
        assert row["name"] in done.stdout
    with_target = [row for row in rows if row["target"]]
    assert len(with_target) == 9
    assert all(isinstance(row["met"], bool) for row in with_target)
    assert all(row["ratio"] > 0 for row in rows if row["section"] == "unary calls" and row["atlas"])
