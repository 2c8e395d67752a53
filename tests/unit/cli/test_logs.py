"""`atlas logs`, against a scripted server."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from atlas_grpc import pb
from tests.unit.cli.scripted import ID

if TYPE_CHECKING:
    from tests.unit.cli.scripted import Atlas


def asked(atlas: Atlas, kind: type = pb.ListJobLogsRequest) -> list[object]:
    return atlas.script.of(kind)


def test_lines_are_printed_as_they_are(atlas: Atlas) -> None:
    atlas.script.say("one", "two\n\tand a half", "\x1b[31mred")
    assert atlas("logs", ID) == (0, "one\ntwo\n\tand a half\n\x1b[31mred\n", "")
    assert asked(atlas) == [pb.ListJobLogsRequest(id=ID)]


def test_all_pages_are_read(atlas: Atlas) -> None:
    atlas.script.say(*map(str, range(7)))
    atlas.script.page = 3
    assert atlas("logs", ID, "--tail", "6", "--since-offset", "1").out.split() == list("123456")
    assert asked(atlas) == [
        pb.ListJobLogsRequest(id=ID, start_offset=1, tail_lines=6),
        pb.ListJobLogsRequest(id=ID, start_offset=4),
    ]


def test_what_is_asked_for_arrives(atlas: Atlas) -> None:
    atlas("logs", ID, "--attempt", "2")
    atlas("logs", ID, "-f", "--tail", "0", "--since-offset", "5", "--attempt", "2")
    assert asked(atlas) == [pb.ListJobLogsRequest(id=ID, attempt=2)]
    assert asked(atlas, pb.TailJobLogsRequest) == [
        pb.TailJobLogsRequest(id=ID, start_offset=5, tail_lines=0, attempt=2)
    ]


def test_formats(atlas: Atlas) -> None:
    atlas.script.say("one", "two")
    assert [entry["message"] for entry in json.loads(atlas("logs", ID, "-o", "json").out)] == ["one", "two"]
    lines = [json.loads(line) for line in atlas("logs", ID, "-o", "jsonl").out.splitlines()]
    assert [(line["offset"], line["severity"], line["attempt"]) for line in lines] == [
        ("0", "INFO", 1),
        ("1", "INFO", 1),
    ]
    stamped = atlas("logs", ID, "--timestamps").out.splitlines()
    assert all(line.startswith("2030-") for line in stamped)
    assert [line.split()[-1] for line in stamped] == ["one", "two"]
    assert atlas("logs", ID, "-f", "-o", "json").code == 2


def test_lost_lines_are_said(atlas: Atlas) -> None:
    atlas.script.say("kept")
    atlas.script.lost = 7
    assert atlas("logs", ID) == (0, "kept\n", "(7 log lines are no longer kept)\n")
    assert atlas("logs", ID, "--follow") == (0, "kept\n", "(7 log lines are no longer kept)\n")


def test_following_ends_with_the_log_or_by_ctrl_c(atlas: Atlas) -> None:
    atlas.script.say("one")
    assert atlas("logs", ID, "--follow") == (0, "one\n", "")
    atlas.script.hold = True
    process = atlas.start("logs", ID, "--follow", env={"PYTHONUNBUFFERED": "1"})
    assert process.stdout
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_an_unknown_job(atlas: Atlas) -> None:
    assert atlas("logs", "nope", "--follow").code == 64 + 5
