"""Data on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from .render import Row

FORMATS = ("table", "json", "jsonl")
GAP = 2
LAST = 24
"""Cells that the last column of a table has on a terminal, however narrow that is."""


def show_lines(lines: Iterable[str]) -> None:
    """Lines as they are."""
    click.echo("\n".join(lines))


def show_table(head: Row, rows: Sequence[Row]) -> None:
    """A table: fitted to a terminal with colours, plain and uncut anywhere else."""
    from .render import columns

    if sys.stdout.isatty():
        click.echo(_fitted(head, rows), nl=False, color=True)
    else:
        show_lines(columns(head, rows))


def _fitted(head: Row, rows: Sequence[Row]) -> str:
    """Every column whole but the last, which is cut to what the terminal has left, though not below `LAST` cells."""
    import io

    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .render import STATE_COLOURS

    widths = [max(map(cell_len, cells)) for cells in zip(head, *rows, strict=True)]
    taken = sum(widths[:-1]) + GAP * len(widths[:-1])
    widths[-1] = min(widths[-1], max(shutil.get_terminal_size().columns - taken, LAST))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name, width in zip(head, widths, strict=True):
        table.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_COLOURS.get(cell, "")) for cell in row))
    text = io.StringIO()
    Console(file=text, force_terminal=True, width=taken + widths[-1]).print(table)
    return text.getvalue()


def show_value(value: Any, *, indent: int | None = None) -> None:
    """A JSON value; what the encoding of stdout lacks is escaped as JSON does it, so that it stays JSON."""
    from .render import dumps

    text = dumps(value, indent=indent)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = dumps(value, indent=indent, ascii_only=True)
    click.echo(text)


def show_json(message: Message) -> None:
    """One message as an indented JSON document."""
    from .render import as_json

    show_value(as_json(message), indent=2)


def show_jsonl(message: Message) -> None:
    """One message as a line of JSON."""
    from .render import as_json

    show_value(as_json(message))


def show_all(messages: Sequence[Message], form: str) -> None:
    """Several messages, as a JSON array or as lines of JSON."""
    from .render import as_json

    if form == "json":
        show_value([as_json(message) for message in messages], indent=2)
    else:
        for message in messages:
            show_jsonl(message)
