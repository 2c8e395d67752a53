"""Headless Chromium, driven over WebDriver with plain HTTP: what a page shows, logs and fetches."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.debian import provided

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = (
    "--headless",
    "--no-sandbox",  # it cannot start as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",  # which is small in containers
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_INNER = ("about:", "blob:", "chrome:", "data:")
_WAIT = """
const [condition, done] = [new Function("return (" + arguments[0] + ")"), arguments[1]];
const look = () => { const value = condition(); if (value) { observer.disconnect(); done(value); } };
const observer = new MutationObserver(look);
observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
look();
"""


class Programs(NamedTuple):
    chromium: str
    chromedriver: str


def installed() -> Programs | None:
    """The two programs on PATH."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return Programs(chromium, driver) if chromium and driver else None


def programs() -> Programs:
    """The two programs, installed where that is possible; else the test is skipped, or fails on CI."""
    return provided(installed, "chromium", "chromium-driver")


class WebDriverError(Exception):
    """The browser could not do what it was told."""


class Browser:
    """One tab. JavaScript is given as source text; what it answers must be JSON."""

    def __init__(self, port: int, session: dict[str, Any]) -> None:
        self._port = port
        answer = _call(port, "POST", "/session", {"capabilities": {"alwaysMatch": session}})
        self._path = f"/session/{answer['sessionId']}"
        self._call("POST", "/timeouts", {"script": 30_000, "pageLoad": 30_000})

    def open(self, url: str) -> None:
        """Returns once the page and what it refers to are loaded."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What the body of a function returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def when(self, condition: str) -> Any:
        """The value of an expression, as soon as it is true; looks again whenever the document changes."""
        try:
            return self._call("POST", "/execute/async", {"script": _WAIT, "args": [condition]})
        except WebDriverError as err:
            text = self.run("return document.body ? document.body.innerText.slice(0, 2000) : ''")
            raise AssertionError(f"{condition} did not become true ({err}); the page shows:\n{text}") from None

    def console(self) -> list[dict[str, Any]]:
        """What the console got since the last time: exceptions, refused and failed requests, messages."""
        entries: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": "browser"})
        return entries

    def requests(self) -> list[str]:
        """The addresses that pages asked for over a network since the last time, with redirects and web sockets."""
        entries = self._call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        asked += [one["params"]["url"] for one in events if one["method"] == "Network.webSocketCreated"]
        return [url for url in asked if not url.startswith(_INNER)]

    def close(self) -> None:
        self._call("DELETE", "")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return _call(self._port, method, self._path + path, body)


@contextmanager
def browsing(found: Programs) -> Iterator[Browser]:
    """A browser with an empty profile, for as long as the context lasts."""
    with (
        # A short path: Chromium ends when that of a socket in it is longer than 107 bytes.
        tempfile.TemporaryDirectory(prefix="atlas-", dir="/tmp") as folder,
        # It keeps more than its profile under HOME.
        subprocess.Popen(
            [found.chromedriver, "--port=0"],
            env=os.environ | {"HOME": folder, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as driver,
    ):
        options = {"binary": found.chromium, "args": [*_FLAGS, f"--user-data-dir={folder}/profile"]}
        logging = {"browser": "ALL", "performance": "ALL"}
        session = {"browserName": "chrome", "goog:loggingPrefs": logging, "goog:chromeOptions": options}
        try:
            browser = Browser(_port_of(driver), session)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()


def _port_of(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    said = []
    for line in driver.stdout:
        said.append(line)
        if started := re.search(r"started successfully on port (\d+)", line):
            return int(started[1])
    raise WebDriverError("chromedriver did not start: " + "".join(said))


def _call(port: int, method: str, path: str, body: object = None) -> Any:
    """A command of the W3C WebDriver protocol."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        text = json.dumps(body) if method == "POST" else None
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        value = json.load(answer)["value"]
    finally:
        connection.close()
    if answer.status != 200:
        raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}")
    return value
