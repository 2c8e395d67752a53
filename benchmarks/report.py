"""Figures, and how they are shown: medians of interleaved rounds, with their spread."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_NUMBERS = ("bare server", "Atlas", "ratio")


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
    """One line of the table. `ratio` is Atlas by the baseline, or by whatever `baseline` says."""

    section: str
    name: str
    atlas: Figure | None = None
    baseline: Figure | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    more: dict[str, Figure] = field(default_factory=dict)
    note: str = ""

    def aim(self, target: str, reached: bool) -> Row:
        """Says what the issue asks for, and whether that was reached."""
        self.target, self.met = target, reached
        return self


def paired_ratio(atlas: Sequence[float], baseline: Sequence[float]) -> float | None:
    """The median of the rounds' ratios: what disturbs a round disturbs both of its halves alike."""
    pairs = [a / b for a, b in zip(atlas, baseline, strict=True) if b]
    return median(pairs) if pairs else None


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def show(rows: Sequence[Row], environment: Mapping[str, str | int], notes: Sequence[str]) -> None:
    """Prints the table, wide enough for a log file."""
    console = Console(width=None if Console().is_terminal else 170, highlight=False)
    console.print("  ".join(f"{name} {value}" for name, value in environment.items()), style="dim", soft_wrap=True)
    table = Table(title_justify="left", pad_edge=False, box=None, header_style="bold")
    for heading in ("", "bare server", "Atlas", "ratio", "target", "", "more"):
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


def _cells(row: Row) -> list[str]:
    verdict = {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[row.met]
    more = [f"{name} {figure}" for name, figure in row.more.items()]
    return [
        f"  {row.name}",
        str(row.baseline or ""),
        str(row.atlas or ""),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.target,
        verdict,
        ", ".join([*more, row.note] if row.note else more),
    ]


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
