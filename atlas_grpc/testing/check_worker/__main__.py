"""The command of the suite; docs/workers.md tells how to use it."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import click
from rich.console import Console
from rich.table import Table

from . import CHECKS, CLAIMS, PATIENCE, Result, check_worker

_COLOURS = {"PASS": "green", "FAIL": "red", "SKIPPED": "yellow"}


def _names(_: click.Context, option: click.Parameter, text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        known = CLAIMS if option.name == "without" else CHECKS
        if name not in known:
            raise click.BadParameter(f"{name} is none of {', '.join(known)}")
    return names


@click.command("python -m atlas_grpc.testing.check_worker", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cmd", "command", metavar="COMMAND", help="Starts the worker; {server} and {http} are replaced.")
@click.option("--only", metavar="NAME,...", default="", callback=_names, help="Only these checks.")
@click.option(
    "--without",
    metavar="CLAIM,...",
    default="",
    callback=_names,
    help=f"What the worker does not claim to do: {', '.join(CLAIMS)}.",
)
@click.option(
    "--patience",
    type=click.FloatRange(5, 60),
    default=PATIENCE,
    show_default=True,
    help="Seconds that it has for what it should do at once.",
)
@click.option("--list", "show", is_flag=True, help="Say what the checks are, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each check.")
def main(command: str | None, only: list[str], without: list[str], patience: float, show: bool, as_json: bool) -> None:
    """Judges a worker in any language, started by COMMAND, by what a real server sees of it.

    Exits with 0 when no check failed, with 1 when one did, and with 2 when the worker cannot be started.

    \b
    Example:
      python -m atlas_grpc.testing.check_worker --cmd './my-worker --server {server}' --without progress,logs
    """  # noqa: D301 - \b keeps click from reflowing the example
    if show:
        _list(as_json=as_json)
        return
    if not command:
        raise click.UsageError("--cmd is required")
    try:
        failed = asyncio.run(_run(command, only or list(CHECKS), without, patience, as_json=as_json))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--cmd cannot be started: {error}") from None
    sys.exit(1 if failed else 0)


def _list(*, as_json: bool) -> None:
    for check in CHECKS.values():
        if as_json:
            click.echo(json.dumps({"name": check.name, "why": check.why, "claim": check.claim}))
        else:
            claim = f" [{check.claim}]" if check.claim else ""
            click.echo(f"{check.name}{claim}\n    {check.why}")


async def _run(command: str, names: list[str], without: list[str], patience: float, *, as_json: bool) -> int:
    """How many checks failed."""
    results: list[Result] = []
    for name in names:
        started = time.monotonic()
        result = await check_worker(name, command, without=without, patience=patience)
        seconds = round(time.monotonic() - started, 1)
        results.append(result)
        if as_json:
            click.echo(json.dumps(result._asdict() | {"why": CHECKS[name].why, "seconds": seconds}))
        else:
            click.echo(f"{result.status:8} {name} ({seconds:g} s)", err=True)
    if not as_json:
        _show(results)
    return sum(result.status == "FAIL" for result in results)


def _show(results: list[Result]) -> None:
    table = Table("check", "", "what is wrong", "why it matters")
    for result in results:
        colour = _COLOURS[result.status]
        why = CHECKS[result.name].why if result.status == "FAIL" else ""
        table.add_row(result.name, f"[{colour}]{result.status}[/]", result.detail, why)
    console = Console()
    console.print(table)
    for result in results:
        if result.output:
            console.print(f"\nWhat the worker wrote last in {result.name}:", style="bold")
            console.print(result.output, markup=False, highlight=False)


if __name__ == "__main__":
    main()
