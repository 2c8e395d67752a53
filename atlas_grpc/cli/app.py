"""The command `atlas`: its verbs, and the one place where the program ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from .. import __version__
from . import exits
from .completion import completion
from .db import db
from .info import health, types
from .jobs import cancel, delete, explain, get, list_, retry
from .logs import logs
from .run import run, watch
from .serve import config, serve
from .submit import submit
from .worker import worker

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="atlas")
def cli() -> None:
    """Atlas runs slow work for other programs: submit jobs, watch them live, get their results.

    Data goes to stdout, everything else to stderr. Exit codes: 0 success, 1 the job failed, 2 wrong usage, 3 the job
    was cancelled, 4 waited too long while the job lives on, 64 + n for a gRPC error of code n, 130 for Ctrl-C.

    \b
    Examples:
      atlas serve
      atlas run sleep seconds=3
    """


for verb in (
    serve,
    worker,
    submit,
    run,
    get,
    list_,
    watch,
    logs,
    cancel,
    retry,
    delete,
    explain,
    types,
    health,
    config,
    db,
    completion,
):
    cli.add_command(verb)


def main() -> None:
    """The entry point. Always ends by SystemExit."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a locale without UTF-8 must not turn output into a traceback
            stream.reconfigure(errors="backslashreplace")
    sys.exit(execute())


def _discard_output() -> None:
    """Python must not find out again that nobody reads when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def execute(args: Sequence[str] | None = None) -> int:
    """Runs the command with those arguments, by default those of the process; answers its exit code."""
    if "_ATLAS_COMPLETE" in os.environ:
        cli.main(args, prog_name="atlas")
    try:
        # Not `cli.main`: it would answer a broken pipe and Ctrl-C in its own way.
        with cli.make_context("atlas", list(sys.argv[1:] if args is None else args)) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        exits.complain("interrupted")
        return exits.INTERRUPTED
    except UnicodeEncodeError:  # protobuf refuses what the shell passed on as undecodable bytes
        exits.complain("an argument is not Unicode text")
        return exits.USAGE
    except BrokenPipeError:  # the reader (`head`) has enough
        _discard_output()
        return exits.BROKEN_PIPE
    except OSError as error:
        _discard_output()
        exits.complain(f"{error.strerror or type(error).__name__}")
        return exits.NO_OUTPUT
    return code if isinstance(code, int) else exits.OK
