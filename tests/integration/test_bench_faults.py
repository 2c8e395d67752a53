"""The benchmark of faults runs from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 200


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 40)
def test_a_quick_run_measures_every_section(tmp_path):
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--stores", "memory", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cancel, kill, poison, poison_process = json.loads(target.read_text())["rows"]
    assert cancel["more"]["of"]["values"] == [5]
    assert kill["more"]["of"]["values"][0] > 0, "those that lost their job before they were killed do not count"
    for row in (poison, poison_process):
        assert row["more"]["its attempts"]["values"][0] >= 3
        assert row["baseline"]["values"][0] > 0
    assert [row["more"]["workers lost"]["values"] for row in (poison, poison_process)] == [[3], [0]]
