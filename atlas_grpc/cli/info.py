"""`atlas types` and `atlas health`: what a server offers, and whether it serves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..errors import Code
from . import exits
from .common import Connection, connected, output_option, perform, quiet_grpc
from .completion import complete_types
from .output import show_all, show_json, show_lines, show_table
from .values import DURATION

if TYPE_CHECKING:
    from ..client import Client

READINESS = "readiness"
"""The name under which the health service says whether a server takes new work."""
PAUSE = 0.2
"""Seconds between two tries of `health --wait`."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_types)
@output_option("table; json: an array, or the one that was named; jsonl: a line a type.")
@connected
def types(connection: Connection, name: str | None, output: str) -> int:
    """List the job types of a server.

    With NAME, show the schemas and defaults of that one.

    \b
    Examples:
      atlas types
      atlas types sleep
    """

    async def work(client: Client) -> int:
        from . import render

        found = [kind.message for kind in await client.types() if name in (None, kind.name)]
        if name is not None and not found:
            exits.complain(f"the server has no job type {name!r}; `atlas types` lists those it has")
            return exits.grpc_exit(Code.NOT_FOUND)
        if name is not None and output != "jsonl":
            show_json(found[0]) if output == "json" else show_lines(render.type_text(found[0]))
        elif output == "table":
            show_table(render.TYPE_COLUMNS, [render.type_row(kind) for kind in found])
        else:
            show_all(found, output)
        return exits.OK

    return perform(connection, work)


@click.command()
@click.option("--wait", type=DURATION, default=0.0, help="Wait so long for a server that is starting.")
@click.option(
    "--service", default=READINESS, show_default=True, help="Which health to ask for; '' is that of the process."
)
@output_option("table: one word; json and jsonl: the answer of the health service.")
@connected
def health(connection: Connection, wait: float, service: str, output: str) -> int:
    """Ask whether the server takes work.

    Exit code 0 if it does, 1 if it does not or cannot be reached.

    \b
    Examples:
      atlas health
      atlas health --wait 30s && atlas run sleep seconds=1
    """
    quiet_grpc()
    from .loop import run

    status, reason = run(_health(connection, service, wait))
    if output == "table":
        click.echo(status)
    else:
        import json

        click.echo(json.dumps({"status": status}, indent=2 if output == "json" else None))
    if status != "SERVING":
        exits.complain(f"{connection.server} does not serve ({reason})")
    return exits.OK if status == "SERVING" else exits.NOT_READY


async def _health(connection: Connection, service: str, wait: float) -> tuple[str, str]:
    """The status by name, and why it is not SERVING; asks again until `wait` seconds have passed."""
    import asyncio

    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    started = time.monotonic()
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
    async with grpc.aio.insecure_channel(connection.server, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            # One try of a server that accepts connections and says nothing must not take longer than all of them may.
            left = max(wait - (time.monotonic() - started), PAUSE) if wait else connection.timeout
            limit = min(left, connection.timeout)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=limit)
                status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                found = status, status
            except grpc.aio.AioRpcError as err:
                found = "UNKNOWN", err.code().name
            if found[0] == "SERVING" or time.monotonic() - started >= wait:
                return found
            await asyncio.sleep(PAUSE)
