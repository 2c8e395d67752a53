"""The program as a whole: help, start-up, pipes, completion, configuration."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from atlas_grpc import __version__
from atlas_grpc.cli.app import cli, execute
from atlas_grpc.config import Settings
from tests.unit.cli.scripted import ID, make_job, read_all

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from tests.unit.cli.scripted import Atlas


def run(*args: str, env: dict[str, str | None] | None = None) -> tuple[int, str, str]:
    with CliRunner().isolation(env=env) as streams:
        code = execute(args)
        sys.stdout.flush()
    out, err = (stream.getvalue().decode() for stream in streams[:2])
    return code, out, err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ./atlas.toml but the one that a test writes."""
    monkeypatch.chdir(tmp_path)


def commands(command: click.Command, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    for name, sub in getattr(command, "commands", {}).items():
        found += commands(sub, *path, name)
    return found


def test_the_version() -> None:
    assert run("--version") == (0, f"atlas, version {__version__}\n", "")


@pytest.mark.parametrize("path", [path for path, _ in commands(cli)], ids=" ".join)
def test_every_verb_has_help_with_an_example(path: tuple[str, ...]) -> None:
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert "Example" in out
    assert f"atlas {' '.join(path)}".strip() in out.partition("Example")[2]


@pytest.mark.parametrize("path", [path for path, _ in commands(cli)], ids=" ".join)
def test_every_verb_is_told_in_one_line(path: tuple[str, ...]) -> None:
    _, out, _ = run(*path[:-1], "--help")
    assert "..." not in out.partition("Commands:")[2]


def test_help_loads_neither_grpc_nor_rich_nor_the_server() -> None:
    program = (
        "import sys; from atlas_grpc.cli.app import execute; execute(['--help']); "
        "heavy = {'grpc', 'google', 'rich', 'asyncio', 'pydantic', 'atlas_grpc.server', 'atlas_grpc.client'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=with_root())
    assert ended.stdout.splitlines()[-1] == "[]"


def test_client_verbs_do_not_load_the_server(atlas: Atlas) -> None:
    program = (
        "import sys; from atlas_grpc.cli.app import execute; code = execute(['types']); "
        "print(code, any(name.startswith(('atlas_grpc.server', 'atlas_grpc.engine')) for name in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=atlas.environ()
    )
    assert ended.stdout.splitlines()[-1] == "0 False"


def with_root() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_reader_that_has_enough_is_no_error(atlas: Atlas) -> None:
    atlas.script.jobs = [make_job(number, requestId="x" * 100) for number in range(1, 1001)]
    process = atlas.start("list", "--limit", "0", "-o", "jsonl")
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["id"] == ID
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 141


def test_ctrl_c_in_any_verb_ends_quietly(atlas: Atlas) -> None:
    atlas.script.stalled = threading.Event()
    process = atlas.start("submit", "sleep")
    assert atlas.script.stalled.wait(20)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "atlas: interrupted\n")
    assert process.returncode == 130


def test_a_full_disk_is_said(atlas: Atlas) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = atlas.start("list", stdout=full)
    assert process.stderr
    assert process.stderr.read() == "atlas: No space left on device\n"
    assert process.wait(20) == 5


@pytest.mark.parametrize(
    "args", [("get", "\udcff"), ("list", "--type", "\udcff"), ("list", "--namespace", "ü"), ("list", "--server", "")]
)
def test_arguments_that_cannot_be_sent(atlas: Atlas, args: tuple[str, ...]) -> None:
    code, out, err = atlas(*args)
    assert (code, out) == (2, "")
    assert "must" in err or "is not Unicode text" in err


def complete(atlas: Atlas, words: str, **env: str) -> list[str]:
    asked = {"_ATLAS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), **env}
    with CliRunner().isolation(env={"ATLAS_SERVER": atlas.address, **asked}) as streams, pytest.raises(SystemExit):
        execute([])
    out, err = (stream.getvalue().decode() for stream in streams[:2])
    assert err == ""
    return [line.partition(",")[2] for line in out.splitlines() if line]


def test_types_and_jobs_are_completed_from_the_server(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_grpc.cli.completion.PATIENCE", 20.0)  # a busy machine is not what is tested
    assert complete(atlas, "atlas run s") == ["sleep", "squash"]
    assert complete(atlas, "atlas submit sq") == ["squash"]
    assert complete(atlas, "atlas get 0197") == [ID]
    assert complete(atlas, "atlas can") == ["cancel"]


def test_completion_is_silent_without_a_server(atlas: Atlas) -> None:
    atlas.stop()
    assert complete(atlas, "atlas run s") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script(shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_ATLAS_COMPLETE" in out


def test_a_table_on_a_terminal_cuts_only_its_last_column(atlas: Atlas) -> None:
    error = {"code": 2, "message": "what went wrong here takes many words to say"}
    atlas.script.jobs = [make_job(type="a-type-with-a-long-name", state="FAILED", error=error)]
    ours, theirs = pty.openpty()
    process = atlas.start("list", stdout=theirs, env={"COLUMNS": "80"})
    os.close(theirs)
    head, row = read_all(ours).splitlines()
    assert process.wait(20) == 0
    assert "\x1b[31mFAILED" in row
    assert f"{ID}  a-type-with-a-long-name  default" in row
    assert row.rstrip().endswith("code 2: what went wrong…")
    assert "NOTE" in head


def test_config_show_says_where_each_value_comes_from(tmp_path: Path) -> None:
    (tmp_path / "atlas.toml").write_text("[work]\nthreads = 2\n", encoding="utf-8")
    code, out, err = run("config", "show", "--lease", "1m", env={"ATLAS_SLOTS": "8", "ATLAS_SLOT": "1"})
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert code == 0
    assert rows["lease"] == ["1m", "flag --lease"]
    assert rows["slots"] == ["8", "environment ATLAS_SLOTS"]
    assert rows["threads"] == ["2", "file atlas.toml:2"]
    assert rows["retention"] == ["7d", "default"]
    assert err == "atlas: warning: environment variable ATLAS_SLOT is not an option; did you mean ATLAS_SLOTS?\n"


def test_config_show_as_json_hides_passwords() -> None:
    _, out, _ = run(
        "config", "show", "-o", "json", "--store", "redis://me:secret@host/0", "--handlers", "a", "--handlers", "b"
    )
    found = json.loads(out)
    assert found["store"] == {"value": "redis://me:***@host/0", "source": "flag --store"}
    assert found["handlers"]["value"] == "a,b"
    assert "secret" not in out


def test_flags_can_be_switched_off() -> None:
    found = json.loads(run("config", "show", "-o", "json", "--no-worker", "--insecure")[1])
    assert (found["worker"]["value"], found["insecure"]["value"]) == ("false", "true")


def test_config_defaults_is_a_file_that_changes_nothing(tmp_path: Path) -> None:
    code, out, _ = run("config", "defaults")
    (tmp_path / "atlas.toml").write_text(out, encoding="utf-8")
    loaded = Settings.load({}, {}, None)
    assert code == 0
    assert loaded.settings == Settings()
    assert all(str(source).startswith("file atlas.toml:") for source in loaded.provenance.values())


def test_config_path(tmp_path: Path) -> None:
    assert run("config", "path")[0] == 1
    (tmp_path / "atlas.toml").touch()
    assert run("config", "path") == (0, f"{tmp_path / 'atlas.toml'}\n", "")
    assert run("config", "path", env={"ATLAS_CONFIG": "other.toml"})[0] == 1


@pytest.mark.parametrize("verb", [("serve",), ("config", "show")])
def test_a_configuration_that_cannot_be_used_is_wrong_usage(verb: tuple[str, ...]) -> None:
    code, out, err = run(*verb, "--slots", "many", "--grpc-address", "0.0.0.0:1")
    assert (code, out) == (2, "")
    assert err.startswith("atlas: slots = many (flag --slots): must be a whole number")


def test_serve_lists_every_option_in_its_help() -> None:
    _, out, _ = run("serve", "--help")
    for name in ("--grpc-address", "--no-worker", "--max-store-bytes", "--log-format", "--config"):
        assert name in out
