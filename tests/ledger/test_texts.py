"""Texts judged without a tree: of a whole ledger, of one with gaps, and everything that is wrong with one."""

import pytest

from ledger.checkpoint import origin_of
from ledger.entry import Kind, decode
from ledger.log import Draft
from ledger.texts import Texts
from ledger.tlog import root
from tests.ledger.world import AUTHORITY, HUB, Mesh, drafts, grant_text, key


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh().found()
    mesh.enrol("ada@pi", "bo@laptop")
    mesh.vote("ada", "fact-1", 1)
    mesh.vote("bo", "fact-2", -1)
    mesh.revoke("bo")
    mesh.append(drafts(2))
    return mesh


def judge(mesh: Mesh, *, leave_out: frozenset[int] = frozenset(), authority: bytes | None = None) -> tuple[Texts, list]:  # type: ignore[type-arg]
    found: list[tuple[int, str]] = []
    texts = Texts(authority, set(), lambda index, code, detail: found.append((index, code)))
    texts.origin = origin_of(mesh.ledger)
    for raw, text in zip(mesh.storage.entries, mesh.storage.texts, strict=True):
        entry = decode(raw)
        if entry.index not in leave_out:
            texts.read(entry, text)
    return texts, found


def test_a_good_ledger_has_no_findings(mesh: Mesh) -> None:
    texts, found = judge(mesh, authority=key(AUTHORITY))
    assert not found and (texts.votes, texts.signatures) == (4, 10)
    assert [hub.key for hub in texts.hubs] == [key(HUB)]


def test_votes_may_be_missing_and_statements_may_not(mesh: Mesh) -> None:
    votes = {at for at, raw in enumerate(mesh.storage.entries) if decode(raw).kind == Kind.VOTE}
    texts, found = judge(mesh, leave_out=frozenset(votes))
    assert not found and texts.votes == 0
    _, ada, _ = (at for at, raw in enumerate(mesh.storage.entries) if decode(raw).kind == Kind.ENROLMENT)
    _, found = judge(mesh, leave_out=frozenset([ada]))
    assert [code for _, code in found] == ["agent"]


def test_each_fault_is_named_at_its_entry(mesh: Mesh) -> None:
    first_vote = next(at for at, raw in enumerate(mesh.storage.entries) if decode(raw).kind == Kind.VOTE)
    good = list(mesh.storage.texts)
    for index, text, code in (
        (first_vote, b"another", "text"),
        (0, b"another", "text"),
        (1, None, "text_missing"),
    ):
        mesh.storage.texts = list(good)
        mesh.storage.texts[index] = text
        assert (index, code) in judge(mesh)[1]


def test_grants_follow_one_another(mesh: Mesh) -> None:
    storage = mesh.storage
    first = next(raw for raw in storage.entries if decode(raw).kind == Kind.GRANT)
    for previous, found in ((decode(first).text_hash, []), (bytes(32), ["grant"])):
        size, epoch = len(storage.entries), decode(storage.entries[-1]).epoch + (decode(storage.entries[-1]).kind == 4)
        text = grant_text(mesh.ledger, size, root(size, storage), epoch + 1, previous)
        mesh.append([Draft(Kind.GRANT, text)])
        assert [code for _, code in judge(mesh)[1]] == found


def test_another_authority_has_signed_nothing_here(mesh: Mesh) -> None:
    _, found = judge(mesh, authority=key("somebody else"))
    assert (0, "statement") in found


def test_a_vote_twice_and_a_vote_of_nobody_are_found(mesh: Mesh) -> None:
    first_vote = next(at for at, raw in enumerate(mesh.storage.entries) if decode(raw).kind == Kind.VOTE)
    found: list[tuple[int, str]] = []
    texts = Texts(key(AUTHORITY), set(), lambda index, code, detail: found.append((index, code)))
    entry, text = decode(mesh.storage.entries[first_vote]), mesh.storage.texts[first_vote]
    texts.read(decode(mesh.storage.entries[0]), mesh.storage.texts[0])
    texts.read(entry, text)
    texts.read(entry, text)
    assert found == [(first_vote, "agent"), (first_vote, "duplicate"), (first_vote, "agent")]


def test_without_votes_only_statements_are_judged(mesh: Mesh) -> None:
    found: list[int] = []
    texts = Texts(None, set(), lambda index, code, detail: found.append(index), votes_too=False)
    texts.origin = origin_of(mesh.ledger)
    for raw, text in zip(mesh.storage.entries, mesh.storage.texts, strict=True):
        entry = decode(raw)
        texts.read(entry, b"another" if entry.kind == Kind.VOTE else text)
    assert not found and texts.votes == 4
