"""What is taken in at once of the ledger's ops: a function of their set, and of nothing that nobody signed."""

from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest

from crdt.op import Op, OpClass
from ledger import note, statement
from ledger.checkpoint import Checkpoint, origin_of
from ledger.entry import Kind, text_hash
from ledger.note import Algorithm, Note, Signer
from ledger.statement import Constants, Enrolment, Genesis, Grant, Revocation
from node.store import Draft
from node.voting import inbox, records
from node.voting.records import Cosigned
from node.voting.witness import witnessed
from sync.overlap import RESERVED
from tests.node.voting.world import AUTHORITY, MESH, PROJECT, Script, Voter, a_reader, key, sealed, secret
from tests.node.world import NOW_MS, Forger, keys, member

TABLES = {
    "statements": "SELECT * FROM statements ORDER BY hash",
    "project_keys": "SELECT * FROM project_keys ORDER BY project",
    "ledger_inbox": "SELECT * FROM ledger_inbox ORDER BY kind, at, hash",
    "ledger_cosignatures": "SELECT * FROM ledger_cosignatures ORDER BY node",
}


def enrolment(agent: str, mesh: bytes = MESH, node: int = 1) -> bytes:
    voice, node_secret = keys(node)
    return statement.seal(
        Enrolment(mesh, key(agent), agent, voice, False, b"", NOW_MS), AUTHORITY, [secret(agent), node_secret]
    )


def shown(node: Voter) -> dict[str, Any]:
    return {name: node.rows(query) for name, query in TABLES.items()}


async def a_node(number: int = 1) -> Voter:
    node = Voter(number)
    await node.append(member(node))
    return node


async def test_a_statement_is_kept_when_all_who_must_have_signed_it() -> None:
    node = await a_node()
    revocation = statement.seal(Revocation(MESH, key("ann"), None, node.key, NOW_MS), AUTHORITY, [node.secret])
    grant = Grant(bytes(32), 1, "solo", (node.key,), 2, bytes(32))
    texts = [
        (Kind.ENROLMENT, enrolment("ann")),
        (Kind.REVOCATION, revocation),
        (Kind.GENESIS, sealed(Genesis(MESH, AUTHORITY, Constants(), NOW_MS))),
        (Kind.GRANT, sealed(grant)),
    ]
    await node.append(*(records.statement_draft(kind, text) for kind, text in texts))
    rows = node.rows("SELECT hash, kind, text, entry FROM statements")
    kept = {name: (kind, text, entry) for name, kind, text, entry in rows}
    assert kept == {text_hash(text): (kind, text, None) for kind, text in texts}


async def test_a_statement_that_is_not_signed_of_another_mesh_or_another_kind_is_not() -> None:
    node = await a_node()
    signed = enrolment("ann")
    forged = Grant(bytes(32), 1, "solo", (node.key,), 2, bytes(32))
    bad = [
        (Kind.ENROLMENT, signed[:-1] + bytes([signed[-1] ^ 1])),
        (Kind.ENROLMENT, enrolment("ann", mesh=bytes(32))),
        (Kind.REVOCATION, signed),
        (Kind.VOTE, signed),
        (Kind.GRANT, statement.seal(forged, node.key, [node.secret])),
    ]
    await node.append(*(records.statement_draft(kind, text) for kind, text in bad))
    assert not node.rows("SELECT * FROM statements")
    elsewhere = records.statement_draft(Kind.ENROLMENT, signed)
    await node.append(Draft(PROJECT, *[getattr(elsewhere, name) for name in elsewhere.__slots__[1:]]))
    assert not node.rows("SELECT * FROM statements"), "statements are in the reserved project"


async def test_only_the_voice_itself_enrols_an_agent() -> None:
    node, other = await a_node(1), await a_node(2)
    await node.append(records.statement_draft(Kind.ENROLMENT, enrolment("ann", node=2)))
    assert not node.rows("SELECT * FROM statements"), "or one node would be as many voices as it likes"
    ops = await other.append(records.statement_draft(Kind.ENROLMENT, enrolment("ann", node=2)))
    await node.merge([*other.ops()[:1], *ops])
    assert len(node.rows("SELECT * FROM statements")) == 1


async def test_ends_that_nobody_answers_for_share_the_room_of_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_PENDING", 3)
    node = await a_node()
    for number in range(5):
        said = Revocation(MESH, key(f"nobody {number}"), None, key(f"nobody {number}"), NOW_MS)
        text = statement.seal(said, AUTHORITY, [secret(f"nobody {number}")])
        await node.append(records.statement_draft(Kind.REVOCATION, text))
    assert node.rows("SELECT count(*) FROM statements") == [(3,)]


async def test_who_names_another_node_takes_none_of_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_PENDING", 3)
    node = await a_node()
    theirs = await a_node(2)
    for time_ms in range(3):
        said = Revocation(MESH, node.key, None, theirs.key, time_ms)
        await theirs.append(records.statement_draft(Kind.REVOCATION, statement.seal(said, AUTHORITY, [theirs.secret])))
    await node.merge(theirs.ops())
    await node.append(records.statement_draft(Kind.ENROLMENT, enrolment("ann")))
    assert node.rows("SELECT kind, count(*) FROM statements GROUP BY kind ORDER BY kind") == [(2, 1), (3, 3)]


async def test_a_flood_of_one_node_leaves_room_for_others_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_PENDING", 3)
    reader = await a_reader(Script().found())
    other = Voter(2)
    await reader.append(*(records.statement_draft(Kind.ENROLMENT, enrolment(f"a{n}", node=9)) for n in range(5)))
    await reader.merge(
        await other.append(member(other), records.statement_draft(Kind.ENROLMENT, enrolment("b", node=2)))
    )
    await reader.work()
    pending = "SELECT count(*) FROM statements WHERE entry IS NULL"
    assert reader.rows(pending) == [(4,)] and reader.follower.state(reader.database.direct)["inbox"] == 2
    await reader.database.write(lambda connection: connection.execute("UPDATE statements SET entry = 7"))
    await reader.work()
    assert reader.rows("SELECT count(*) FROM statements WHERE kind = ?", Kind.ENROLMENT) == [(6,)]
    assert reader.follower.state(reader.database.direct)["inbox"] == 0


async def test_the_register_decides_a_projects_key() -> None:
    one, two = await a_node(1), await a_node(2)
    await one.append(records.project_key_draft(PROJECT, bytes([1]) * 32))
    two.now_ms += 1_000
    await two.append(records.project_key_draft(PROJECT, bytes([2]) * 32))
    await two.append(Draft(PROJECT, OpClass.WRITE, "ledger/key", "key", records.PROJECT_KEY, b"no key"))
    for to, source in ((one, two), (two, one)):
        await to.merge(sorted(source.ops(), key=lambda op: op.header.kind != "member"))
    for node in (one, two):
        assert node.rows("SELECT * FROM project_keys") == [(PROJECT, bytes([2]) * 32)]


def cosigned(script: Script, node: Voter, size: int, *, by: bytes | None = None, root: bytes = bytes(32)) -> Cosigned:
    text = Checkpoint(origin_of(script.ledger), size, root).text
    signer = Signer(node.store.node_id, by or node.secret, Algorithm.COSIGNATURE)
    return Cosigned(size, root, str(note.sign(Note(text), signer, 7)).splitlines()[-1])


async def test_a_cosignature_is_kept_when_it_is_of_the_node_in_whose_place_it_stands() -> None:
    script = Script().found()
    reader = await a_reader(script)
    node = reader.store.node_id
    good = cosigned(script, reader, 5)
    bad = [
        records.cosignature_draft("someoneelse", good, ()),
        records.cosignature_draft(node, cosigned(script, reader, 5, by=keys(2)[1]), ()),
        records.cosignature_draft(node, Cosigned(6, good.root, good.line), ()),
        records.cosignature_draft(node, Cosigned(5, bytes([1]) * 32, good.line), ()),
        records.cosignature_draft(node, Cosigned(5, good.root, good.line + "\n" + good.line), ()),
        records.cosignature_draft(node, Cosigned(5, good.root, ""), ()),
    ]
    for draft in bad:
        fresh = await a_reader(script)
        await fresh.append(draft)
        assert not fresh.rows("SELECT * FROM ledger_cosignatures"), draft
    await reader.append(records.cosignature_draft(node, good, ()))
    assert reader.rows("SELECT * FROM ledger_cosignatures") == [(node, 5, good.root, good.line)]


async def test_a_cosignature_that_comes_before_the_grant_waits_for_it() -> None:
    script, reader = Script().found(), await a_node(9)
    await reader.append(records.cosignature_draft(reader.store.node_id, cosigned(script, reader, 5), ()))
    await reader.work()
    assert not reader.rows("SELECT * FROM ledger_cosignatures")
    await reader.merge(script.spoken(*script.beginning()))
    await reader.work()
    assert reader.rows("SELECT size FROM ledger_cosignatures") == [(5,)] and not reader.rows(
        "SELECT * FROM ledger_inbox"
    )


async def test_of_many_cosignatures_those_for_the_newest_sizes_stay() -> None:
    script = Script().found()
    reader = await a_reader(script)
    for number in range(20, 20 + inbox.MAX_COSIGNATURES + 4):
        witness = await a_node(number)
        await witness.append(records.cosignature_draft(witness.store.node_id, cosigned(script, witness, number), ()))
        await reader.merge(witness.ops())
    sizes = [size for (size,) in reader.rows("SELECT size FROM ledger_cosignatures ORDER BY size")]
    assert sizes == list(range(24, 24 + inbox.MAX_COSIGNATURES))
    assert witnessed(reader.database.direct, script.notes[3]) == script.notes[3], "none of them is about this one"


def some_drafts(script: Script) -> list[Draft]:
    return [
        *script.beginning(),
        records.statement_draft(Kind.ENROLMENT, enrolment("ann")),
        records.project_key_draft(PROJECT, bytes([1]) * 32),
        records.project_key_draft(PROJECT, bytes([2]) * 32),
        script.checkpoint(5, 3),
        script.entries([3, 4], 5),
        script.entries([3], 5),
    ]


async def test_any_order_twice_and_a_rebuild_give_the_same_rows() -> None:
    script = Script().found().add("a", "b")
    writer = await a_node(1)
    await writer.append(*some_drafts(script))
    ops = writer.ops()
    expected = shown(writer)
    assert all(expected[name] for name in ("statements", "project_keys", "ledger_inbox"))
    for order in list(permutations(range(2, len(ops))))[::7_001]:
        node = Voter(5)
        await node.merge([ops[0], ops[1]])
        for at in order:
            await node.merge([ops[at]])
        assert shown(node) == expected
    await writer.database.write(writer.inbox.clear)
    await writer.database.write(lambda connection: writer.store.rebuild(connection, NOW_MS))
    await writer.database.write(lambda connection: writer.store.rebuild(connection, NOW_MS))
    assert shown(writer) == expected


async def test_what_has_been_judged_is_put_back_as_it_came() -> None:
    script = Script().found().add("a", "b")
    writer = await a_node(1)
    await writer.append(*some_drafts(script))
    before = writer.rows(TABLES["ledger_inbox"])
    waits = "UPDATE ledger_inbox SET size = 9, since = 7"
    for change in ("DELETE FROM ledger_inbox", waits):
        await writer.database.write(lambda connection, change=change: connection.execute(change))
        assert writer.rows(TABLES["ledger_inbox"]) != before
        await writer.database.write(inbox.put_back)
        assert writer.rows(TABLES["ledger_inbox"]) == before


async def test_a_rebuild_leaves_the_ledger_and_what_only_a_hub_knows(tmp_path: Any) -> None:
    hub = Voter(1, folder=tmp_path)
    await hub.found()
    query = "SELECT hash FROM statements ORDER BY hash"
    ledger, known = hub.entries(), hub.rows(query)
    await hub.database.write(lambda connection: connection.execute("DELETE FROM ops WHERE subject LIKE 'ledger/st%'"))
    await hub.database.write(hub.inbox.clear)
    assert hub.entries() == ledger and hub.rows(query) == known and hub.table.newest_checkpoint()


@pytest.mark.parametrize(
    "subject", ["checkpoint/-1", "checkpoint/x", f"checkpoint/{10**20}", "checkpoint/", "entries/٣"]
)
async def test_a_place_that_is_no_number_is_none(subject: str) -> None:
    node = await a_node()
    kind = subject.partition("/")[0]
    await node.append(Draft(RESERVED, OpClass.APPEND, f"ledger/{subject}", kind, kind, sha256().digest()))
    assert not node.rows("SELECT * FROM ledger_inbox")


def test_only_the_reserved_project_has_checkpoints() -> None:
    node = Voter(1)

    def show(connection: Any) -> None:
        node.inbox.show(connection, 1, "ledger/checkpoint/5", [_op(PROJECT), _op(PROJECT)])

    node.database.commit(show)
    assert not node.rows("SELECT * FROM ledger_inbox")


def _op(project: str) -> Op:
    return Forger(3).op(2, project=project, subject="ledger/checkpoint/5", kind=records.CHECKPOINT, body=b"")
