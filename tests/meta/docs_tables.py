"""Writes the tables in docs/*.md that come from the code (`make gen`), or checks them (`make check-gen`).

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`.
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_grpc import errors, options
from atlas_grpc.config import OPTIONS
from atlas_grpc.gateway.app import SERVICES
from atlas_grpc.gateway.rest import rules_of
from atlas_grpc.stores.vitals import VITALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atlas_grpc.options import Option

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(?<=<!-- generated: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
GROUPS = {
    "listen": "Where it listens",
    "jobs": "Jobs and the store",
    "work": "Handlers and the worker",
    "limits": "Limits",
    "connections": "Connections",
    "process": "The process",
}
WORDS = {
    options.FLAG: "`true`, `false`",
    options.COUNT: "",
    options.DURATION: "",
    options.SIZE: "",
    options.TEXT: "text",
    options.URL: "URL",
    options.LIST: "list",
    options.ADDRESS: "address",
    options.HTTP_ADDRESS: "address or `off`",
}
"""How the page calls each kind of value; numbers, times and sizes are known by their default and bounds."""


def error_table() -> Iterator[str]:
    """Every reason that a call can fail with."""
    yield "| reason | exception | gRPC code | HTTP | meaning |"
    yield "|---|---|---|---|---|"
    for cls in sorted(errors.BY_REASON.values(), key=lambda cls: (cls.code, len(cls.__mro__), cls.reason)):
        if cls is not errors.AtlasError:
            doc = " ".join((cls.__doc__ or "").split())
            status = errors.HTTP_STATUS[cls.code]
            yield f"| `{cls.reason}` | `{cls.__name__}` | {cls.code.name} ({cls.code}) | {status} | {doc} |"


def option_tables() -> Iterator[str]:
    """Every option of the server, by group."""
    for group, members in groupby(OPTIONS.values(), key=lambda option: option.spec.group):
        yield f"### {GROUPS[group]} `[{group}]`"
        yield ""
        yield "| option | default | meaning | allowed |"
        yield "|---|---|---|---|"
        for option in members:
            default = f"`{option.show(option.default)}`" if option.show(option.default) else ""
            yield f"| `{option.name}` | {default} | {option.spec.help} | {allowed(option)} |"
        yield ""


def allowed(option: Option) -> str:
    """What a value may be, short; the page says how times, sizes and addresses are written."""
    spec = option.spec
    if spec.choices:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    low, high = (None if bound is None else spec.kind.show(bound) for bound in (spec.low, spec.high))
    span = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else ""
    return f"{WORDS[spec.kind]} {span}".strip()


def route_table() -> Iterator[str]:
    """Every route of the REST mirror, as the contract declares it, by the file of its service."""
    for service in SERVICES:
        yield f"`{service.name}`, in `proto/{service.file.name}`:"
        yield ""
        yield "| method and path | RPC | body | answer |"
        yield "|---|---|---|---|"
        for rule in (rule for method in service.methods for rule in rules_of(method)):
            method = rule.method
            body = {"*": f"`{method.input_type.name}`", "": ""}.get(rule.body, f"`{rule.body}` of it")
            answer = f"`{rule.response_body}`" if rule.response_body else f"`{method.output_type.name}`"
            stream = ", streamed" if method.server_streaming else ""
            yield f"| `{rule.verb} {rule.path}` | {method.name} | {body} | {answer}{stream} |"
        yield ""


def store_metric_table() -> Iterator[str]:
    """Every metric that a store tells of itself."""
    yield "| name | type | labels | meaning |"
    yield "|---|---|---|---|"
    for name, (kind, text, labels, shared) in VITALS.items():
        full = f"{name}_total" if kind == "counter" else name
        of_all = " *Of the database.*" if shared else ""
        yield f"| `{full}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text}{of_all} |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "errors": error_table,
    "options": option_tables,
    "routes": route_table,
    "store_metrics": store_metric_table,
}


def rendered(text: str) -> str:
    """The page with its tables made anew. Raises KeyError for a table that does not exist."""
    return BLOCK.sub(lambda block: block[1] + block[2] + "\n".join(TABLES[block[1]]()).strip() + "\n", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are up to date")
    check = parser.parse_args().check
    stale = [page for page in sorted(DOCS.glob("*.md")) if rendered(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        if check:
            print(f"docs/{page.name} is out of date: make gen")
        else:
            page.write_text(rendered(page.read_text("utf-8")), "utf-8")
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
