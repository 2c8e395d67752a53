"""The conformance suite bites, as in test_bite.py: faults of documents and of what sessions tell of themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from atlas_grpc.errors import StoreFull
from atlas_grpc.stores import memory
from atlas_grpc.stores.base import MAX_DOCUMENTS
from atlas_grpc.stores.memory import MemoryStore
from atlas_grpc.testing.stores import CHECKS
from tests.conformance.stores.test_memory import SharedFactory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class RenewingDropsTheInfo(MemoryStore):
    async def renew(self, sessions: Sequence[str], ttl: int) -> list[bool]:
        self._infos.update((session, b"") for session in sessions)
        return await super().renew(sessions, ttl)


class TheFirstInfoStays(MemoryStore):
    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        await super().open_session(session, ttl, self._infos.get(session, info))


class OpeningAgainDoesNotExtend(MemoryStore):
    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        until = self._sessions.get(session)
        await super().open_session(session, ttl, info)
        if until is not None:
            self._sessions[session] = until


class ExpiredSessionsAreTold(MemoryStore):
    async def sessions(self) -> list[tuple[str, bytes]]:
        return sorted(self._infos.items())


class ClosedSessionsAreToldWhileTheyHold(MemoryStore):
    async def sessions(self) -> list[tuple[str, bytes]]:
        told = await super().sessions()
        return sorted(told + [(name, b"") for name, held in self._held.items() if held and name not in self._sessions])


class SessionsInTheOrderOfTheirOpening(MemoryStore):
    async def sessions(self) -> list[tuple[str, bytes]]:
        told = dict(await super().sessions())
        return [(session, told[session]) for session in self._sessions if session in told]


class ClosingLeavesTheInfo(MemoryStore):
    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        kept = b"" if session in self._sessions else self._infos.get(session, b"")
        await super().open_session(session, ttl, info or kept)

    async def close_session(self, session: str) -> None:
        info = self._infos.get(session, b"")
        await super().close_session(session)
        self._infos[session] = info


class OnlySomeSessionsAreTold(MemoryStore):
    async def sessions(self) -> list[tuple[str, bytes]]:
        return (await super().sessions())[:100]


class InfosAreNotBounded(MemoryStore):
    async def open_session(self, session: str, ttl: int, info: bytes = b"") -> None:
        await super().open_session(session, ttl)
        self._infos[session] = info


class TheFirstDocumentStays(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        await super().put_documents(kind, {**documents, **self._documents.get(kind, {})})


class APutReplacesTheKind(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        await super().put_documents(kind, documents)
        self._documents[kind] = dict(documents)


class OneKindForAll(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        await super().put_documents(kind and "one", documents)

    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return await super().documents(kind and "one", keys)


class NoKeysAreAllKeys(MemoryStore):
    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return await super().documents(kind, keys or None)


class UnknownKeysAreEmpty(MemoryStore):
    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return {**dict.fromkeys(keys or (), b""), **await super().documents(kind, keys)}


class NamesKnowNoCase(MemoryStore):
    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        return {key.lower(): data for key, data in (await super().documents(kind, keys)).items()}


class DataAreText(MemoryStore):
    async def documents(self, kind: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
        found = await super().documents(kind, keys)
        return {key: data.decode(errors="replace").encode() for key, data in found.items()}


class AnythingIsStored(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        self._documents.setdefault(kind, {}).update(documents)


class PossibleOnesAreStored(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        for key, data in documents.items():
            await super().put_documents(kind, {key: data})


class AFullKindTakesNothing(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        if len(self._documents.get(kind, {})) >= MAX_DOCUMENTS:
            raise memory.full()
        await super().put_documents(kind, documents)


class OneTooMany(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        if len(self._documents.get(kind, {})) + len(documents) > MAX_DOCUMENTS + 1:
            raise memory.full()
        self._documents.setdefault(kind, {}).update(documents)


class NewOnesAreCountedTwice(MemoryStore):
    """Between looking what is new and writing it, others may have added the same."""

    counted = 0

    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        new = documents.keys() - self._documents.get(kind, {}).keys()
        await asyncio.sleep(0)
        self.counted += len(new)
        if self.counted > MAX_DOCUMENTS:
            raise memory.full()
        self._documents.setdefault(kind, {}).update(documents)


class DocumentsAreInTheFeed(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        await super().put_documents(kind, documents)
        for job in self._jobs.values():
            self._append((job.id, job.version))


class PutsAreWrittenPieceByPiece(MemoryStore):
    async def put_documents(self, kind: str, documents: Mapping[str, bytes]) -> None:
        for key, data in documents.items():
            await super().put_documents(kind, {key: data})
            await asyncio.sleep(0)


FAULTS = {
    RenewingDropsTheInfo: ["sessions_tell_of_themselves"],
    TheFirstInfoStays: ["sessions_tell_of_themselves", "two_stores_share_documents_and_sessions"],
    OpeningAgainDoesNotExtend: ["only_living_sessions_are_told"],
    ExpiredSessionsAreTold: ["only_living_sessions_are_told"],
    ClosedSessionsAreToldWhileTheyHold: ["only_living_sessions_are_told"],
    SessionsInTheOrderOfTheirOpening: ["sessions_tell_of_themselves"],
    ClosingLeavesTheInfo: ["sessions_tell_of_themselves"],
    OnlySomeSessionsAreTold: ["many_sessions_are_told"],
    InfosAreNotBounded: ["an_info_is_bounded"],
    TheFirstDocumentStays: ["the_latest_document_wins", "two_stores_share_documents_and_sessions"],
    APutReplacesTheKind: ["the_latest_document_wins"],
    OneKindForAll: ["kinds_are_apart"],
    NoKeysAreAllKeys: ["the_latest_document_wins"],
    UnknownKeysAreEmpty: ["the_latest_document_wins", "kinds_are_apart"],
    NamesKnowNoCase: ["documents_are_bytes_by_any_name"],
    DataAreText: ["documents_are_bytes_by_any_name"],
    AnythingIsStored: ["impossible_documents_are_refused", "a_kind_is_bounded"],
    PossibleOnesAreStored: ["impossible_documents_are_refused", "a_kind_is_bounded"],
    AFullKindTakesNothing: ["a_kind_is_bounded"],
    OneTooMany: ["a_kind_is_bounded", "two_stores_keep_the_bound_of_a_kind"],
    NewOnesAreCountedTwice: ["two_stores_keep_the_bound_of_a_kind"],
    DocumentsAreInTheFeed: ["documents_are_no_jobs"],
    PutsAreWrittenPieceByPiece: ["a_put_is_seen_whole"],
}


@pytest.mark.parametrize(("faulty", "name"), [(faulty, name) for faulty, names in FAULTS.items() for name in names])
async def test_a_fault_is_seen(faulty: type[MemoryStore], name: str) -> None:
    factory = SharedFactory()
    factory.store_type = faulty
    with pytest.raises((AssertionError, StoreFull)):
        await CHECKS[name](factory)
