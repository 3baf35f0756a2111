"""Golden ops: bytes that every version of this project must write, read and understand alike.

Each file of tests/crdt/golden/ holds one op of one class: the seed of its author's key, what the header says (bytes as
hex), the op's bytes and hash, and what its body gives. `shown.json` is the fact that they make together. Ed25519 signs
without chance, so the bytes follow from the rest.

A change that breaks these breaks every mesh there is: it needs a new envelope format or a new kind, not a new golden
file. A case more is a new file without `op` and `hash`; the failing test prints both.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.bindings import crypto_sign_seed_keypair

from crdt import fact, text
from crdt.op import BadOp, Header, Op, OpClass, decode, seal, verify
from crdt.survive import in_effect
from crdt.version import digest
from tests.crdt.world import lacking, vector_of

FOLDER = Path(__file__).parent / "golden"
SHOWN = json.loads((FOLDER / "shown.json").read_text())
MESH = bytes.fromhex(SHOWN["mesh"])
CASES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("[0-9]*.json"))}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def header_of(case: dict[str, Any]) -> Header:
    said = dict(case["header"])
    for field in ("node_key", "prev_hash", "body"):
        said[field] = bytes.fromhex(said[field])
    said["clock"] = tuple((bytes.fromhex(author), seq) for author, seq in said["clock"])
    return Header(**said)


def golden_ops() -> list[Op]:
    return [verify(MESH, bytes.fromhex(case["op"])) for case in CASES.values()]


@every_case
def test_the_same_header_gives_the_same_bytes(case: dict[str, Any]) -> None:
    public, secret = crypto_sign_seed_keypair(bytes.fromhex(case["seed"]))
    header = header_of(case)
    assert header.node_key == public
    op = seal(MESH, header, secret)
    assert {"op": op.raw.hex(), "hash": op.hash.hex()} == {"op": case.get("op"), "hash": case.get("hash")}


@every_case
def test_the_same_bytes_say_the_same(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["op"])
    for op in (verify(MESH, raw), decode(MESH, raw)):
        assert op.header == header_of(case) and op.raw == raw
        assert op.hash.hex() == case["hash"] and op.author.hex() == case["author"] and op.subject == case["subject"]
        assert json.loads(msgspec.json.encode(fact.given(op))) == case["gives"]
        assert text.well_formed(op) == (op.header.kind == fact.TEXT)


@every_case
def test_a_change_of_any_byte_is_refused(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["op"])
    for position in range(len(raw)):
        for flip in (0x01, 0x80):
            changed = bytearray(raw)
            changed[position] ^= flip
            with pytest.raises(BadOp):
                verify(MESH, bytes(changed))


def test_together_they_show_the_same_fact() -> None:
    ops = golden_ops()
    vector = vector_of(ops)
    assert all(in_effect(op, vector) for op in ops) and not lacking(ops, vector)
    shown = fact.fold(ops)
    assert shown is not None
    told = msgspec.to_builtins(replace(shown, texts=())) | {"texts": [op.seq for op in shown.texts]}
    told["body"] = text.read(shown.texts)
    history = [[told.op.seq, told.field, told.state] for told in fact.history(ops)]
    found = {"fact": json.loads(msgspec.json.encode(told)), "history": history, "vector_digest": digest(vector).hex()}
    assert found == {key: SHOWN[key] for key in found}


def test_every_class_and_kind_has_its_golden_op() -> None:
    headers = [op.header for op in golden_ops()]
    assert {header.op_class for header in headers} == set(OpClass)
    assert {header.kind for header in headers} >= {fact.FACT, fact.VALUE, fact.ELEMENT, fact.TEXT}
