"""The scripts: each file of `lua` with the prelude in front of it, known to the server by its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "lua"


class Script(NamedTuple):
    """A script and its digest."""

    source: bytes
    digest: bytes


def _load() -> dict[str, Script]:
    prelude = (_FOLDER / "prelude.lua").read_text("utf-8")
    found: dict[str, Script] = {}
    for path in sorted(_FOLDER.glob("*.lua")):
        if path.stem == "prelude":
            continue
        body = path.read_text("utf-8")
        flags, rest = body.split("\n", 1) if body.startswith("#!") else ("", body)
        source = f"{flags}\n{prelude}\n{rest}".lstrip().encode()
        found[path.stem] = Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
    return found


SCRIPTS = _load()
"""Every script by the name of its file."""
