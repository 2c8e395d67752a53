"""The command `atlas`: its verbs, and the one place where the program ends."""

from __future__ import annotations

import os
import sys

import click

from .. import __version__
from . import exits
from .completion import completion
from .serve import config, serve


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


for verb in (serve, config, completion):
    cli.add_command(verb)


def main() -> None:
    """The entry point. Always ends by SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a locale without UTF-8 must not turn output into a traceback
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    try:
        code = cli.main(prog_name="atlas", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        exits.complain("interrupted")
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`) has enough. Python must not find out again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    return code if isinstance(code, int) else exits.OK
