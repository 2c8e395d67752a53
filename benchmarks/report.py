"""Figures, and how they are shown: medians of interleaved rounds, with their spread."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_NUMBERS = ("baseline", "Atlas", "ratio")


@dataclass
class Figure:
    """What was measured in each round, in one unit."""

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def noise(self) -> float:
        """How far the extremes are apart, as a share of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def __str__(self) -> str:
        spread = f" ±{self.noise * 50:.0f}%" if len(self.values) > 1 else ""
        return f"{_number(self.median)} {self.unit}{spread}"


@dataclass
class Row:
    """One line of the table. `ratio` is Atlas by the baseline; `more` and `baseline_more` hold further figures."""

    section: str
    name: str
    atlas: Figure | None = None
    baseline: Figure | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    more: dict[str, Figure] = field(default_factory=dict)
    baseline_more: dict[str, Figure] = field(default_factory=dict)

    def compare(self) -> Row:
        """Sets the ratio: the median of the rounds' ratios, since what disturbs a round disturbs both of its halves."""
        if self.atlas and self.baseline:
            pairs = zip(self.atlas.values, self.baseline.values, strict=True)
            self.ratio = median(ours / theirs for ours, theirs in pairs) if all(self.baseline.values) else None
        return self

    def promote(self, name: str) -> Row:
        """Compares by one of the further figures, and shows the rates among those."""
        if name in self.more and (name in self.baseline_more or self.baseline is None):
            for further, rate in ((self.more, self.atlas), (self.baseline_more, self.baseline)):
                if rate:
                    further["rate"] = rate
            self.atlas, self.baseline = self.more.pop(name), self.baseline_more.pop(name, None)
        return self.compare()

    def aim(self, target: str, reached: bool) -> Row:
        """Says what the issue asks for, and whether that was reached."""
        self.target, self.met = target, reached
        return self


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def show(rows: Sequence[Row], environment: Mapping[str, str | int], notes: Sequence[str]) -> None:
    """Prints the table, wide enough for a log file."""
    console = Console(width=None if Console().is_terminal else 180, highlight=False)
    console.print("  ".join(f"{name} {value}" for name, value in environment.items()), style="dim", soft_wrap=True)
    table = Table(title_justify="left", pad_edge=False, box=None, header_style="bold")
    for heading in ("", "baseline", "Atlas", "ratio", "target", "", "more (baseline → Atlas)"):
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", overflow="fold")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row()
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(*_cells(row))
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def as_json(
    rows: Sequence[Row], environment: Mapping[str, Any], settings: Mapping[str, Any], notes: Sequence[str]
) -> Any:
    """The same for programs."""
    return {
        "environment": dict(environment),
        "settings": dict(settings),
        "rows": [asdict(row) for row in rows],
        "notes": list(notes),
    }


def default_path(prefix: str = "") -> Path:
    """Where the figures of a run go unless it is told otherwise."""
    return Path(__file__).parent / "results" / f"{prefix}{'-' * bool(prefix)}{time.strftime('%Y%m%d-%H%M%S')}.json"


def write(path: Path, content: object) -> None:
    """Keeps the figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {path}", file=sys.stderr)


def _cells(row: Row) -> list[str]:
    verdict = {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[row.met]
    return [
        f"  {row.name}",
        str(row.baseline or ""),
        str(row.atlas or ""),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.target,
        verdict,
        ", ".join(_pair(name, figure, row.baseline_more.get(name)) for name, figure in row.more.items()),
    ]


def _pair(name: str, ours: Figure, theirs: Figure | None) -> str:
    return f"{name} {_number(theirs.median)} → {_number(ours.median)} {ours.unit}" if theirs else f"{name} {ours}"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
