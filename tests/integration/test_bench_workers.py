"""The benchmark of workers runs from end to end. What the figures are is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_quick_run_measures_every_section(tmp_path):
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.workers", "--quick", "--stores", "memory", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=190, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(target.read_text())["rows"]
    assert len(rows) == 9
    assert all(row["atlas"]["values"] and row["section"] == "memory" for row in rows)
    assert sum(row["baseline"] is not None for row in rows) == 6
    assert sum(isinstance(row["met"], bool) for row in rows) == 4
