"""`atlas serve` and `atlas config`: everything that reads the server's configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config import DEFAULT_FILE, OPTIONS, ConfigError, Loaded, Settings, locate
from ..options import COUNT, FLAG, LIST
from . import exits
from .reloading import changes_of, reload_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Option

    F = TypeVar("F", bound=Callable[..., Any])


class OptionsByGroup(click.Command):
    """A command whose help shows the server's options under the names of their TOML tables."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            option = OPTIONS.get(param.name or "")
            if record is not None:
                sections.setdefault(option.spec.group if option else "options", []).append(record)
        for name, records in sections.items():
            with formatter.section(name.capitalize()):
                formatter.write_dl(records)


def server_options(command: F) -> F:
    """Adds `--config` and a flag for each option; without a value a flag is None, so that the environment counts."""
    for option in reversed(list(OPTIONS.values())):
        command = _flag(option)(command)
    help_text = f"The TOML file.  [env: ATLAS_CONFIG; default: ./{DEFAULT_FILE} if there]"
    return click.option("--config", "config_file", type=click.Path(path_type=Path), help=help_text)(command)


def _flag(option: Option) -> Callable[[F], F]:
    spec = option.spec
    default = option.show(option.default)
    text = spec.help + (f"  [default: {default}]" if default else "")
    if spec.kind is FLAG:
        both = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
        return click.option(both, option.name, default=None, help=text)
    metavar = "|".join(spec.choices) or spec.unit.upper() or spec.kind.metavar
    return click.option(option.flag, option.name, default=None, metavar=metavar, multiple=spec.kind is LIST, help=text)


def load(config_file: Path | None, flags: dict[str, object]) -> Loaded | None:
    """The settings, or None after saying on stderr what is wrong with them."""
    try:
        loaded = Settings.load(flags, os.environ, config_file)
    except ConfigError as error:
        for problem in error.problems:
            exits.complain(exits.clean(str(problem)))
        return None
    for warning in loaded.warnings:
        exits.complain(f"warning: {exits.clean(warning)}")
    return loaded


@click.command(cls=OptionsByGroup)
@reload_options("server")
@server_options
def serve(config_file: Path | None, *, reload: bool, reload_dirs: tuple[Path, ...], **flags: object) -> int:
    """Start a server.

    It serves until SIGTERM or Ctrl-C, then finishes what it does; a second signal ends it at once. Every option can
    also be set as ATLAS_<OPTION> in the environment or as a key of the TOML file; `atlas config show` says what holds
    and why.

    \b
    Examples:
      atlas serve
      atlas serve --handlers my_handlers.py --slots 8
      ATLAS_LOG_LEVEL=debug atlas serve --http-address off
      atlas serve --handlers my_handlers.py --reload --store sqlite:///dev.db
    """
    loaded = load(config_file, flags)
    if loaded is None:
        return exits.USAGE
    changes = changes_of(loaded.settings.handlers, reload=reload, dirs=reload_dirs)
    # What gRPC itself prints, for instance of an address that is in use, we say in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from ..server.main import run

    return run(loaded, changes)


@click.group()
def config() -> None:
    """Show the configuration and where it comes from.

    \b
    Examples:
      atlas config show
      atlas config defaults > atlas.toml
    """


@config.command(cls=OptionsByGroup)
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@server_options
def show(output: str, config_file: Path | None, **flags: object) -> int:
    """Print every option, its value, and where that comes from.

    Takes the flags of `atlas serve`, to try them out. Passwords in URLs are left out.

    \b
    Example:
      ATLAS_SLOTS=8 atlas config show --lease 1m
    """
    loaded = load(config_file, flags)
    if loaded is None:
        return exits.USAGE
    found = [
        (option, option.show(getattr(loaded.settings, option.name)), str(loaded.provenance[option.name]))
        for option in OPTIONS.values()
    ]
    if output == "json":
        click.echo(
            json.dumps({option.name: {"value": value, "source": source} for option, value, source in found}, indent=2)
        )
        return exits.OK
    from .output import show_table

    show_table(("OPTION", "VALUE", "FROM"), [(option.name, value or "-", source) for option, value, source in found])
    return exits.OK


@config.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The TOML file.")
def path(config_file: Path | None) -> int:
    """Print the path of the file that a server would read.

    Exit code 1 if there is none.

    \b
    Example:
      atlas config path
    """
    file = locate(os.environ, config_file)
    if file is None or not file.is_file():
        exits.complain(f"{file} does not exist" if file else f"there is no ./{DEFAULT_FILE}, and none was named")
        return 1
    click.echo(str(file.absolute()))
    return exits.OK


@config.command()
def defaults() -> int:
    """Print a TOML file that holds every option with its default.

    \b
    Example:
      atlas config defaults > atlas.toml
    """
    lines: list[str] = []
    for group in dict.fromkeys(option.spec.group for option in OPTIONS.values()):
        lines += ["", f"[{group}]"] if lines else [f"[{group}]"]
        for option in OPTIONS.values():
            if option.spec.group == group:
                example = f" For instance: {option.spec.example}" if option.spec.example else ""
                lines += [f"# {option.spec.help}{example}", f"{option.name} = {_toml(option)}"]
    click.echo("\n".join(lines))
    return exits.OK


def _toml(option: Option) -> str:
    if option.spec.kind is LIST:
        return json.dumps(option.default)
    text = option.show(option.default)
    return text if option.spec.kind in (FLAG, COUNT) else json.dumps(text)
