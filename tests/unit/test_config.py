"""The configuration: values, precedence, provenance, and what is said about mistakes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_grpc.config import (
    OPTIONS,
    ConfigError,
    Settings,
    format_duration,
    format_size,
    locate,
    parse_address,
    parse_duration,
    parse_size,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "atlas.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(caught: pytest.ExceptionInfo[ConfigError], option: str) -> str:
    """The text of the only problem, which is about `option`."""
    (found,) = caught.value.problems
    assert found.option == option
    return str(found)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ./atlas.toml but the one that a test writes."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("7d", 604800.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("30", 30.0),
        (0, 0.0),
    ],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "-1s", -1, "1y", "nan", "inf", True, None, "٣s", [1]])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4MiB", 4 << 20), ("64KB", 64_000), ("64 kb", 64_000), ("1.5GiB", 3 << 29), ("12", 12), (12, 12), ("9B", 9)],
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "4M", "0.3B", "1e3", False, 1.5])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_what_is_shown_is_read_back(number: int) -> None:
    assert parse_size(format_size(number)) == number
    assert parse_duration(format_duration(number / 1000)) == pytest.approx(number / 1000)


@pytest.mark.parametrize("text", ["127.0.0.1:50051", "[::1]:0", "localhost:65535", "unix:/run/atlas.sock"])
def test_loopback_addresses(text: str) -> None:
    assert parse_address(text).loopback


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1"])
def test_other_addresses(text: str) -> None:
    assert not parse_address(text).loopback


@pytest.mark.parametrize(
    "text", ["", ":1", "host", "host:", "host:65536", "host:-1", "::1:5", "unix:", "unix:run", "a b:1", "[x]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def test_every_option_is_declared_once_with_names_and_help() -> None:
    assert list(OPTIONS) == [item.name for item in fields(Settings)]
    groups = {option.spec.group for option in OPTIONS.values()}
    assert not groups & set(OPTIONS), "a table would hide an option"
    for option in OPTIONS.values():
        assert option.spec.help.endswith(".")
        assert option.parse(option.default) == option.default
        assert not option.spec.example or option.parse(
            [option.spec.example] if option.default == () else option.spec.example
        )
    assert OPTIONS["grpc_address"].flag == "--grpc-address"
    assert OPTIONS["grpc_address"].variable == "ATLAS_GRPC_ADDRESS"


def test_defaults_stand_without_anything() -> None:
    loaded = Settings.load({}, {}, None)
    assert loaded.settings == Settings()
    assert {str(source) for source in loaded.provenance.values()} == {"default"}
    assert (loaded.warnings, loaded.file) == ((), None)


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "slots = 1\nthreads = 2\n[limits]\nmax_watches = 3\n")
    env = {"ATLAS_SLOTS": "10", "ATLAS_THREADS": "20", "ATLAS_LEASE": ""}
    loaded = Settings.load({"slots": "100", "worker": None, "handlers": ()}, env, path)
    found = loaded.settings
    assert (found.slots, found.threads, found.max_watches, found.lease) == (100, 20, 3, 30.0)
    shown = {name: str(loaded.provenance[name]) for name in ("slots", "threads", "max_watches", "lease")}
    assert shown == {
        "slots": "flag --slots",
        "threads": "environment ATLAS_THREADS",
        "max_watches": f"file {path}:4",
        "lease": "default",
    }


def test_a_bad_value_that_is_overridden_does_no_harm() -> None:
    assert Settings.load({"slots": "5"}, {"ATLAS_SLOTS": "many"}, None).settings.slots == 5


def test_values_of_each_kind_from_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'worker = false\nhandlers = ["a", "b.py"]\nlease = 45\nretention = "1h30m"\nmax_payload_bytes = "64KB"\n'
        'http_address = "off"\nlog_level = "debug"\nlimits.max_streams = 7\n',
    )
    loaded = Settings.load({}, {}, path)
    found = loaded.settings
    assert (found.worker, found.handlers, found.lease, found.retention) == (False, ("a", "b.py"), 45.0, 5400.0)
    assert (found.max_payload_bytes, found.http_address, found.log_level, found.max_streams) == (
        64_000,
        "off",
        "debug",
        7,
    )
    assert str(loaded.provenance["max_streams"]) == f"file {path}:8"


def test_lists_in_the_environment_have_commas() -> None:
    assert Settings.load({}, {"ATLAS_HANDLERS": "a, b.py"}, None).settings.handlers == ("a", "b.py")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("slots", "0"),
        ("slots", "many"),
        ("slots", "1.5"),
        ("worker", "maybe"),
        ("lease", "0s"),
        ("lease", "2d"),
        ("max_payload_bytes", "1TiB"),
        ("log_level", "loud"),
        ("grpc_address", "here"),
        ("grpc_address", "off"),
        ("http_address", "unix:/run/x"),
        ("store", "memory"),
        ("name", "two\nlines"),
    ],
)
def test_a_bad_value_names_option_source_value_and_what_is_allowed(option: str, text: str) -> None:
    variable = OPTIONS[option].variable
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {variable: text}, None)
    said = problem(caught, option)
    assert f"(environment {variable})" in said
    assert f" = {text}" in said
    assert "must be " in said


@pytest.mark.parametrize(
    "text", ["slots = true", "slots = 1.5", "worker = [1]", "handlers = [3]", 'handlers = "a"', "lease = nan"]
)
def test_a_toml_value_of_another_type_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, write(tmp_path, text))
    assert "atlas.toml:1)" in problem(caught, text.split(maxsplit=1)[0])


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"slots": "x", "lease": "y"}, {}, None)
    assert [found.option for found in caught.value.problems] == ["slots", "lease"]


def test_bounds_are_said_in_the_unit_of_the_option() -> None:
    assert OPTIONS["lease"].allowed.endswith("at least 1s and at most 1d")
    assert OPTIONS["max_payload_bytes"].allowed.endswith("at least 1 and at most 1GiB")
    assert OPTIONS["log_format"].allowed == "must be one of auto, json, text"


def test_unknown_keys_are_refused_with_a_near_miss(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, write(tmp_path, "# slot = 2\n\nslot = 3\n"))
    assert problem(caught, "slot").endswith("atlas.toml:3): there is no such option; did you mean slots?")


@pytest.mark.parametrize("text", ["[jobs]\nslots = 3", "[other]\nslots = 3"])
def test_an_option_in_another_table_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        Settings.load({}, {}, write(tmp_path, text))


def test_an_option_in_two_places_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, write(tmp_path, "slots = 3\n[work]\nslots = 4\n"))
    assert problem(caught, "slots").endswith("is given twice")


def test_unknown_variables_are_warned_about() -> None:
    env = {"ATLAS_SLOT": "3", "ATLAS_SERVER": "x", "ATLAS_NAMESPACE": "x", "ATLAS_TEST_URL": "x", "ATLASX": "x"}
    loaded = Settings.load({}, env, None)
    assert loaded.warnings == ("environment variable ATLAS_SLOT is not an option; did you mean ATLAS_SLOTS?",)


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    assert locate({}, None) is None
    write(Path(), "slots = 1\n")
    assert locate({}, None) == Path("atlas.toml")
    assert locate({"ATLAS_CONFIG": "x.toml"}, None) == Path("x.toml")
    assert locate({"ATLAS_CONFIG": "x.toml"}, tmp_path) == tmp_path
    assert str(Settings.load({}, {}, None).provenance["slots"]) == "file atlas.toml:1"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"slots = ", b"slots = 1\nslots = 2"])
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, path)
    assert str(path) in problem(caught, "config")


def test_other_machines_are_let_in_only_on_request() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"grpc_address": "0.0.0.0:1"}, {}, None)
    assert "--insecure" in problem(caught, "grpc_address")
    assert Settings.load({"grpc_address": "0.0.0.0:1", "insecure": True}, {}, None).settings.insecure


@pytest.mark.parametrize("http", ["127.0.0.1:50051", "0.0.0.0:50051"])
def test_both_ports_must_differ(http: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"http_address": http, "insecure": True}, {}, None)
    assert "grpc_address = 127.0.0.1:50051" in problem(caught, "http_address")


def test_two_ports_chosen_by_the_system_do_not_clash() -> None:
    flags = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    assert Settings.load(flags, {}, None).settings.http_address == "127.0.0.1:0"


def test_a_payload_must_fit_into_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"max_payload_bytes": "8MiB"}, {}, None)
    assert "max_message_bytes = 4MiB" in problem(caught, "max_payload_bytes")


def test_the_password_of_a_store_is_never_shown() -> None:
    url = "postgresql://user:secret@host/jobs"
    assert OPTIONS["store"].show(url) == "postgresql://user:***@host/jobs"
    with pytest.raises(ConfigError) as caught:
        Settings.load({"store": url + "\n"}, {}, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:se/cret@host/jobs",
        "postgresql://user:p@secret@host/jobs",
        "redis://:secret@host",
        "postgresql://host/jobs?user=me&password=secret&x=1",
        "postgresql:user:secret@host",
        "{'url': 'postgresql://user:secret@host'}",
    ],
)
def test_a_password_is_hidden_wherever_people_write_it(url: str) -> None:
    shown = OPTIONS["store"].show(url)
    assert "host" in shown
    assert "***" in shown
    assert "cret" not in shown


def test_a_store_without_password_is_shown_as_it_is() -> None:
    for url in ("memory://", "postgresql://user@host:5432/jobs?sslmode=require", "sqlite:///a/b@c.db"):
        assert OPTIONS["store"].show(url) == url


def test_a_store_that_is_no_text_shows_no_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, write(tmp_path, 'store = { url = "postgresql://user:secret@host" }'))
    assert "secret" not in problem(caught, "store")


@pytest.mark.parametrize("name", ["a\nb", "a\x9b31m", "a\x7f", "a\udcff"])
def test_a_name_has_no_control_characters(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"name": name}, {}, None)
    assert "a line of text" in problem(caught, "name")


def test_the_line_of_an_unknown_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({}, {}, write(tmp_path, "slots = 1\n[nonsense]\nx = 1\n"))
    assert "atlas.toml:2" in problem(caught, "nonsense")
