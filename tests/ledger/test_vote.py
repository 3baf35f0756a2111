"""Signed votes: the vectors of FORMAT.md, every flipped bit, every field out of bounds."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_seed_keypair

import ledger
from ledger import vote
from ledger.vote import BadVote, Vote
from tests.ledger.world import MESH, flips, key, secret, signed_vote, vote_of

FORMAT = (Path(ledger.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
VECTORS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", FORMAT, re.DOTALL)]

names = st.text(min_size=1, max_size=32).filter(lambda name: 0 < len(name.encode("utf-8", "ignore")) <= 128)
hashes = st.binary(min_size=32, max_size=32)


def printable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(names.filter(printable), names.filter(printable), hashes, st.integers(1, vote.MAX_COUNTER), st.integers(-1, 1))
def test_a_vote_comes_back(project: str, fact: str, version: bytes, counter: int, value: int) -> None:
    said = Vote(MESH, project, fact, version, key("ada"), counter, value, vote.reason_hash("why"), 1)
    signed = vote.sign(said, secret("ada"))
    assert vote.verify(signed, MESH) == said
    assert vote.attach(said, signed[-64:]) == signed


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_vectors_of_the_format(vector: dict[str, str | int]) -> None:
    """Built by hand, as somebody outside would, and by ledger.vote."""
    public, private = crypto_sign_seed_keypair(bytes.fromhex(str(vector["seed"])))
    assert public.hex() == vector["agent_key"]
    reason = sha256(str(vector["reason"]).encode()).digest()
    mesh, version = bytes.fromhex(str(vector["mesh"])), bytes.fromhex(str(vector["version"]))
    project, fact = str(vector["project"]), str(vector["fact"])
    counter, value, time_ms = int(vector["counter"]), int(vector["value"]), int(vector["time"])
    by_hand = b"cortex-node/vote/v1\0" + mesh
    for name in (project.encode(), fact.encode()):
        by_hand += len(name).to_bytes(2, "big") + name
    by_hand += version + public + counter.to_bytes(8, "big") + value.to_bytes(1, "big", signed=True)
    by_hand += reason + time_ms.to_bytes(8, "big")
    said = Vote(mesh, project, fact, version, public, counter, value, reason, time_ms)
    assert vote.statement(said).hex() == by_hand.hex() == vector["statement"]
    signed = vote.sign(said, private)
    assert signed[len(by_hand) :].hex() == vector["signature"]
    assert vote.vote_id(signed).hex() == vector["vote_id"]
    assert vote.verify(signed, mesh) == said


def test_there_are_vectors() -> None:
    assert {vector["value"] for vector in VECTORS} == {1, 0, -1}


def test_every_flipped_bit_is_refused() -> None:
    for flipped in flips(signed_vote("ada", "fact", 1)):
        with pytest.raises(BadVote):
            vote.verify(flipped, MESH)


def test_every_cut_is_refused() -> None:
    signed = signed_vote("ada", "fact", 1)
    for end in range(len(signed)):
        with pytest.raises(BadVote):
            vote.decode(signed[:end])
    with pytest.raises(BadVote):
        vote.decode(signed + b"\0")


def test_a_vote_of_another_mesh_is_refused() -> None:
    with pytest.raises(BadVote, match="mesh"):
        vote.verify(signed_vote("ada", "fact", 1), bytes(32))


def test_nobody_signs_for_another() -> None:
    said = vote_of("ada", "fact", 1)
    with pytest.raises(BadVote, match="signature"):
        vote.sign(said, secret("bob"))
    forged = vote.attach(said, vote.sign(said._replace(agent=key("bob")), secret("bob"))[-64:])
    with pytest.raises(BadVote) as raised:
        vote.verify(forged, MESH)
    assert raised.value.reason == "signature"


@pytest.mark.parametrize(
    "change",
    [
        {"mesh": bytes(31)},
        {"project": ""},
        {"project": "x" * 129},
        {"fact": ""},
        {"fact": "é" * 65},
        {"version": bytes(33)},
        {"agent": bytes(31)},
        {"counter": 0},
        {"counter": vote.MAX_COUNTER + 1},
        {"value": 2},
        {"value": -2},
        {"reason_hash": b""},
        {"time_ms": -1},
        {"time_ms": vote.MAX_TIME_MS + 1},
    ],
)
def test_fields_out_of_bounds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadVote, match="field"):
        vote.statement(vote_of("ada", "fact", 1)._replace(**change))


@pytest.mark.parametrize("value", [2, 127, -128, -2])
def test_a_value_that_is_none_is_refused_also_when_it_is_signed(value: int) -> None:
    statement = vote.statement(vote_of("ada", "fact", 1))
    at = len(statement) - 8 - 32 - 1
    forged = statement[:at] + value.to_bytes(1, "big", signed=True) + statement[at + 1 :]
    with pytest.raises(BadVote, match="value"):
        vote.decode(forged + bytes(64))


def test_a_name_that_is_not_utf8_is_refused() -> None:
    statement = vote.statement(vote_of("ada", "fact", 1)).replace(b"fact", b"fa\xff\xfe", 2)
    with pytest.raises(BadVote, match=r"UTF-8|lengths"):
        vote.decode(statement + bytes(64))
