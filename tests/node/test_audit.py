"""The audit reads everything in its turn, mends what it finds, and does what time brings."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.hlc import DEFAULT_AHEAD_MS, timestamp
from node import audit
from node.audit import CLOCK_STEP_MS, SLICE_MS, SLICES, Auditor, Rounds, our_clock_ahead_ms
from node.repairs import Cause
from node.store import FAR_AHEAD_MS
from sync import merkle
from tests.node.books import check
from tests.node.world import NOW_MS, PROJECT, Forger, Node, a_mesh, a_record, on_disk, sync

DAY_MS = 24 * 3_600_000
YEAR_MS = 365 * DAY_MS


# What it decides


def test_every_slice_has_its_turn_and_then_again() -> None:
    rounds = Rounds(3, 0)
    taken = [rounds.take(number * SLICE_MS, False) for number in range(2 * SLICES)]
    assert taken == [(3 + number) % SLICES for number in range(2 * SLICES)]
    assert SLICES * SLICE_MS == 64 * 3_600_000


def test_a_slice_is_read_when_it_is_due_unless_paused() -> None:
    rounds = Rounds(0, 1_000)
    assert rounds.take(999, False) is None
    assert rounds.take(1_000, True) is None
    assert rounds.take(10 * SLICE_MS, False) == 0
    assert rounds.take(10 * SLICE_MS + 1, False) is None, "what was missed while asleep is not made up for at once"


@pytest.mark.parametrize(
    ("offsets", "ahead"),
    [
        ([], 0),
        ([-YEAR_MS], 0),
        ([-YEAR_MS, -YEAR_MS], YEAR_MS),
        ([-YEAR_MS, 0], 0),
        ([-YEAR_MS, -YEAR_MS, 0], 0),
        ([-YEAR_MS, -YEAR_MS, -YEAR_MS, 0], YEAR_MS),
        ([YEAR_MS, YEAR_MS], 0),
        ([-DEFAULT_AHEAD_MS, -DEFAULT_AHEAD_MS], 0),
    ],
    ids=["alone", "one peer", "two", "they disagree", "a tie", "most", "we are behind", "within the bound"],
)
def test_our_clock_is_ahead_when_most_clocks_say_so(offsets: list[int], ahead: int) -> None:
    assert our_clock_ahead_ms(offsets, DEFAULT_AHEAD_MS) == ahead


@given(st.lists(st.integers(-YEAR_MS, YEAR_MS)), st.integers(-YEAR_MS, YEAR_MS))
def test_one_liar_moves_the_verdict_no_further_than_an_honest_clock_could(honest: list[int], liar: int) -> None:
    ahead = our_clock_ahead_ms([*honest, liar], DEFAULT_AHEAD_MS)
    assert ahead % CLOCK_STEP_MS == 0
    assert ahead <= max([0, *(-offset for offset in honest)])


# What it finds


async def a_store(facts: int = 30) -> tuple[Node, Auditor]:
    (node,) = await a_mesh(1)
    await node.append(*(a_record(f"fact {n}") for n in range(facts)))
    return node, Auditor(node.store, lambda: node.now_ms)


async def test_a_flipped_bit_is_found_when_its_slice_is_read() -> None:
    node, auditor = await a_store()
    await auditor.begin()
    digest, raw = node.rows("SELECT hash, raw FROM ops ORDER BY id LIMIT 1 OFFSET 7")[0]
    node.rows("UPDATE ops SET raw = ? WHERE hash = ?", raw[:-1] + bytes((raw[-1] ^ 1,)), digest)
    root = node.store.root(PROJECT)
    slices = 0
    while node.store.root(PROJECT) == root:
        node.now_ms += SLICE_MS
        await auditor.tick()
        slices += 1
    assert slices == merkle.node_of(digest, audit.SLICE_LEVEL) + 1
    assert node.rows("SELECT count(*) FROM ops WHERE hash = ?", digest) == [(0,)]


async def test_a_store_that_is_well_is_left_alone() -> None:
    node, auditor = await a_store()
    looked: list[bool] = []
    auditor = Auditor(node.store, lambda: node.now_ms, look_again=lambda: looked.append(True))
    before = node.rows("SELECT * FROM leaves"), node.store.root(PROJECT)
    await auditor.begin()
    for _ in range(SLICES):
        node.now_ms += SLICE_MS
        await auditor.tick()
    assert (node.rows("SELECT * FROM leaves"), node.store.root(PROJECT)) == before
    assert not looked
    assert node.rows("SELECT * FROM repairs") == []


async def test_what_is_mended_is_compared_with_peers_at_once() -> None:
    node, _ = await a_store()
    looked: list[Cause | None] = []
    auditor = Auditor(
        node.store,
        lambda: node.now_ms,
        look_again=lambda: looked.append(None),
        repaired=lambda cause, ops: looked.append(cause),
    )
    node.rows("UPDATE leaves SET sum = sum + 1 WHERE leaf = (SELECT min(leaf) FROM leaves)")
    await auditor.begin()
    assert looked == [Cause.DRIFTED_SUM, None]
    check(node)


async def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    await node.append(a_record("one"))
    auditor = Auditor(node.store, lambda: node.now_ms)
    await auditor.begin()
    for _ in range(5):
        node.now_ms += SLICE_MS
        await auditor.tick()
    await node.stop()
    node = on_disk(tmp_path / "n.db")
    auditor = Auditor(node.store, lambda: node.now_ms)
    await auditor.begin()
    assert auditor._rounds.place == 5
    node.database.close()


async def test_a_deep_tree_is_mended_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "OPS_PER_LEAF", 0.1)
    monkeypatch.setattr(merkle, "bits_for", lambda count: 12 if count > 20 else 8)
    node, auditor = await a_store(60)
    assert node.rows("SELECT bits FROM projects WHERE name = ?", PROJECT) == [(12,)]
    node.rows("UPDATE leaves SET sum = sum + 1, ops = ops + 1 WHERE leaf % 7 = 0")
    await auditor.begin()
    check(node)


async def test_a_row_that_somebody_reads_is_looked_at_at_once(tmp_path: Path) -> None:
    """Not in 64 hours: the running audit is woken."""
    node = on_disk(tmp_path / "n.db")
    await node.introduce()
    fact = await node.create("right")
    mended = asyncio.Event()
    auditor = Auditor(node.store, lambda: node.now_ms, look_again=mended.set)
    auditor.start()

    def rot(connection: object) -> None:
        connection.execute("UPDATE ops SET raw = x'00' WHERE subject = ?", (fact["id"],))  # type: ignore[attr-defined]

    await node.database.write(rot)
    with pytest.raises(Exception, match=fact["id"]):
        await node.replica.history(fact["id"])
    async with asyncio.timeout(10):
        await mended.wait()
    await auditor.stop()
    assert node.rows("SELECT count(*) FROM gaps") == [(1,)]
    node.database.close()


# What time brings


async def test_a_held_write_is_shown_when_its_time_has_come() -> None:
    forger = Forger(9)
    node, auditor = await a_store(1)
    later = timestamp(NOW_MS + DEFAULT_AHEAD_MS + 60_000)
    first = forger.op(2, content="first")
    await node.merge([forger.introduction(), first])
    mine = (await node.replica.get(first.subject))["content"]
    from_afar = forger.op(
        3, first, subject=first.subject, field="content", kind="value", body=b"\xa5later", timestamp=later
    )
    own = await node.append(rewritten(first.subject, "mine", first))
    await node.merge([from_afar])
    assert mine == "first"
    assert own[0].timestamp < later
    assert (await node.replica.get(first.subject))["content"] == "mine", "the later one is held"
    node.now_ms += 59_000
    await auditor.tick()
    assert (await node.replica.get(first.subject))["content"] == "mine"
    node.now_ms += 1_000
    await auditor.tick()
    assert (await node.replica.get(first.subject))["content"] == "later"
    assert node.rows("SELECT * FROM held") == []
    check(node)


def rewritten(subject: str, content: str, *seen: object) -> object:
    from tests.node.world import a_value

    clock = tuple((op.author, op.seq) for op in seen)  # type: ignore[attr-defined]
    return a_value(subject, "content", content, clock=clock)


async def test_a_node_whose_clock_is_ahead_shows_what_its_peers_show() -> None:
    """Its writes are held there; held here too, a conflict has the same winner everywhere."""
    a, b = await a_mesh(2)
    fact = await b.create("as b says")
    await sync(a, b)
    b_op = next(op for op in b.ops() if op.project == PROJECT)
    a.now_ms += DAY_MS // 2
    await a.append(rewritten(fact["id"], "as a says", b_op))
    await b.append(rewritten(fact["id"], "as b says later", b_op))
    await sync(a, b)
    contents = [(await node.replica.get(fact["id"]))["content"] for node in (a, b)]
    assert contents == ["as a says", "as b says later"]

    said = [-DAY_MS // 2, -DAY_MS // 2]
    auditor = Auditor(a.store, lambda: a.now_ms, offsets_ms=lambda: said)
    await auditor.tick()
    contents = [(await node.replica.get(fact["id"]))["content"] for node in (a, b)]
    assert contents == ["as b says later"] * 2
    assert a.rows("SELECT count(*) FROM held") == [(1,)]

    said.clear()  # the clock was right after all
    await auditor.tick()
    assert (await a.replica.get(fact["id"]))["content"] == "as a says"
    assert a.rows("SELECT count(*) FROM held") == [(0,)]


async def test_a_clock_that_was_a_year_ahead_and_is_right_again_writes_at_the_right_time() -> None:
    node, _ = await a_store(1)
    node.now_ms += YEAR_MS
    fact = await node.create("from the future")
    node.now_ms -= YEAR_MS
    (future,) = [op for op in node.ops() if op.subject == fact["id"]]
    (op,) = await node.append(a_record("now"))
    assert timestamp(NOW_MS) <= op.timestamp <= timestamp(NOW_MS, 9)
    (edit,) = await node.append(rewritten(fact["id"], "corrected", future))
    assert edit.timestamp < future.timestamp
    assert (await node.replica.get(fact["id"]))["content"] == "corrected", "causally later, whatever the time"
    assert edit.timestamp > op.timestamp
    assert FAR_AHEAD_MS == DAY_MS
