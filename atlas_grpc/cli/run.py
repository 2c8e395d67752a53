"""`atlas run` and `atlas watch`: jobs, live."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import click

from . import exits
from .common import Connection, connected, output_option, perform
from .completion import complete_jobs
from .jobs import filter_of, filter_options
from .request import Order, job_options, order_of, type_argument
from .values import DURATION

if TYPE_CHECKING:
    from ..client import Client, FilterOptions, JobsEvent

_wait = click.option("--wait", type=DURATION, help="Give up waiting after so long (exit 4); the job goes on.")
_quiet = click.option("--quiet", is_flag=True, help="Show nothing on stderr but errors.")
_FORMATS = "table: the result; json: the job, at its end; jsonl: every message of the watch."


@click.command()
@type_argument(required=True)
@_wait
@_quiet
@job_options
@output_option(_FORMATS)
@connected
def run(connection: Connection, wait: float | None, quiet: bool, output: str, **given: Any) -> int:
    """Submit a job, show it live and print its result.

    It ends with the job's own fate: exit 0 success, 1 the job failed, 3 it was cancelled, 4 waited too long, 64 + n for
    a gRPC error of code n. Ctrl-C detaches (exit 130): the job goes on, and `atlas watch ID` shows it again. PAYLOAD is
    as for `atlas submit`.

    \b
    Examples:
      atlas run sleep '{"seconds": 3}'
      atlas run sleep seconds=3 --wait 10s
      RESULT=$(atlas run sleep seconds=1 --quiet)
    """
    order = order_of(given)
    # Known before the call, so that it can be told when Ctrl-C leaves open whether the job was stored.
    order.options["request_id"] = order.options.get("request_id") or str(uuid.uuid4())

    async def work(client: Client) -> int:
        return await _run(client, order, output=output, quiet=quiet, wait=wait)

    return perform(connection, work)


async def _run(client: Client, order: Order, *, output: str, quiet: bool, wait: float | None) -> int:
    from .follow import follow, until_interrupted
    from .submit import submit_one

    started = time.monotonic()
    job, interrupted = await until_interrupted(submit_one(client, order), wait)
    if job is None:
        exits.complain("not known whether the job was submitted; to find out, repeat the command with")
        exits.say(f"  --request-id {order.options['request_id']}")
        return exits.SIGNALLED + interrupted if interrupted else exits.WAITED_TOO_LONG
    if not quiet:
        exits.say(f"job {job.id}")
    left = None if wait is None else max(wait - (time.monotonic() - started), 0)
    return await follow(client, job.id, output=output, quiet=quiet, wait=left)


@click.command()
@click.argument("id", required=False, shell_complete=complete_jobs)
@click.option("--all", "every", is_flag=True, help="Follow all jobs of the namespace.")
@filter_options
@_wait
@_quiet
@output_option(_FORMATS + " With filters, jsonl: every job when it changes.")
@connected
def watch(
    connection: Connection,
    id: str | None,
    every: bool,
    wait: float | None,
    quiet: bool,
    output: str,
    **given: Any,
) -> int:
    """Follow one job, or many.

    Following one job prints and exits as `atlas run` does. Following many prints each job that
    matches the filters, then each again when it changes, until Ctrl-C.

    \b
    Examples:
      atlas watch 0197c0de-0000-7000-8000-000000000001
      atlas watch --all -o jsonl
      atlas watch --type sleep --state FAILED
    """
    chosen = filter_of(given)
    if bool(id) == bool(every or chosen):
        raise click.UsageError("name one job, or give filters or --all")
    if id is None and (output == "json" or wait is not None):
        raise click.UsageError("many jobs are followed without end: use -o jsonl, without --wait")

    async def work(client: Client) -> int:
        if id is None:
            return await _watch_many(client, chosen, output)
        from .follow import follow

        # A watch goes on trying to connect for a minute; somebody who mistyped wants to know at once.
        found = await client.get(id, full=False)
        return await follow(client, found.id, output=output, quiet=quiet, wait=wait)

    return perform(connection, work)


async def _watch_many(client: Client, chosen: FilterOptions, output: str) -> int:
    from .follow import until_interrupted

    async def show() -> None:
        async with client.list(limit=1, **chosen) as probe:
            async for _ in probe:
                break
        async with client.watch_all(**chosen) as events:
            async for event in events:
                _show(event, output)

    _, interrupted = await until_interrupted(show())
    return exits.SIGNALLED + interrupted if interrupted else exits.OK


def _show(event: JobsEvent, output: str) -> None:
    from ..client import JobChanged, JobDeleted, Restarted
    from .output import show_jsonl, show_value
    from .render import job_line

    if isinstance(event, JobChanged) and output == "jsonl":
        show_jsonl(event.job.message)
    elif isinstance(event, JobChanged):
        click.echo(job_line(event.job.message, time.time()))
    elif isinstance(event, JobDeleted):
        show_value({"deletedId": event.job_id}) if output == "jsonl" else click.echo(f"{event.job_id} deleted")
    elif isinstance(event, Restarted):
        exits.say("the server could not continue where the stream was cut; all jobs follow again")
