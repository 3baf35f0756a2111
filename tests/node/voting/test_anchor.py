"""Time stamps from a real authority of our own, `openssl ts`: asked for once, kept, exported, and checked."""

import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ledger.checkpoint import Checkpoint
from node.breaker import Breaker, State
from node.database import Database
from node.errors import Problem
from node.migrations import migrate
from node.voting import anchor, exports, folders, reads
from node.voting.anchor import Anchor, BadStamp, stamped
from node.voting.exports import packed
from tests.node.voting.ledger_on_disk import NOW_MS, LedgerOnDisk
from tests.node.voting.time_stamping import Authority, serving

pytest.importorskip("rfc3161_client", reason="needs the extra `anchor`")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path / "home")
    made.vote(2)
    yield made
    made.close()


@pytest.fixture
async def database(ledger: LedgerOnDisk) -> AsyncIterator[Database]:
    opened = Database(ledger.path)
    opened.start(lambda connection: migrate(connection, NOW_MS))
    yield opened
    opened.close()


def an_anchor(url: str, database: Database) -> Anchor:
    return Anchor(url, database, Breaker("tsa"), lambda: NOW_MS)


async def refused(call: Any, code: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.code == code and caught.value.action
    return caught.value


async def test_a_checkpoint_is_stamped_once_and_the_stamp_goes_with_exports(
    ledger: LedgerOnDisk, database: Database, authority: Authority, tmp_path: Path
) -> None:
    before = authority.asked
    async with serving(authority) as url:
        first = await an_anchor(url, database).stamp()
        again = await an_anchor(url, database).stamp()
    assert first == again and first["size"] == 5 and authority.asked == before + 1
    assert reads.checkpoint(ledger.connection, ledger.place)["anchors"] == [
        {"size": 5, "asked_at": "2027-01-15T08:00:00.000Z"}
    ]
    ledger.vote(1)  # the stamp is of an earlier checkpoint now
    folder = tmp_path / "export"
    folders.write(folder, packed(exports.files(ledger.connection, ledger.place), 0))
    found = folders.check_folder(folder, None, None, authority.certificate)
    assert found["ok"] and found["anchors"] == [{"size": 5, "stamped_at": first["stamped_at"]}]
    unchecked = folders.check_folder(folder, None, None, None)
    assert unchecked["ok"] and unchecked["anchors"] == [{"size": 5, "stamped_at": None}]
    (tmp_path / "text").write_text("".join((folder / "history.d/5").read_text().splitlines(keepends=True)[:3]))
    assert authority.verify(folder / "anchors/5.tsr", tmp_path / "text")


async def test_a_stamp_of_something_else_or_by_somebody_else_is_found(
    ledger: LedgerOnDisk, database: Database, authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority) as url:
        await an_anchor(url, database).stamp()
    (token,) = ledger.connection.execute("SELECT token FROM ledger_anchors").fetchone()
    seen, _ = reads.newest(ledger.connection)
    assert stamped(token, seen, authority.certificate)
    other = tmp_path / "other"
    other.mkdir()
    for about, certificate in (
        (Checkpoint(seen.origin, seen.size, bytes(32)), authority.certificate),
        (seen, Authority(other).certificate),
    ):
        with pytest.raises(BadStamp):
            stamped(token, about, certificate)
    for at in range(60, len(token), len(token) // 9):
        with pytest.raises(BadStamp):
            stamped(token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :], seen, authority.certificate)
    with pytest.raises(Problem) as caught:
        stamped(token, seen, b"no certificate")
    assert caught.value.code == "bad_certificate"
    folder = tmp_path / "export"
    folders.write(folder, packed(exports.files(ledger.connection, ledger.place), 0))
    found = folders.check_folder(folder, None, None, Authority(_made(tmp_path / "third")).certificate)
    assert [one["code"] for one in found["findings"]] == ["anchor"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_an_answer_to_another_question_is_refused(
    ledger: LedgerOnDisk, database: Database, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bytes] = []

    def earlier(answer: bytes) -> bytes:
        answers.append(answer)
        return answers[0]

    monkeypatch.setattr(authority, "spoil", earlier)
    async with serving(authority) as url:
        await an_anchor(url, database).stamp()
        ledger.vote(1)
        problem = await refused(an_anchor(url, database).stamp(), "tsa_refused")
        assert "another question" in problem.detail
        for rubbish in (b"", b"\x30\x03", answers[0][:-1]):
            monkeypatch.setattr(authority, "spoil", lambda answer, said=rubbish: said)
            await refused(an_anchor(url, database).stamp(), "tsa_refused")
        monkeypatch.setattr(authority, "spoil", lambda answer: bytes(anchor.MAX_TOKEN_BYTES + 1))
        await refused(an_anchor(url, database).stamp(), "tsa_unreachable")
    assert len(ledger.connection.execute("SELECT * FROM ledger_anchors").fetchall()) == 1


async def test_nobody_there_is_told_and_given_a_rest(
    database: Database, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = an_anchor("http://127.0.0.1:9/tsa", database)
    for _ in range(6):
        problem = await refused(asks.stamp(), "tsa_unreachable")
        assert problem.status == 503
    assert asks.breaker.state is State.OPEN
    app = web.Application()
    async with serving(authority) as url:
        await refused(an_anchor(url + "/nothing", database).stamp(), "tsa_unreachable")
    await app.cleanup()


async def test_without_an_address_or_the_library_it_is_said_what_is_missing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refused(an_anchor("", database).stamp(), "anchor_unset")
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    problem = await refused(an_anchor("http://127.0.0.1:9/", database).stamp(), "extra_missing")
    assert "cortex-node[anchor]" in problem.action
