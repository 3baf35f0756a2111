"""Whatever a few nodes write, and whatever a member forges, in any order and any number of times: the same tables.

Histories are random and hold what no honest node writes: kinds of tomorrow, bad bodies, forks, clocks far ahead, clocks
that claim what is not here. The oracle is tests/node/books.py.
"""

import asyncio
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt import fact
from crdt.fact import ELEMENT, FACT, VALUE
from crdt.hlc import DEFAULT_AHEAD_MS, timestamp
from crdt.op import Op, OpClass
from node.errors import Problem
from node.requests import FactChanges, LinkChange, TagChange
from sync.overlap import RESERVED
from tests.node.books import check, derived, tables
from tests.node.world import NOW_MS, PROJECT, Forger, Node, a_mesh, a_value, pull, sync


class Steps:
    """Random histories of a few nodes: what they write, what they forge, what of it reaches whom."""

    def __init__(self, choose: random.Random, nodes: list[Node]) -> None:
        self.choose = choose
        self.nodes = nodes
        self.forger = Forger(99)
        self.forged: list[Op] = [self.forger.introduction()]
        self.seq = 1

    async def play(self, steps: int) -> None:
        actions = (
            self.create,
            self.edit,
            self.edit,
            self.tag,
            self.link,
            self.retract,
            self.body,
            self.forge,
            self.send,
        )
        for _ in range(steps):
            node = self.choose.choice(self.nodes)
            node.now_ms += self.choose.choice((0, 0, 1, 60_000))
            try:
                await self.choose.choice(actions)(node)
            except Problem as problem:
                assert problem.status in (404, 410, 422), problem.detail

    def a_fact(self, node: Node) -> str:
        names = [name for (name,) in node.rows("SELECT name FROM facts ORDER BY name")]
        return self.choose.choice(names) if names else "none"

    async def create(self, node: Node) -> None:
        more = self.choose.choice(
            ({}, {"tags": ["red", "blue"]}, {"body": "a body"}, {"source": "log", "project": "yard"})
        )
        await node.create(self.choose.choice(("one", "two words", "three words more")), **more)

    async def edit(self, node: Node) -> None:
        changes = self.choose.choice(
            (
                FactChanges(content=self.choose.choice(("a", "b", "c"))),
                FactChanges(source=None, meta={"n": self.choose.randrange(3)}),
                FactChanges(tags=["green"]),
                FactChanges(valid_from="2026-01-01", restore=True),
            )
        )
        await node.replica.update(self.a_fact(node), changes)

    async def tag(self, node: Node) -> None:
        names = self.choose.sample(("red", "blue", "green"), 2)
        await node.replica.tag(self.a_fact(node), TagChange(add=names[:1], remove=names[1:]))

    async def link(self, node: Node) -> None:
        change = LinkChange(relation="causes", to=self.a_fact(node), remove=self.choose.random() < 0.3)
        await node.replica.link(self.a_fact(node), change)

    async def retract(self, node: Node) -> None:
        await node.replica.retract(self.a_fact(node), self.choose.choice((None, "wrong")))

    async def body(self, node: Node) -> None:
        await node.replica.update(self.a_fact(node), FactChanges(append=self.choose.choice(("more. ", "and more. "))))

    async def forge(self, node: Node) -> None:
        """What no honest node signs: unknown kinds, bad bodies, twins, clocks ahead, causes unknown."""
        chain = [op for op in self.forged if op.project == PROJECT]
        prev = self.choose.choice([None, *chain[-2:]])
        self.seq = self.choose.choice((self.seq, self.seq + 1, self.seq + 3))
        seq = max(self.seq, (prev.seq if prev else 1) + 1)
        others = {author for other in self.nodes for author in other.store.vector(PROJECT)} - {self.forger.author}
        claims = (
            tuple((author, self.choose.randrange(1, 9)) for author in sorted(others))
            if self.choose.random() < 0.5
            else ()
        )
        subject = self.choose.choice(("", self.a_fact(node)))
        field, kind, body = self.choose.choice(
            (
                ("", FACT, None),
                ("", "fact of tomorrow", b"\x01"),
                ("content", VALUE, b"\xa1z"),
                ("content", VALUE, b"\xc1"),
                ("content", "value of tomorrow", b""),
                ("meta", VALUE, b"\x81\xa1a\xc4\x01b"),
                ("valid_from", VALUE, b"\xcf" + b"\xff" * 8),
                ("body", "text", b"\x01\x02\x03"),
            )
        )
        self.forged.append(
            self.forger.op(
                seq, prev, subject=subject, field=field, kind=kind, body=body,
                op_class=OpClass.APPEND if field == "body" else OpClass.WRITE,
                timestamp=timestamp(NOW_MS + self.choose.choice((0, 1_000, 10 * DEFAULT_AHEAD_MS))),
                clock=() if field == "body" else claims,
            )
        )  # fmt: skip
        await node.merge([self.forged[0]])
        await node.merge([self.forged[-1]])

    async def send(self, node: Node) -> None:
        await pull(node, self.choose.choice(self.nodes), batch=self.choose.choice((1, 3, 100)))


async def a_history(seed: int, steps: int) -> tuple[list[Node], Steps]:
    choose = random.Random(seed)
    nodes = await a_mesh(choose.choice((2, 3)))
    played = Steps(choose, nodes)
    await played.play(steps)
    return nodes, played


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(5, 40))
@example(seed=1, steps=150)
def test_any_order_and_any_duplicates_make_equal_tables_vectors_and_roots(seed: int, steps: int) -> None:
    async def run() -> None:
        nodes, played = await a_history(seed, steps)
        for node in nodes:
            check(node)
        everything = list({op.hash: op for node in nodes for op in [*node.ops(), *played.forged]}.values())
        members = [op for op in everything if op.project == RESERVED]
        readers = []
        for number in (41, 42):
            reader = Node(number)
            reader.now_ms = NOW_MS + 20 * DEFAULT_AHEAD_MS
            await reader.merge(members)
            order = everything + played.choose.choices(everything, k=len(everything) // 2)
            played.choose.shuffle(order)
            while order:
                size = played.choose.choice((1, 2, 7, 50))
                await reader.merge(order[:size])
                order = order[size:]
            check(reader)
            readers.append(reader)
        one, other = readers
        assert tables(one) == tables(other)
        assert {p: (one.store.vector(p), one.store.root(p)) for p in one.store.projects()} == {
            p: (other.store.vector(p), other.store.root(p)) for p in other.store.projects()
        }
        before = derived(one)
        order = one.rows("SELECT name FROM facts ORDER BY id")
        await one.database.write(lambda connection: one.store.rebuild(connection, one.now_ms))
        assert derived(one) == before
        assert len(one.rows("SELECT name FROM facts ORDER BY id")) == len(order)
        check(one)

    asyncio.run(run())


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_nodes_that_sync_show_the_same(seed: int) -> None:
    """Without forged ops, what the vectors deliver is everything."""

    async def run() -> None:
        choose = random.Random(seed)
        nodes = await a_mesh(3)
        played = Steps(choose, nodes)
        played.forge = played.create  # type: ignore[method-assign]
        await played.play(30)
        for node in nodes:
            node.now_ms = max(node.now_ms for node in nodes)
        await sync(*nodes)
        for node in nodes:
            check(node)
            assert tables(node) == tables(nodes[0])

    asyncio.run(run())


async def test_an_unknown_kind_is_stored_and_forwarded_without_effect() -> None:
    node, friend = await a_mesh(2)
    fact_ = await node.create("known")
    (strange,) = await node.append(
        a_value(fact_["id"], "mood", "cheerful"),
    )
    await sync(node, friend)
    assert strange.raw in friend.store.ops_after(PROJECT, strange.author, 0, 100, 1 << 20)
    assert (await friend.replica.get(fact_["id"])) == (await node.replica.get(fact_["id"])) | {
        "updated_at": (await node.replica.get(fact_["id"]))["updated_at"]
    }
    assert (await friend.replica.get(fact_["id"]))["content"] == "known"
    check(friend)


@settings(max_examples=150)
@given(
    st.sampled_from(
        ["", "content", "meta", "tag:x", "link:a:b", "link:nothing", "body", "valid_from", "retracted", "x"]
    ),
    st.sampled_from([FACT, VALUE, ELEMENT, "text", "member", "tomorrow"]),
    st.sampled_from(list(OpClass)),
    st.binary(max_size=40)
    | st.builds(
        fact.encode_value,
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
    )
    | st.builds(
        lambda values: fact.encode_value({"content": "c"} | values),
        st.dictionaries(
            st.sampled_from(["content", "meta", "tags", "valid_from", "valid_until", "source", "retracted"]),
            st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.just({"a": b"b"}) | st.just([""]),
        ),
    ),
    st.booleans(),
)
def test_no_body_that_a_peer_signs_can_stop_a_merge(
    field: str, kind: str, op_class: OpClass, body: bytes, about_a_fact: bool
) -> None:
    async def run() -> None:
        forger = Forger(9)
        node = Node(1)
        await node.introduce()
        await node.merge([forger.introduction()])
        first = forger.op(2)
        op = forger.op(
            3,
            first,
            op_class=op_class,
            subject=first.subject if about_a_fact else "",
            field=field,
            kind=kind,
            body=body,
        )
        await node.merge([first, op])
        assert len(node.rows("SELECT 1 FROM ops WHERE hash = ?", op.hash)) == 1
        check(node)
        await node.replica.list_facts()
        await node.replica.history(first.subject)
        await node.replica.graph(first.subject)
        await node.replica.get(first.subject, retracted=True)

    asyncio.run(run())


async def test_two_facts_of_one_name_in_two_projects_stop_nobody() -> None:
    """Whoever runs one identity twice can sign the same dot in two projects."""
    forger = Forger(9)
    (node,) = await a_mesh(1)
    one, other = forger.op(2, content="one"), forger.op(2, project="yard", content="other")
    assert one.subject == other.subject
    links = [
        forger.op(
            3,
            op,
            project=op.project,
            op_class=OpClass.ADD,
            subject=op.subject,
            field="link:a:b",
            kind=ELEMENT,
            body=b"",
        )
        for op in (one, other)
    ]
    await node.merge([forger.introduction(), one, other, *links])
    assert len(node.rows("SELECT 1 FROM facts WHERE name = ?", one.subject)) == 2
    assert (await node.replica.get(one.subject))["content"] in ("one", "other")
    assert len((await node.replica.graph(one.subject))["edges"]) == 1
    await node.merge([forger.op(4, links[0], op_class=OpClass.ADD, subject=one.subject, field="tag:x", kind=ELEMENT)])
    assert len(node.rows("SELECT 1 FROM links")) == 2
