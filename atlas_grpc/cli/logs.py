"""`atlas logs`: what a job's handler logged and printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from . import exits
from .common import Connection, connected, output_option, perform
from .completion import complete_jobs

if TYPE_CHECKING:
    from .. import pb
    from ..client import Client

_count = click.IntRange(0, 2**31 - 1)


@click.command()
@click.argument("id", shell_complete=complete_jobs)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until the job has ended.")
@click.option("--tail", type=_count, metavar="N", help="Begin with the last N lines.")
@click.option("--since-offset", type=click.IntRange(0, 2**63 - 1), default=0, metavar="N", help="Begin at line N.")
@click.option("--attempt", type=_count, default=0, metavar="N", help="Only lines of the attempts with this number.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@output_option("table: the lines as they are; json: an array; jsonl: a line of JSON for each.")
@connected
def logs(
    connection: Connection, id: str, follow: bool, since_offset: int, timestamps: bool, output: str, **wanted: Any
) -> int:
    """Print a job's log.

    It holds what the handler logged and, where it runs in a process of its own, what it and the programs it started
    printed. How many lines the server no longer keeps is said on stderr. Ctrl-C ends following (exit 130); the job goes
    on.

    \b
    Examples:
      atlas logs 0197c0de-0000-7000-8000-000000000001
      atlas logs 0197c0de-0000-7000-8000-000000000001 --follow --tail 20
      atlas logs 0197c0de-0000-7000-8000-000000000001 -o jsonl | jq -r 'select(.severity == "WARNING").message'
    """
    if follow and output == "json":
        raise click.UsageError("a log that is followed has no end to close an array: use -o jsonl")

    async def work(client: Client) -> int:
        from .follow import until_interrupted

        if follow:
            # A stream goes on trying to connect for a minute; somebody who mistyped wants to know at once.
            await client.get(id, full=False)
        show = _show(client, id, output, timestamps=timestamps, follow=follow, start_offset=since_offset, **wanted)
        _, interrupted = await until_interrupted(show)
        return exits.SIGNALLED + interrupted if interrupted else exits.OK

    return perform(connection, work)


async def _show(client: Client, id: str, output: str, *, timestamps: bool, **wanted: Any) -> None:
    from ..client import LogsDropped
    from .messages import update_of
    from .output import show_all, show_jsonl

    found: list[pb.LogEntry] = []
    async with client.logs(id, **wanted) as events:
        async for event in events:
            if isinstance(event, LogsDropped):
                exits.say(f"({event.count} log lines are no longer kept)")
                continue
            (entry,) = update_of(event).logs
            if output == "json":
                found.append(entry)
            elif output == "jsonl":
                show_jsonl(entry)
            else:
                _print(entry, timestamps=timestamps)
    if output == "json":
        show_all(found, output)


def _print(entry: pb.LogEntry, *, timestamps: bool) -> None:
    """The text as it is, but for what could play tricks on a terminal."""
    from .render import clean_lines, local

    text = "\n".join(clean_lines(entry.message)) if sys.stdout.isatty() else entry.message
    # `color` keeps click from taking the colours out of what is written to a file.
    click.echo(f"{local(entry.time)} {text}" if timestamps else text, color=True)
