"""`--reload`, of `atlas serve` and `atlas worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..process.changes import Changes

    F = TypeVar("F", bound=Callable[..., Any])


def reload_options(what: str) -> Callable[[F], F]:
    """Adds `--reload` and `--reload-dir`; `what` is started anew."""

    def add(command: F) -> F:
        command = click.option(
            "--reload-dir",
            "reload_dirs",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            multiple=True,
            help="With --reload: start anew when any file below this folder changes, too. May be repeated.",
        )(command)
        return click.option(
            "--reload",
            is_flag=True,
            help=f"For development: start the {what} anew when a Python file beside the handlers, or in their package, "
            "changes. Needs atlas-grpc[reload].",
        )(command)

    return add


def changes_of(handlers: Sequence[str], *, reload: bool, dirs: Sequence[Path]) -> Changes | None:
    """What to start anew after; None without `--reload`, and for the process that is started anew. Raises
    click.UsageError.
    """
    if dirs and not reload:
        raise click.UsageError("--reload-dir belongs to --reload")
    from ..process.sibling import VARIABLE

    if not reload or VARIABLE in os.environ:
        return None
    from ..process.changes import CannotWatch, Changes, Place
    from ..worker.loading import source_folders
    from ..worker.problems import LoadFailed

    try:
        places = [Place(folder, deep) for spec in handlers for folder, deep in source_folders(spec)]
        places += [Place(folder.resolve(), deep=True, python=False) for folder in dirs]
        if not places:
            raise CannotWatch("--reload has nothing to look after: name --handlers, or a --reload-dir")
        return Changes(places)
    except (CannotWatch, LoadFailed) as error:
        raise click.UsageError(str(error)) from None
