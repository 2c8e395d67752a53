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
_if_version = click.option(
    "--if-version", type=click.IntRange(1, 2**63 - 1), metavar="N", help="Only if the job's version is still N."
)


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
    """Print all of a job.

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


def _each(
    connection: Connection, ids: tuple[str, ...], act: Callable[[Client, str], Awaitable[JobHandle | None]], output: str
) -> int:
    """Does it to every job, whatever becomes of the others; the first error gives the exit code."""
    from ..errors import AtlasError, Unavailable

    async def work(client: Client) -> int:
        code, done = exits.OK, []
        for job_id in ids:
            try:
                done.append((job_id, await act(client, job_id)))
            except Unavailable:
                raise  # nor will the others succeed
            except AtlasError as err:
                code = code or exits.grpc_exit(err.code)
                exits.refused(err, connection.server)
        _show_done(done, output, single=len(ids) == 1)
        return code

    return perform(connection, work)


def _show_done(done: list[tuple[str, JobHandle | None]], output: str, *, single: bool) -> None:
    changed = [job.message for _, job in done if job is not None]
    if output == "table":
        for job_id, job in done:
            click.echo(f"{job_id}  {_fate(job) if job is not None else 'deleted'}")
    elif output == "json" and single and changed:
        show_json(changed[0])
    elif changed or output == "json":
        show_all(changed, output)


def _fate(job: JobHandle) -> str:
    return f"{job.state}, is being cancelled" if job.cancel_time and not job.state.terminal else str(job.state)


@click.command()
@_ids
@click.option("--reason", default="", help="Why, for people; shown in the job's error.")
@_if_version
@output_option("table: id and state; json and jsonl: the job.")
@connected
def cancel(connection: Connection, ids: tuple[str, ...], reason: str, if_version: int | None, output: str) -> int:
    """Stop jobs.

    One that waits is CANCELLED at once; one that runs is told, and has a while to stop.

    \b
    Example:
      atlas cancel 0197c0de-0000-7000-8000-000000000001 --reason "wrong input"
    """

    async def act(client: Client, job_id: str) -> JobHandle:
        return await client.cancel(job_id, reason=reason, if_version=if_version)

    return _each(connection, ids, act, output)


@click.command()
@_ids
@_if_version
@output_option("table: id and state; json and jsonl: the job.")
@connected
def retry(connection: Connection, ids: tuple[str, ...], if_version: int | None, output: str) -> int:
    """Run finished jobs again.

    They get fresh attempts and deadlines; their history is kept.

    \b
    Example:
      atlas list --state FAILED -o jsonl | jq -r .id | xargs atlas retry
    """

    async def act(client: Client, job_id: str) -> JobHandle:
        return await client.retry(job_id, if_version=if_version)

    return _each(connection, ids, act, output)


@click.command()
@_ids
@_if_version
@connected
def delete(connection: Connection, ids: tuple[str, ...], if_version: int | None) -> int:
    """Delete finished jobs before their retention ends.

    \b
    Example:
      atlas delete 0197c0de-0000-7000-8000-000000000001
    """

    async def act(client: Client, job_id: str) -> None:
        await client.delete(job_id, if_version=if_version)

    return _each(connection, ids, act, "table")


@click.command()
@_id
@output_option("table: sentences; json and jsonl: the answer of ExplainJob.")
@connected
def explain(connection: Connection, id: str, output: str) -> int:
    """Say why a job is where it is, and what happens next.

    \b
    Example:
      atlas explain 0197c0de-0000-7000-8000-000000000001
    """

    async def work(client: Client) -> int:
        from .messages import explanation
        from .render import explain_text

        answer = explanation(await client.explain(id))
        if output == "table":
            show_lines(explain_text(answer, time.time()))
        else:
            (show_json if output == "json" else show_jsonl)(answer)
        return exits.OK

    return perform(connection, work)
