"""The verbs for jobs that are there: `get`, `list`, `cancel`, `retry`, `delete`, `explain`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from . import exits
from .common import Connection, connected, output_option, perform
from .completion import complete_jobs, complete_types
from .output import show_all, show_json, show_jsonl, show_lines, show_table
from .values import DURATION, INSTANT, PAIR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .. import pb
    from ..client import Client, FilterOptions, JobHandle

    F = TypeVar("F", bound=Callable[..., Any])

STATES = ("PENDING", "RUNNING", "SUCCESS", "FAILED", "CANCELLED")
_FILTERS = (
    click.option("--type", "types", multiple=True, shell_complete=complete_types, help="Only jobs of this type."),
    click.option("--queue", "queues", multiple=True, help="Only jobs of this queue."),
    click.option(
        "--state", "states", multiple=True, type=click.Choice(STATES, case_sensitive=False), help="Only in this state."
    ),
    click.option("--label", "-l", "labels", type=PAIR, multiple=True, help="Only jobs with this label."),
    click.option("--created-from", "create_time_from", type=INSTANT, help="Only jobs created then or later."),
    click.option("--created-before", "create_time_before", type=INSTANT, help="Only jobs created before."),
)
_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_jobs)
_id = click.argument("id", shell_complete=complete_jobs)
_if_version = click.option("--if-version", type=int, metavar="N", help="Only if the job's version is still N.")


def filter_options(command: F) -> F:
    """Adds the filters; the command gets them as keyword arguments for `filter_of`."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def filter_of(given: dict[str, Any]) -> FilterOptions:
    """The filters that were given, as the client takes them."""
    chosen = {name: value for name, value in given.items() if value is not None and value != ()}
    if "labels" in chosen:
        chosen["labels"] = dict(chosen["labels"])
    return cast("FilterOptions", chosen)


def _show_job(message: pb.Job, output: str) -> None:
    from . import render

    if output == "json":
        show_json(message)
    elif output == "jsonl":
        show_jsonl(message)
    else:
        now = time.time()
        show_lines(render.job_text(message, now))
        if message.attempts:
            click.echo()
            show_table(render.ATTEMPT_COLUMNS, render.attempt_rows(message, now))


@click.command()
@_id
@click.option("--wait", type=DURATION, default=0.0, help="Answer when the job has ended, or after so long (up to 10m).")
@output_option("table: readable; json and jsonl: the job.")
@connected
def get(connection: Connection, id: str, wait: float, output: str) -> int:
    """Print all of a job: its payload, attempts, result and error.

    \b
    Examples:
      atlas get 0197c0de-0000-7000-8000-000000000001
      atlas get 0197c0de-0000-7000-8000-000000000001 --wait 1m -o json
    """

    async def work(client: Client) -> int:
        _show_job((await client.get(id, wait=wait)).message, output)
        return exits.OK

    return perform(connection, work)


@click.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0 means all.")
@output_option("table; json: an array; jsonl: a line a job.")
@connected
def list_(connection: Connection, limit: int, output: str, **given: Any) -> int:
    """List jobs, newest first.

    Filters of one kind add up (any of them), those of different kinds narrow down (all of them).

    \b
    Examples:
      atlas list --state FAILED --state CANCELLED
      atlas list --type sleep --label team=ops --limit 0 -o jsonl
    """
    chosen = filter_of(given)

    async def work(client: Client) -> int:
        # One more than asked for tells whether there are more.
        async with client.list(limit=limit + 1 if limit else None, **chosen) as jobs:
            return await _print_jobs(jobs, limit, output)

    return perform(connection, work)


async def _print_jobs(jobs: Any, limit: int, output: str) -> int:
    from .render import JOB_COLUMNS, job_row

    found: list[pb.Job] = []
    number = 0
    async for job in jobs:
        number += 1
        if limit and number > limit:
            exits.say(f"there are more than {limit} jobs; raise --limit (0 means all)")
            break
        if output == "jsonl":
            show_jsonl(job.message)
        else:
            found.append(job.message)
    if output == "json":
        show_all(found, output)
    elif output == "table":
        now = time.time()
        show_table(JOB_COLUMNS, [job_row(message, now) for message in found])
    return exits.OK


def _each(connection: Connection, ids: tuple[str, ...], output: str, act: Callable[[Client, str], Awaitable[JobHandle]]) -> int:
    """Does it to every job, whatever becomes of the others; the first error gives the exit code."""
    from ..errors import AtlasError, Unavailable

    done: list[pb.Job] = []

    async def work(client: Client) -> int:
        code = exits.OK
        for id in ids:
            try:
                done.append((await act(client, id)).message)
            except Unavailable:
                raise
            except AtlasError as err:
                code = code or exits.refused(err, connection.server)
        return code
    ...
