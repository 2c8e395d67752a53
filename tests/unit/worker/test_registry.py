from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from atlas_grpc.model import Content, RetryPolicy
from atlas_grpc.worker import JobContext, Registry, handler
from atlas_grpc.worker.decorator import checked_options
from atlas_grpc.worker.problems import DuplicateType, InvalidHandler, LoadFailed, NotAHandler, RegistryError
from tests.unit.worker import handlers as process_handlers


@handler
async def coroutine(seconds: float, *, ctx: JobContext) -> None:
    """Does a thing
    in two lines.

    And more.
    """


@handler(
    name="my.type",
    queue="slow",
    retry={"max_attempts": 7, "initial_backoff": timedelta(seconds=2), "max_backoff": 60, "non_retryable": ["NO_USE"]},
    attempt_timeout=1.5,
    total_timeout=timedelta(minutes=1),
    concurrency=4,
)
def plain() -> None: ...


def registry_of(*functions):
    registry = Registry()
    for fn in functions:
        registry.add(fn)
    return registry


def test_a_marked_function_stays_the_function():
    assert plain() is None
    assert coroutine.__name__ == "coroutine"


def test_types_announce_what_the_decorator_said():
    first, second = registry_of(plain, coroutine).types()
    assert (first.name, first.executor, first.description) == ("coroutine", "task", "Does a thing in two lines.")
    assert first.retry == RetryPolicy()
    assert (first.attempt_timeout, first.total_timeout, first.concurrency) == (None, None, 0)
    assert (second.name, second.executor, second.queue, second.concurrency) == ("my.type", "thread", "slow", 4)
    assert second.retry == RetryPolicy(7, 2_000_000, 2.0, 60_000_000, 0.2, ("NO_USE",))
    assert (second.attempt_timeout, second.total_timeout) == (1_500_000, 60_000_000)


def test_a_process_handler_knows_where_it_is_found():
    added = registry_of(process_handlers.add).get("add")
    assert added.info.executor == "process"
    assert added.origin == ("tests.unit.worker.handlers", None, "add")


def test_violations_of_a_type():
    registry = registry_of(coroutine)
    assert registry.violations("coroutine", Content(b'{"seconds":1}')) == []
    assert [v.field for v in registry.violations("coroutine", Content(b"{}"))] == ["payload.seconds"]
    with pytest.raises(KeyError):
        registry.violations("unknown", Content(b"{}"))


def test_two_handlers_of_one_type_are_refused():
    registry = registry_of(plain)
    registry.add(plain)
    with pytest.raises(DuplicateType, match=r"'my\.type'.*plain.*other"):

        @registry.handler(name="my.type")
        def other() -> None: ...

    assert len(registry) == 1


@pytest.mark.parametrize("what", [print, len, test_a_marked_function_stays_the_function, 3, Registry])
def test_what_is_not_marked_is_no_handler(what):
    with pytest.raises(NotAHandler):
        Registry().add(what)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "1st"},
        {"name": "a" * 101},
        {"queue": "no blanks"},
        {"concurrency": -1},
        {"concurrency": 1.5},
        {"concurrency": True},
        {"attempt_timeout": 0},
        {"attempt_timeout": -1},
        {"attempt_timeout": float("nan")},
        {"attempt_timeout": "5"},
        {"attempt_timeout": 31 * 86_400},
        {"total_timeout": float("inf")},
        {"retry": {"max_attempts": 0}},
        {"retry": {"max_attempts": 2.5}},
        {"retry": {"jitter": 1.5}},
        {"retry": {"multiplier": 0.5}},
        {"retry": {"initial_backoff": -1}},
        {"retry": {"attempts": 3}},
        {"retry": {"non_retryable": ["lower"]}},
        {"retry": {"non_retryable": [5]}},
        {"retry": {5: 3}},
        {"retry": 3},
        {"retry": RetryPolicy(max_attempts=0)},
        {"name": 5},
        {"queue": 5},
        {"nmae": "typo"},
        {"executor": "task"},
        {"executor": "fiber"},
        {"executor": "process"},
        {"memory_limit": "64MiB"},
        {"cpu_limit": 5},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InvalidHandler, match="local"):

        @handler(**options)
        def local() -> None: ...


def top() -> None: ...


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_limit": 0},
        {"memory_limit": 2**20 - 1},
        {"memory_limit": 2**60},
        {"memory_limit": True},
        {"memory_limit": -(2**30)},
        {"memory_limit": "much"},
        {"memory_limit": 1.5},
        {"cpu_limit": 0},
        {"cpu_limit": 0.5},
        {"cpu_limit": -1},
        {"cpu_limit": float("nan")},
        {"cpu_limit": float("inf")},
        {"cpu_limit": "5"},
    ],
)
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(InvalidHandler, match="top"):
        handler(executor="process", **limits)(top)


def test_limits_are_sizes_and_spans():
    def options(**limits):
        return checked_options(top, executor="process", **limits)

    assert (options().memory_limit, options().cpu_limit) == (None, None)
    assert options(memory_limit="512MiB").memory_limit == options(memory_limit=2**29).memory_limit == 2**29
    assert options(cpu_limit=1.5).cpu_limit == 1_500_000
    assert options(cpu_limit=timedelta(minutes=1)).cpu_limit == 60_000_000


def test_kinds_of_functions_that_cannot_be_handlers():
    def generator():
        yield

    async def async_generator():
        yield

    for fn in (generator, async_generator, print, object()):
        with pytest.raises(InvalidHandler):
            handler(fn)
    with pytest.raises(InvalidHandler):
        handler(executor="process")(coroutine)


def write(folder, name, text):
    file = folder / name
    file.write_text(text)
    return str(file)


HEAD = "from atlas_grpc.worker import handler, Registry\n"


def test_a_file_is_loaded_with_its_registries_and_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, "neighbour_of_it.py", "NAME = 'from.neighbour'\n")
    file = write(
        tmp_path,
        "my handlers.py",
        HEAD
        + """
from dataclasses import dataclass
from neighbour_of_it import NAME
registry = Registry()
@dataclass
class Args:
    n: int
@handler(name=NAME)
def one(args: Args) -> None: ...
alias = one
@registry.handler()
def two() -> None: ...
@handler(executor="process")
def three(n: int) -> int: return n
def not_one(): ...
""",
    )
    registry = Registry()
    assert sorted(added.info.name for added in registry.load(file)) == [
        "from.neighbour",
        "from.neighbour",
        "three",
        "two",
    ]
    assert [info.name for info in registry.types()] == ["from.neighbour", "three", "two"]
    assert registry.get("three").origin[1:] == (file, "three")
    registry.load(file)
    assert len(registry) == 3


def test_a_module_is_loaded_by_its_dotted_name():
    registry = Registry()
    registry.load("atlas_grpc.worker.builtin")
    assert [info.name for info in registry.types()] == ["sleep"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = 1\n", "no handlers"),
    ],
)
def test_a_file_that_cannot_be_loaded_names_file_and_cause(tmp_path, monkeypatch, text, cause):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = write(tmp_path, "broken.py", text)
    with pytest.raises(LoadFailed) as failed:
        Registry().load(file)
    assert file in str(failed.value)
    assert cause in str(failed.value)


def test_a_wrong_option_in_a_file_is_told_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = write(tmp_path, "wrong.py", HEAD + "@handler(queue='a b')\ndef mine() -> None: ...\n")
    with pytest.raises(LoadFailed, match=rf"handler mine: queue 'a b' .*\({file}, line {HEAD.count(chr(10)) + 1}\)"):
        Registry().load(file)


def test_a_decorator_of_another_module_hides_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(
        tmp_path,
        "wrappers.py",
        "import functools\ndef told(fn):\n    @functools.wraps(fn)\n    def wrapper(**named):\n"
        "        return ['told', fn(**named)]\n    return wrapper\n",
    )
    text = "from __future__ import annotations\nfrom uuid import UUID\nfrom wrappers import told\n"
    file = write(tmp_path, "wrapped.py", text + HEAD + "@handler\n@told\ndef mine(n: UUID) -> list: return n.version\n")
    (added,) = Registry().load(file)
    assert added.signature.call(Content(b'{"n":"12345678-1234-4678-9234-567812345678"}'), None) == ["told", 4]


def test_what_is_not_there_cannot_be_loaded(tmp_path):
    with pytest.raises(LoadFailed, match="no such file"):
        Registry().load(str(tmp_path / "absent.py"))
    with pytest.raises(LoadFailed, match="absent_module"):
        Registry().load("absent_module.of.mine")


def test_a_duplicate_in_a_file_is_a_registry_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = write(tmp_path, "twice.py", HEAD + "@handler(name='sleep')\ndef mine() -> None: ...\n")
    registry = Registry()
    registry.load("atlas_grpc.worker.builtin")
    with pytest.raises(RegistryError, match="sleep"):
        registry.load(file)


def test_the_package_is_light_to_import():
    program = """
import json, sys
import atlas_grpc.worker
light = sorted(n for n in ("grpc", "google.protobuf", "pydantic", "structlog", "multiprocessing") if n in sys.modules)
from atlas_grpc.worker import JobContext, Registry, Runner, handler
heavy = sorted(n for n in ("grpc", "google.protobuf", "structlog") if n in sys.modules)
print(json.dumps([light, heavy]))
"""
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True)
    assert json.loads(done.stdout) == [[], []]
