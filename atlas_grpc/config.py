"""The configuration of a server: every option is declared once, in `Settings`.

From a declaration follow its flag (`--grpc-address`), its environment variable (`ATLAS_GRPC_ADDRESS`), its key in the
TOML file (`grpc_address`, at the top level or in the table of its group), its help and its checks. A flag wins over
the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .options import (
    ADDRESS,
    COUNT,
    DEFAULT,
    DURATION,
    ENV_PREFIX,
    FLAG,
    HTTP_ADDRESS,
    LIST,
    SIZE,
    TEXT,
    URL,
    Address,
    ConfigError,
    Option,
    Problem,
    Source,
    declare,
    format_duration,
    format_size,
    parse_address,
    parse_duration,
    parse_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_FILE",
    "OPTIONS",
    "Address",
    "ConfigError",
    "Loaded",
    "Option",
    "Problem",
    "Settings",
    "Source",
    "format_duration",
    "format_size",
    "locate",
    "parse_address",
    "parse_duration",
    "parse_size",
]

CONFIG_VARIABLE = "ATLAS_CONFIG"
DEFAULT_FILE = Path("atlas.toml")
NOT_OPTIONS = frozenset({CONFIG_VARIABLE, "ATLAS_SERVER", "ATLAS_NAMESPACE", "ATLAS_SIBLING"})
"""Variables with our prefix of the loader, of clients and of siblings; so are all that begin with `ATLAS_TEST_`."""

KIB, MIB, GIB = 1024, 1024**2, 1024**3
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of `atlas serve`. Times are seconds, sizes are bytes.

    Made directly it holds what it is given; `Settings.load` reads, checks and says where each value came from.
    """

    grpc_address: str = declare(
        "127.0.0.1:50051", ADDRESS, "listen", "Where gRPC is served.", example="unix:/run/atlas.sock"
    )
    http_address: str = declare(
        "127.0.0.1:8080",
        HTTP_ADDRESS,
        "listen",
        "Where REST, the metrics and the pages are served; `off` serves none.",
        example="off",
    )
    insecure: bool = declare(
        False, FLAG, "listen", "Accept addresses that other machines can reach, though nobody is asked who they are."
    )
    http_allowed_hosts: tuple[str, ...] = declare(
        (),
        LIST,
        "listen",
        "Names that HTTP requests may carry as Host besides the loopback ones.",
        example="atlas.example.com",
    )
    reflection: bool = declare(True, FLAG, "listen", "Serve gRPC reflection, for tools such as grpcurl.")
    metrics: bool = declare(True, FLAG, "listen", "Serve Prometheus metrics at /metrics.")

    store: str = declare("memory://", URL, "jobs", "Where jobs are kept.", example="sqlite:///atlas.db")
    retention: float = declare(
        7 * DAY,
        DURATION,
        "jobs",
        "How long a finished job is kept unless its submitter says otherwise.",
        example="12h",
        high=366 * DAY,
    )
    max_pending_jobs: int = declare(
        0,
        COUNT,
        "jobs",
        "Unfinished jobs the store takes; more are refused. 0 means as many as suit the store.",
        unit="jobs",
        low=0,
        high=100_000_000,
    )
    max_finished_jobs: int = declare(
        1_000_000,
        COUNT,
        "jobs",
        "Finished jobs that a store other than PostgreSQL keeps; then the oldest goes.",
        unit="jobs",
        low=0,
        high=100_000_000,
    )
    max_store_bytes: int = declare(
        2 * GIB, SIZE, "jobs", "Memory that the jobs of the memory store may take.", example="512MiB", low=MIB
    )
    max_log_lines: int = declare(
        10_000, COUNT, "jobs", "Log lines kept of one job; then the oldest goes.", unit="lines", low=0, high=10_000_000
    )
    max_log_bytes: int = declare(
        4 * MIB,
        SIZE,
        "jobs",
        "What the log lines kept of one job may take, 100 to 200 bytes for each beside its text; then the oldest goes.",
        example="64MiB",
    )

    handlers: tuple[str, ...] = declare(
        (),
        LIST,
        "work",
        "A module or a .py file with job handlers; may be given several times.",
        example="my_handlers.py",
    )
    worker: bool = declare(True, FLAG, "work", "Run jobs in this server; without, it only stores and hands out.")
    slots: int = declare(512, COUNT, "work", "Jobs that run at a time.", unit="jobs", low=1, high=100_000)
    threads: int = declare(32, COUNT, "work", "Threads for plain functions.", unit="threads", low=1, high=10_000)
    handler_processes: int = declare(
        0, COUNT, "work", "Processes for CPU-bound functions; 0 means one a CPU.", unit="processes", low=0, high=1024
    )
    lease: float = declare(
        30.0, DURATION, "work", "How long a worker that went silent keeps its jobs.", example="1m", low=1, high=DAY
    )
    cancel_grace: float = declare(
        10.0,
        DURATION,
        "work",
        "How long a cancelled handler may take to stop before it is cut.",
        example="30s",
        high=DAY,
    )
    drain_timeout: float = declare(
        30.0, DURATION, "work", "How long a stopping server waits for running jobs.", example="2m", high=DAY
    )
    name: str = declare(
        "", TEXT, "work", "The name of this server and worker; empty means host and process id.", example="worker-1"
    )

    max_payload_bytes: int = declare(
        MIB, SIZE, "limits", "The largest payload of a job.", example="256KiB", low=1, high=GIB
    )
    max_result_bytes: int = declare(
        MIB, SIZE, "limits", "The largest result of a job.", example="256KiB", low=1, high=GIB
    )
    max_message_bytes: int = declare(
        4 * MIB, SIZE, "limits", "The largest gRPC message that is taken.", example="8MiB", low=KIB, high=GIB
    )
    max_watches: int = declare(
        10_000, COUNT, "limits", "Watches that are open at a time.", unit="streams", low=1, high=1_000_000
    )
    max_streams: int = declare(
        1000,
        COUNT,
        "limits",
        "Calls that one connection may have open at a time.",
        unit="streams",
        low=1,
        high=1_000_000,
    )
    max_unary_in_flight: int = declare(
        2000,
        COUNT,
        "limits",
        "Unary calls that are served at a time; more are refused.",
        unit="calls",
        low=1,
        high=1_000_000,
    )
    unary_timeout: float = declare(
        30.0,
        DURATION,
        "limits",
        "The deadline of a unary call whose caller set none; the `wait` of GetJob comes on top.",
        example="10s",
        low=0.1,
        high=3600,
    )

    watch_heartbeat: float = declare(
        15.0, DURATION, "connections", "How often a watch shows that it lives when nothing happens.", low=0.1, high=3600
    )
    keepalive_time: float = declare(
        30.0, DURATION, "connections", "How long a connection is silent before the server pings.", low=1, high=DAY
    )
    keepalive_timeout: float = declare(
        10.0,
        DURATION,
        "connections",
        "How long a ping waits for its answer before the connection is closed.",
        low=0.1,
        high=3600,
    )
    min_ping_interval: float = declare(
        10.0, DURATION, "connections", "How often a client may ping; one that pings more is disconnected.", high=DAY
    )
    max_connection_idle: float = declare(
        300.0, DURATION, "connections", "After how long without a call a connection is closed.", low=1, high=30 * DAY
    )
    max_connection_age: float = declare(
        1800.0, DURATION, "connections", "After how long a client is asked to connect anew.", low=1, high=30 * DAY
    )
    connection_age_grace: float = declare(
        60.0, DURATION, "connections", "How long calls may go on after that.", high=DAY
    )
    handshake_timeout: float = declare(
        10.0, DURATION, "connections", "How long a new connection may take to say the first word.", low=0.1, high=3600
    )

    processes: int = declare(
        1,
        COUNT,
        "process",
        "Server processes that share the ports; more than one needs a store that servers can share.",
        unit="processes",
        low=1,
        high=256,
    )
    reuse_port: bool = declare(
        False, FLAG, "process", "Let other servers of the same store listen on the same ports, each for its share."
    )
    uvloop: bool = declare(True, FLAG, "process", "Use uvloop as the event loop.")
    log_level: str = declare(
        "info",
        TEXT,
        "process",
        "The least serious log line that is written.",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = declare(
        "auto",
        TEXT,
        "process",
        "How logs are written; auto means text on a terminal, else json.",
        choices=("auto", "json", "text"),
    )

    @classmethod
    def load(cls, flags: Mapping[str, object], env: Mapping[str, str], path: Path | None) -> Loaded:
        """Reads the settings.

        `flags` holds values by option name, None for those not given; `path` is the file that was asked for, None means
        `ATLAS_CONFIG`, then ./atlas.toml if it is there. Raises ConfigError with all that is wrong.
        """
        file = locate(env, path)
        given = [_from_flags(flags), _from_env(env), _from_file(file) if file else _Layer({}, [])]
        problems = [problem for layer in given for problem in layer.problems]
        values: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        for option in OPTIONS.values():
            raw, source = next((layer.values[option.name] for layer in given if option.name in layer.values), _UNSET)
            sources[option.name] = source
            if source == DEFAULT:
                continue
            try:
                values[option.name] = option.parse(raw)
            except (ValueError, OverflowError):
                problems.append(_problem(option, source, raw))
        settings = cls(**values)
        if not problems:
            problems = list(_conflicts(settings, sources))
        if problems:
            raise ConfigError(problems)
        return Loaded(settings, sources, tuple(_unknown_variables(env)), file)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each of them came from (by option name), what to warn about, and the file that was read."""

    settings: Settings
    provenance: Mapping[str, Source]
    warnings: tuple[str, ...] = ()
    file: Path | None = None


OPTIONS: Mapping[str, Option] = {
    item.name: Option(item.name, item.default, item.metadata["spec"]) for item in fields(Settings)
}
"""Every option by name, in the order in which they are shown."""


class _Layer(NamedTuple):
    values: dict[str, tuple[object, Source]]
    problems: list[Problem]


_UNSET: tuple[object, Source] = (None, DEFAULT)


def locate(env: Mapping[str, str], path: Path | None) -> Path | None:
    """The file that is read: `path`, else `ATLAS_CONFIG`, else ./atlas.toml, else none."""
    if path is not None:
        return path
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    given = ((OPTIONS[name], value) for name, value in flags.items() if value is not None and value != ())
    return _Layer({option.name: (value, Source("flag", option.flag)) for option, value in given}, [])


def _from_env(env: Mapping[str, str]) -> _Layer:
    values: dict[str, tuple[object, Source]] = {}
    for option in OPTIONS.values():
        text = env.get(option.variable, "")  # empty means unset, as compose files and unit files write it
        if text:
            raw = [part.strip() for part in text.split(",") if part.strip()] if option.spec.kind is LIST else text
            values[option.name] = (raw, Source("environment", option.variable))
    return _Layer(values, [])


def _from_file(path: Path) -> _Layer:
    import tomllib

    source = Source("file", str(path))
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([Problem("config", source, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("config", source, "", "is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem("config", source, "", f"is not TOML: {error}")]) from None
    layer = _Layer({}, [])
    groups = {option.spec.group for option in OPTIONS.values()}
    for table, key, raw in _entries(document, groups):
        where = Source("file", _place(path, text, key))
        known = OPTIONS.get(key)
        if known is None or table not in ("", known.spec.group):
            layer.problems.append(Problem(f"{table}.{key}".strip("."), where, "", _unknown(key, known)))
        elif key in layer.values:
            layer.problems.append(Problem(key, where, "", "is given twice"))
        else:
            layer.values[key] = (raw, where)
    return layer


def _entries(document: Mapping[str, object], groups: set[str]) -> Iterator[tuple[str, str, object]]:
    for key, value in document.items():
        if key in groups and isinstance(value, dict):
            table = cast("dict[str, object]", value)
            yield from ((key, name, item) for name, item in table.items())
        else:
            yield "", key, value


def _place(path: Path, text: str, key: str) -> str:
    """`file:line`; tomllib gives no lines, but a key of ours stands in the file once."""
    pattern = re.compile(rf"""(?:^|[\s.{{\[,])["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern.search(line.partition("#")[0])]
    return f"{path}:{lines[0]}" if lines else str(path)


def _unknown(key: str, known: Option | None) -> str:
    if known:
        return f"belongs at the top level or in [{known.spec.group}]"
    return "there is no such option" + _near_miss(key, OPTIONS)


def _near_miss(word: str, known: Iterable[str]) -> str:
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {found[0]}?" if found else ""


def _unknown_variables(env: Mapping[str, str]) -> Iterator[str]:
    known = {option.variable for option in OPTIONS.values()} | NOT_OPTIONS
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and not name.startswith("ATLAS_TEST_") and name not in known:
            yield f"environment variable {name} is not an option" + _near_miss(name, known)


def _problem(option: Option, source: Source, raw: object) -> Problem:
    items = raw if isinstance(raw, list | tuple) else [raw]
    shown = ",".join(option.show(str(item)) if option.spec.kind is URL else str(item) for item in items)
    return Problem(option.name, source, shown[:200], option.allowed)


def _conflicts(settings: Settings, sources: Mapping[str, Source]) -> Iterator[Problem]:
    """What is wrong only in combination."""

    def problem(name: str, text: str) -> Problem:
        return Problem(name, sources[name], OPTIONS[name].show(getattr(settings, name)), text)

    addresses = {name: getattr(settings, name) for name in ("grpc_address", "http_address")}
    bound = {name: parse_address(text) for name, text in addresses.items() if text != "off"}
    if len(bound) == 2 and bound["grpc_address"].overlaps(bound["http_address"]):
        yield problem("http_address", f"grpc_address = {settings.grpc_address} takes this address already")
    for name, address in bound.items():
        if not address.loopback and not settings.insecure:
            yield problem(
                name,
                "other machines can reach this address, and the server asks nobody who they are; bind a loopback "
                "address (127.0.0.1, [::1], localhost) or accept it with --insecure (insecure = true)",
            )
    for name in ("max_payload_bytes", "max_result_bytes"):
        if getattr(settings, name) > settings.max_message_bytes:
            yield problem(name, f"must not exceed max_message_bytes = {format_size(settings.max_message_bytes)}")
