"""The API page of a live server in a real browser: it renders, its forms work, and nothing comes from elsewhere."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.testing import serving
from tests.support.browser import Browser, Programs, browsing, programs
from tests.support.debian import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT)]


@pytest.fixture(scope="module")
def chromium() -> Programs:
    return programs()


@pytest.fixture
async def url(chromium: Programs) -> AsyncIterator[str]:
    """The address of a server. It runs on the loop of the test, so the browser has to be driven from a thread."""
    async with serving(http_address="127.0.0.1:0", grace=0) as server:
        assert server.http is not None
        yield f"http://127.0.0.1:{server.http.port}"


@contextmanager
def clean(chromium: Programs, url: str) -> Iterator[Browser]:
    """A browser that may neither complain nor talk to anything but the server."""
    with browsing(chromium) as browser:
        yield browser
        assert browser.console() == []
        requests = browser.requests()
        assert requests
        assert [one for one in requests if not one.startswith(f"{url}/")] == []


def form(operation: str) -> str:
    return f"document.querySelector('#operations-JobService-{operation}')"


def execute(browser: Browser, operation: str) -> tuple[str, str]:
    """Opens the form of an operation and sends it as it is; answers the status and the body that the page shows."""
    browser.when(f"{form(operation)}?.querySelector('.opblock-summary-control')")
    browser.run(f"{form(operation)}.querySelector('.opblock-summary-control').click()")
    browser.when(f"{form(operation)}.querySelector('.execute')")
    browser.run(f"{form(operation)}.querySelector('.execute').click()")
    answer = f"{form(operation)}.querySelector('.live-responses-table tbody tr')"
    status = browser.when(f"{answer}?.querySelector('.response-col_status')?.innerText.trim()")
    return status, browser.run(f"return {answer}.querySelector('.response-col_description code').innerText")


async def test_every_operation_is_on_the_page(chromium: Programs, url: str) -> None:
    def visit() -> None:
        with clean(chromium, url) as browser:
            browser.open(f"{url}/openapi.json")
            assert browser.run("return document.contentType") == "application/json"
            spec = json.loads(browser.run("return document.body.innerText"))
            browser.open(f"{url}/docs")
            wanted = sorted((path, verb) for path, item in spec["paths"].items() for verb in item)
            browser.when(f"document.querySelectorAll('.opblock').length == {len(wanted)}")
            blocks = browser.run("return [...document.querySelectorAll('.opblock-summary')].map(one => one.innerText)")
            shown = sorted((one.split()[1].replace("\u200b", ""), one.split()[0].lower()) for one in blocks)
            assert shown == wanted
            assert ("/v1/jobs", "post") in shown
            assert browser.run("return document.querySelectorAll('.errors-wrapper').length") == 0

    await asyncio.to_thread(visit)


async def test_forms_can_be_sent_as_they_open(chromium: Programs, url: str) -> None:
    def visit() -> None:
        with clean(chromium, url) as browser:
            browser.open(f"{url}/docs")
            status, body = execute(browser, "SubmitJob")
            assert status == "200"
            submitted = json.loads(body)
            assert submitted["type"] == "sleep"
            status, body = execute(browser, "ListJobs")
            assert status == "200"
            assert [one["id"] for one in json.loads(body)["jobs"]] == [submitted["id"]]

    await asyncio.to_thread(visit)
