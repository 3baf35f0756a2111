"""The oracle of the store's tests: the books made from nothing but the bytes of the ops, and the tables to compare.

`recomputed` walks `prev` chains, sums hashes, asks crdt.survive who is in effect and folds; it shares no code with what
node/store.py and node/chains.py do step by step. `check` holds a node's tables against it.
"""

import json
from collections.abc import Iterable
from typing import Any

from crdt import text
from crdt.fact import fold
from crdt.hlc import horizon
from crdt.op import PREV_BYTES, Op
from crdt.survive import in_effect
from node import shown
from sync import merkle
from tests.node.world import Memory, Node

BOOKS = ("ops", "heads", "leaves", "ahead", "waiting", "held", "members")
DERIVED = ("facts", "texts", "texts_counts", "tags", "links")


def recomputed(ops: Iterable[Op], now_ms: int) -> dict[str, Any]:
    """The books that follow from these ops of one project, from nothing."""
    ops = list(ops)
    chains: dict[bytes, list[Op]] = {}
    for op in sorted(ops, key=lambda op: (op.author, op.seq)):
        chain = chains.setdefault(op.author, [])
        names = (op.header.prev_seq, op.header.prev_hash)
        assert names == (0, b"") or names in {(earlier.seq, earlier.hash[:PREV_BYTES]) for earlier in chain}
        chain.append(op)
    heads = {author: min((-op.seq, op.hash) for op in chain) for author, chain in chains.items()}
    vector = {author: -seq for author, (seq, _) in heads.items()}
    effective = [op for op in ops if in_effect(op, vector)]
    subjects: dict[str, list[Op]] = {}
    for op in effective:
        subjects.setdefault(op.subject, []).append(op)
    folded = {subject: fold(about, horizon(now_ms)) for subject, about in subjects.items()}
    return {
        "heads": {author: (-seq, digest) for author, (seq, digest) in heads.items()},
        "vector": vector,
        "tree": merkle.leaves((op.hash for op in ops), 0).get(0, merkle.EMPTY),
        "waiting": {op.hash for op in ops} - {op.hash for op in effective},
        "facts": {subject: shown.as_json(one) for subject, one in folded.items() if one},
        "bodies": {subject: text.read(one.texts) for subject, one in folded.items() if one and one.texts},
    }


def books(node: Node, project: str) -> dict[str, Any]:
    """The same, as the node keeps them."""
    (number, bits, total, count), *_ = node.rows("SELECT id, bits, sum, ops FROM projects WHERE name = ?", project)
    tree = {
        leaf: (merkle.from_signed(held), ops)
        for leaf, held, ops in node.rows("SELECT leaf, sum, ops FROM leaves WHERE project = ?", number)
    }
    assert merkle.fold(tree, bits, 0).get(0, merkle.EMPTY) == (merkle.from_signed(total), count)
    assert tree == merkle.leaves((op.hash for op in node.ops() if op.project == project), bits)
    assert node.store.root(project) == merkle.root(merkle.from_signed(total), count)
    waiting = node.rows("SELECT o.hash FROM waiting w JOIN ops o ON o.id = w.op WHERE w.project = ?", number)
    flagged = node.rows("SELECT hash FROM ops WHERE project = ? AND waiting", number)
    assert sorted(waiting) == sorted(flagged)
    return {
        "heads": {
            author: (seq, digest)
            for author, seq, digest in node.rows(
                "SELECT a.name, h.seq, h.hash FROM heads h JOIN authors a ON a.id = h.author WHERE project = ?", number
            )
        },
        "vector": dict(node.store.vector(project)),
        "tree": (merkle.from_signed(total), count),
        "waiting": {digest for (digest,) in waiting},
        "facts": {
            name: json.loads(shape)
            for name, shape in node.rows("SELECT name, shown FROM facts WHERE project = ?", number)
        },
        "bodies": dict(node.rows("SELECT name, body FROM facts WHERE project = ? AND body IS NOT NULL", number)),
    }


def check(node: Node) -> None:
    """The node's books follow from its ops, and its derived tables from its facts."""
    everything = node.ops()
    for project in node.store.projects():
        assert books(node, project) == recomputed((op for op in everything if op.project == project), node.now_ms)
    tags = {
        (name, tag) for name, shape in node.rows("SELECT name, shown FROM facts") for tag in json.loads(shape)["tags"]
    }
    assert set(node.rows("SELECT f.name, t.tag FROM tags t JOIN facts f ON f.id = t.fact")) == tags
    links = {
        (name, link["relation"], link["to"])
        for name, shape in node.rows("SELECT name, shown FROM facts")
        for link in json.loads(shape)["links"]
    }
    assert set(node.rows("SELECT origin, relation, target FROM links")) == links
    current = node.rows(
        "SELECT t.content, t.body FROM texts t JOIN facts f ON f.id = t.fact WHERE t.known_until IS NULL"
        " AND t.content = f.shown ->> 'content' AND t.body IS f.body"
    )
    assert len(current) == node.rows("SELECT count(*) FROM facts")[0][0]
    if isinstance(node.database, Memory):  # elsewhere only the writer may ask
        node.rows("INSERT INTO texts_fts (texts_fts, rank) VALUES ('integrity-check', 1)")


def tables(node: Node) -> dict[str, list[Any]]:
    """Everything that must not depend on the order in which ops came: names instead of this database's numbers."""
    named = {
        "ops": "SELECT p.name, hash, subject, timestamp, waiting, raw FROM ops JOIN projects p ON p.id = project",
        "heads": "SELECT p.name, a.name, seq, hash FROM heads JOIN projects p ON p.id = project"
        " JOIN authors a ON a.id = author",
        "leaves": "SELECT p.name, leaf, l.sum, l.ops FROM leaves l JOIN projects p ON p.id = project",
        "projects": "SELECT name, bits, sum, ops FROM projects WHERE ops",
        "ahead": "SELECT project, author, prev_seq, hash, raw FROM ahead",
        "members": "SELECT * FROM members",
    }
    return {table: sorted(node.rows(sql)) for table, sql in named.items()} | derived(node)


def derived(node: Node) -> dict[str, list[Any]]:
    named = {
        "facts": "SELECT f.name, p.name, fact_type, source, created, updated, retracted, valid_from, valid_until,"
        " shown, body FROM facts f JOIN projects p ON p.id = project",
        "texts": "SELECT f.name, scope = 'p' || f.project, known_from, known_until, chars, content, t.body"
        " FROM texts t JOIN facts f ON f.id = fact",
        "counts": "SELECT p.name, c.texts FROM texts_counts c JOIN projects p ON scope = 'p' || p.id WHERE c.texts",
        "tags": "SELECT p.name, tag, f.name FROM tags t"
        " JOIN projects p ON p.id = t.project JOIN facts f ON f.id = fact",
        "links": "SELECT origin, p.name, relation, target FROM links JOIN projects p ON p.id = project",
    }
    return {table: sorted(node.rows(sql), key=repr) for table, sql in named.items()}


def dump(node: Node) -> dict[str, list[Any]]:
    """Whole tables, row for row."""
    return {table: sorted(node.rows(f"SELECT * FROM {table}"), key=repr) for table in (*BOOKS, *DERIVED, "meta")}
