"""Small named documents."""

from __future__ import annotations

import asyncio

from ...errors import StoreFull
from ...stores.base import MAX_DOCUMENT, MAX_DOCUMENT_NAME, MAX_DOCUMENTS, Filter
from ._kit import Kit, check, equal, refused, true

_UNUSUAL = (
    " ",
    "a:b",
    "{a}",
    "a*[b]?",
    "'a' \"b\" \\",
    "a\nb\tc\x01",
    "naïve Ⅷ 作業 \N{PARTY POPPER}",
    "x" * MAX_DOCUMENT_NAME,
    "\N{PARTY POPPER}" * MAX_DOCUMENT_NAME,
)
_IMPOSSIBLE = ("", "x" * (MAX_DOCUMENT_NAME + 1), "a\x00b", "\x00", "\udc80")


@check()
async def the_latest_document_wins(kit: Kit) -> None:
    """A put replaces what it names and leaves the rest; keys that are unknown are left out of an answer."""
    store = kit.store
    await store.put_documents("kind", {"a": b"1", "b": b"2"})
    equal(await store.documents("kind"), {"a": b"1", "b": b"2"}, "what was put is there")
    await store.put_documents("kind", {"b": b"3", "c": b"4"})
    everything = {"a": b"1", "b": b"3", "c": b"4"}
    equal(await store.documents("kind"), everything, "the latest write wins, the rest stays")
    await store.put_documents("kind", {})
    await store.put_documents("kind", everything)
    equal(await store.documents("kind"), everything, "neither nothing nor the same again changes anything")
    equal(await store.documents("kind", ["c", "unknown", "a", "c"]), {"a": b"1", "c": b"4"}, "those of the keys")
    equal(await store.documents("kind", []), {}, "of no keys none")
    await store.put_documents("kind", {"a": b"4"})
    equal(await store.documents("kind", {"a"}), {"a": b"4"}, "one that is put often is as it was put last")


@check()
async def kinds_are_apart(kit: Kit) -> None:
    """A key names another document in each kind; of an unknown kind there is none."""
    store = kit.store
    await store.put_documents("kind", {"a": b"1", "b": b"2"})
    await store.put_documents("other", {"a": b"3"})
    equal(await store.documents("kind"), {"a": b"1", "b": b"2"}, "all of one kind")
    equal(await store.documents("other"), {"a": b"3"}, "all of the other")
    equal(await store.documents("other", ["a", "b"]), {"a": b"3"}, "some of the other")
    equal(await store.documents("unknown"), {}, "an unknown kind is empty")
    equal(await store.documents("unknown", ["a"]), {}, "whatever is asked for")


@check()
async def documents_are_bytes_by_any_name(kit: Kit) -> None:
    """Names are told apart as they are written; data are not looked into."""
    store = kit.store
    named = {name: name.encode() for name in (*_UNUSUAL, "x", "X", "x ", "é", "e\N{COMBINING ACUTE ACCENT}")}
    for kind in _UNUSUAL:
        await store.put_documents(kind, named)
    for kind in _UNUSUAL:
        equal(await store.documents(kind), named, f"the names of {kind!r} survive")
        equal(await store.documents(kind, list(named)), named, f"and can be asked for in {kind!r}")
    data = {"empty": b"", "any": bytes(range(256)), "NUL": b"\x00" * 9, "largest": b"\xff" * MAX_DOCUMENT}
    await store.put_documents("data", data)
    equal(await store.documents("data") == data, True, "data survive")
    equal(await store.documents("data", ["any", "empty"]), {"empty": b"", "any": data["any"]}, "one by one too")


@check()
async def impossible_documents_are_refused(kit: Kit) -> None:
    """A name that is empty, too long, has a NUL or is no text, or a document that is too large: all of the call is
    refused. Asking for such names finds nothing."""
    store = kit.store
    await store.put_documents("kind", {"a": b"1"})
    for name in _IMPOSSIBLE:
        true(await refused(store.put_documents("kind", {"a": b"2", name: b""}), ValueError), f"the key {name!r}")
        true(await refused(store.put_documents(name, {"a": b"2"}), ValueError), f"the kind {name!r}")
        equal(await store.documents("kind", ["a", name]), {"a": b"1"}, "the others are told")
        equal(await store.documents(name), {}, "there is none of such a kind")
        equal(await store.documents(name, ["a"]), {}, "by no name")
    large = b"x" * (MAX_DOCUMENT + 1)
    true(await refused(store.put_documents("kind", {"a": b"2", "b": large}), ValueError), "a document too large")
    equal(await store.documents("kind"), {"a": b"1"}, "what is refused changes nothing")


@check()
async def a_kind_is_bounded(kit: Kit) -> None:
    """A put that would exceed the bound is refused as a whole; what is there can still be replaced."""
    store = kit.store
    everything = {f"{n}": b"1" for n in range(MAX_DOCUMENTS)}
    true(await refused(store.put_documents("kind", everything | {"more": b""}), StoreFull), "one too many at once")
    equal(await store.documents("kind"), {}, "a refused put leaves nothing")
    await store.put_documents("kind", everything)
    await store.put_documents("kind", everything)
    equal(await store.documents("kind") == everything, True, "as many as are allowed")
    equal(await store.documents("kind", list(everything)) == everything, True, "by their names too")
    true(await refused(store.put_documents("kind", {"7": b"2", "more": b""}), StoreFull), "one more")
    equal(await store.documents("kind") == everything, True, "a refused put replaces nothing")
    await store.put_documents("kind", {"7": b"2", "8": b"1"})
    equal(await store.documents("kind", ["7", "8", "more"]), {"7": b"2", "8": b"1"}, "replacing goes on")
    await store.put_documents("other", {"more": b""})
    equal(await store.documents("other"), {"more": b""}, "another kind has room")


@check()
async def documents_are_no_jobs(kit: Kit) -> None:
    """The feed does not tell of them, nor do counts, listings, timers and hints."""
    store = kit.store
    (job,) = await kit.new(1)
    await kit.hinted(lambda: kit.listener.changes > 0, "the hint of the job")
    start, states = await store.head(), (await store.counts()).states
    written = len(kit.listener.written)
    await store.put_documents("kind", {"a": b"1"})
    equal((await store.counts()).states, states, "the counts are the same")
    equal((await store.find(Filter("default"), None, 10)).jobs, (job,), "the listing has the job alone")
    equal(await store.due(10), ([], None), "no timer is set")
    equal(await store.get(["a"]), [None], "there is no job of that name")
    equal(len(kit.listener.written), written, "nobody is told of a job")
    equal(await kit.feed(start), [], "the feed has nothing of it")


@check()
async def a_put_is_seen_whole(kit: Kit) -> None:
    """Whoever reads sees all documents of a put or none of them, whoever else writes."""
    store = kit.store
    keys = [f"{n}" for n in range(150)]
    await store.put_documents("kind", dict.fromkeys(keys, b"-1"))
    writing = 4

    async def write(number: int) -> None:
        nonlocal writing
        for n in range(10):
            await store.put_documents("kind", dict.fromkeys(keys, b"%d" % (10 * number + n)))
        writing -= 1

    async def read(asked: list[str] | None) -> None:
        while writing:
            found = await store.documents("kind", asked)
            equal(len(found), 150, "all are there")
            equal(len(set(found.values())), 1, "and of one put")
            await asyncio.sleep(0)

    await asyncio.gather(*map(write, range(4)), read(None), read(keys))
