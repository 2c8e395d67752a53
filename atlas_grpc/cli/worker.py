"""`atlas worker`: execute jobs in a process of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..config import OPTIONS
from .common import DEFAULT_SERVER, quiet_grpc
from .reloading import changes_of, reload_options
from .values import DURATION

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "--server",
    "-s",
    "servers",
    metavar="ADDRESS",
    multiple=True,
    default=[DEFAULT_SERVER],
    envvar="ATLAS_SERVER",
    show_envvar=True,
    show_default=True,
    help="A server: host:port or unix:/path. Several ones of the same Atlas are tried in turn.",
)
@click.option("--queues", "-q", metavar="NAME,...", default="", help="Take jobs from these queues only.")
@click.option("--name", default="", help="The name shown in attempts; host and process id when left out.")
@click.option(
    "--processes",
    "workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Workers, each a process with all the limits below, called NAME-1 and so on.",
)
@click.option(
    "--concurrency",
    "-c",
    "slots",
    type=click.IntRange(1, 100_000),
    default=512,
    show_default=True,
    help="Jobs at a time.",
)
@click.option(
    "--threads", type=click.IntRange(1, 10_000), default=32, show_default=True, help="Of them, plain functions."
)
@click.option(
    "--handler-processes",
    "processes",
    type=click.IntRange(0, 1_024),
    default=0,
    help="Of them, CPU-bound functions; 0: one a CPU.",
)
@click.option(
    "--burst",
    is_flag=True,
    help="End, with exit code 0, once nothing is left to do now. Jobs that wait for a start time or for the pause "
    "before a retry do not keep it.",
)
@click.option(
    "--max-jobs",
    type=click.IntRange(1),
    metavar="N",
    help="End, with exit code 0, after N jobs. With --processes or --reload, a new one takes its place, "
    "but not with --burst.",
)
@reload_options("worker")
@click.option(
    "--drain-timeout",
    "grace",
    type=DURATION,
    default="30s",
    show_default=True,
    help="What jobs have to end at SIGTERM.",
)
@click.option(
    "--cancel-grace", type=DURATION, default="10s", show_default=True, help="What handlers have to stop when told."
)
@click.option(
    "--log-level",
    type=click.Choice(OPTIONS["log_level"].spec.choices),
    default="info",
    show_default=True,
    help=OPTIONS["log_level"].spec.help,
)
@click.option(
    "--log-format",
    type=click.Choice(OPTIONS["log_format"].spec.choices),
    default="auto",
    show_default=True,
    help=OPTIONS["log_format"].spec.help,
)
def worker(
    handlers: tuple[str, ...],
    servers: tuple[str, ...],
    queues: str,
    workers: int,
    *,
    name: str,
    burst: bool,
    reload: bool,
    reload_dirs: tuple[Path, ...],
    log_level: str,
    log_format: str,
    **limits: Any,
) -> int:
    """Execute jobs with the handlers of these modules.

    It takes jobs of its handlers' types from a server and hands in what became of them, until SIGTERM or Ctrl-C: then
    running jobs have the drain timeout to end, and go back uncounted after it; a second signal gives them back at once.
    Servers may come and go meanwhile; but with --burst, it ends with exit code 1 when none is there for 30 s.

    With --processes, one that dies is started again, a signal reaches all, and when none can start, because a module
    cannot be loaded say, all end with exit code 2.

    \b
    Examples:
      atlas worker my_handlers.py
      atlas worker my_handlers.py --server jobs.internal:50051 --queues mail,reports --concurrency 16
      atlas worker my_handlers.py --processes 4 --max-jobs 10000    # four, each renewed after 10,000 jobs
      atlas worker my_handlers.py --burst                           # what there is to do, for cron and tests
      atlas worker my_handlers.py --reload --reload-dir templates   # while you write them
    """
    if burst and reload:
        raise click.UsageError("--burst and --reload exclude each other: one ends by itself, the other never does")
    changes = changes_of(handlers, reload=reload, dirs=reload_dirs)
    from ..process.sibling import Sibling

    sibling = Sibling.of(os.environ)
    if sibling is None and (workers > 1 or changes is not None):
        from ..remote import siblings

        return siblings.run(
            workers, name=name, for_ever=not burst, changes=changes, log_level=log_level, log_format=log_format
        )
    quiet_grpc()
    from ..remote.main import run

    return run(
        handlers,
        servers,
        name=name,
        queues=[queue for queue in queues.split(",") if queue],
        burst=burst,
        log_level=log_level,
        log_format=log_format,
        sibling=sibling,
        **limits,
    )
