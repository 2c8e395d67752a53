"""Data on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from .render import Row

FORMATS = ("table", "json", "jsonl")


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
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .render import STATE_COLOURS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        # What is copied (the id) and what is short stays whole; the last column gives way.
        last = index == len(head) - 1
        table.add_column(name, no_wrap=True, overflow="ellipsis" if last else "fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STATE_COLOURS.get(cell, "")) for cell in row))
    width = shutil.get_terminal_size().columns
    console = Console(file=io.StringIO(), force_terminal=True, width=max(width, 40))
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return] # it is the StringIO


def show_json(message: Message) -> None:
    """One message as an indented JSON document."""
    from .render import as_json, dumps

    click.echo(dumps(as_json(message), indent=2))


def show_jsonl(message: Message) -> None:
    """One message as a line of JSON."""
    from .render import as_json, dumps

    click.echo(dumps(as_json(message)))


def show_all(messages: Sequence[Message], form: str) -> None:
    """Several messages, as a JSON array or as lines of JSON."""
    from .render import as_json, dumps

    if form == "json":
        click.echo(dumps([as_json(message) for message in messages], indent=2))
    else:
        for message in messages:
            show_jsonl(message)
