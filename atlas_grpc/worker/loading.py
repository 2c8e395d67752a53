"""Importing modules of handlers, by dotted name or by file, here and again in a child process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .problems import InvalidHandler, LoadFailed, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_HERE = Path(__file__).parent
_FILE_MODULE = "atlas_handlers_"


class Origin(NamedTuple):
    """Where a function is found again by another process."""

    module: str
    file: str | None
    """The file of a module that has no importable name."""
    qualname: str


def load_module(spec: str) -> ModuleType:
    """Imports a dotted module, or a file when the spec ends in `.py` or holds a path separator. Raises `LoadFailed`."""
    try:
        return _load_file(spec) if _is_file(spec) else _load_dotted(spec)
    except (Exception, SystemExit) as exc:
        raise LoadFailed(spec, _explain(exc)) from exc


def source_folders(spec: str) -> list[tuple[Path, bool]]:
    """Where the source of a module stands, with what it imports from beside it: folders, and whether with all below
    them. For a module of a package that is the whole package. Imports nothing; raises `LoadFailed` when there is none.
    """
    if _is_file(spec):
        file = Path(spec).resolve()
        if not file.is_file():
            raise LoadFailed(spec, f"{file}: no such file")
        return [(file.parent, False)]
    root = spec.partition(".")[0]
    found = PathFinder.find_spec(root, [*sys.path, str(Path.cwd())])
    if found is None or (found.origin is None and not found.submodule_search_locations):
        raise LoadFailed(spec, f"there is no module {root}")
    if found.submodule_search_locations:
        return [(Path(folder).resolve(), True) for folder in found.submodule_search_locations]
    return [(Path(found.origin or "").resolve().parent, False)]


def _is_file(spec: str) -> bool:
    return spec.endswith(".py") or os.sep in spec


def origin_of(fn: Callable[..., Any]) -> Origin:
    """Where that function comes from. Raises `InvalidHandler` when another process could not find it."""
    module = sys.modules.get(fn.__module__)
    name, file = fn.__module__, None
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else name
    if name == "__main__" or name.startswith(_FILE_MODULE):
        file = getattr(module, "__file__", None)
        if file is None:
            raise InvalidHandler(fn.__qualname__, "executor 'process' needs a function of a module or a file")
        file = str(Path(file).resolve())
    return Origin(name, file, fn.__qualname__)


def find(origin: Origin) -> Any:
    """The function of that origin, in this process. Raises `LoadFailed`."""
    found: Any = load_module(origin.file or origin.module)
    for name in origin.qualname.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            raise LoadFailed(origin.file or origin.module, f"it has no {origin.qualname}") from exc
    return found


def _load_dotted(name: str) -> ModuleType:
    # A script's folder is on the path already; a console command's working directory is not.
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109 - an entry of sys.path is a string
        sys.path.append(os.getcwd())  # noqa: PTH109
    return importlib.import_module(name)


def _load_file(path: str) -> ModuleType:
    file = Path(path).resolve(strict=True)
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:8]
    name = f"{_FILE_MODULE}{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    if str(file.parent) not in sys.path:  # its neighbours; last, so that they shadow nothing
        sys.path.append(str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _explain(exc: BaseException) -> str:
    if isinstance(exc, FileNotFoundError) and exc.__traceback__ is not None and exc.filename is not None:
        return f"{exc.filename}: no such file"
    text = str(exc) if isinstance(exc, RegistryError) else f"{type(exc).__name__}: {exc}"
    if isinstance(exc, SyntaxError):
        return text
    # Where the author can look: neither in the import system nor in this package, which may have raised it.
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(exc.__traceback__)]
    theirs = [place for place in places if not place[0].startswith("<") and Path(place[0]).parent != _HERE]
    return f"{text} ({theirs[-1][0]}, line {theirs[-1][1]})" if theirs else text
