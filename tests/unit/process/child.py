"""A sibling that notes what happens to it in a folder, and does what the file `<name>.json` there says: `works` (tells
its parent that it is at work), `code` (ends at once with it), `deaf` (so many signals of SIGTERM do nothing).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from atlas_grpc.process.sibling import VARIABLE, Sibling

FOLDER = Path(sys.argv[1])
SIBLING = Sibling.of(os.environ)
assert SIBLING is not None
assert VARIABLE not in os.environ
PLAN = {"works": True, "code": None, "deaf": 0} | json.loads((FOLDER / f"{SIBLING.name}.json").read_text())


def note(what: str) -> None:
    with (FOLDER / "log").open("a") as log:
        log.write(f"{SIBLING.name} {what} {os.getpid()}\n")


async def live() -> int:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    told = 0

    def heard(number: signal.Signals) -> None:
        nonlocal told
        note(number.name)
        told += 1
        if told > PLAN["deaf"] and not ended.done():
            ended.set_result(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heard, number)
    SIBLING.hold_on(lambda: (note("orphaned"), ended.set_result(0)))
    if PLAN["works"]:
        SIBLING.at_work()
    note("began")
    if PLAN["code"] is not None:
        return int(PLAN["code"])
    return await ended


if __name__ == "__main__":
    sys.exit(asyncio.run(live()))
