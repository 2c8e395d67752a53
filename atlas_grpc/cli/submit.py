"""`atlas submit`: from arguments, or lines of a file, to jobs."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from . import exits
from .common import Connection, connected, perform
from .output import show_json, show_jsonl, show_lines, show_table
from .request import Order, job_options, order_of, type_argument

if TYPE_CHECKING:
    from ..client import Client, JobHandle


@click.command()
@type_argument(required=False)
@click.option(
    "--from", "source", type=click.File("rb"), help="Submit a job for each JSON line of this file, - is stdin."
)
@click.option(
    "--count", type=click.IntRange(1, 1_000_000), default=1, metavar="N", help="Submit the job so many times."
)
@click.option("--validate-only", is_flag=True, help="Check only: print the effective policy and the retry timetable.")
@job_options
@click.option(
    "--output",
    "-o",
    type=click.Choice(["id", "table", "json", "jsonl"]),
    default="id",
    show_default=True,
    help="How to print the jobs.",
)
@connected
def submit(
    connection: Connection,
    source: IO[bytes] | None,
    count: int,
    validate_only: bool,
    output: str,
    **given: Any,
) -> int:
    """Submit a job and print its id.

    PAYLOAD is a JSON object, @FILE, - for the standard input, or key=value words (a value that is JSON counts as such,
    any other is text). A line of --from is a JSON object with the fields of SubmitJobRequest; TYPE and the options say
    what it leaves out.

    \b
    Examples:
      atlas submit sleep '{"seconds": 3}'
      atlas submit sleep seconds=3 --delay 1h --max-attempts 5 --label team=ops
      atlas submit sleep seconds=3 --validate-only
      atlas submit --from jobs.jsonl -o jsonl
    """
    single = {"--validate-only": validate_only, "--request-id": given["request_id"] is not None}
    if source is not None:
        _exclude("--from", single | {"--count": count > 1, "--data": given["data_file"], "PAYLOAD": given["payload"]})
    elif not given["type"]:
        raise click.UsageError("name the job type, or give jobs with --from")
    elif count > 1:
        _exclude("--count", single)
    order = order_of(given)

    async def work(client: Client) -> int:
        from .batch import submit_copies, submit_lines

        if source is not None:
            return await submit_lines(client, source, order, output)
        if count > 1:
            return await submit_copies(client, order, count, output)
        job = await submit_one(client, order, validate_only=validate_only)
        return _show_plan(job, output) if validate_only else _show(job, output)

    return perform(connection, work)


def _exclude(option: str, others: dict[str, Any]) -> None:
    clashing = [name for name, given in others.items() if given]
    if clashing:
        raise click.UsageError(f"{option} does not go with {clashing[0]}")


async def submit_one(client: Client, order: Order, *, validate_only: bool = False) -> JobHandle:
    """Submits one job, and says so when it was there already. Raises AtlasError."""
    options = order.options.copy()
    options["validate_only"] = validate_only
    job = await client.submit(order.type, order.body, **options)
    if job.deduplicated:
        exits.say("the request id names a job that was submitted before; no new one was made")
    return job


def _show(job: JobHandle, output: str) -> int:
    if output == "id":
        click.echo(job.id)
    elif output == "table":
        show_table(("ID", "TYPE", "STATE"), [(job.id, exits.clean(job.type), str(job.state))])
    elif output == "json":
        show_json(job.message)
    else:
        show_jsonl(job.message)
    return exits.OK


def _show_plan(job: JobHandle, output: str) -> int:
    import time

    from . import render
    from .messages import submit_answer

    if output in ("json", "jsonl"):
        (show_json if output == "json" else show_jsonl)(submit_answer(job))
        return exits.OK
    show_lines(render.job_text(job.message, time.time()))
    if job.planned_attempts:
        show_lines(["", "If every attempt failed at once, counted from the start time:"])
        show_table(render.PLAN_COLUMNS, render.plan_rows(submit_answer(job).planned_attempts))
    return exits.OK
