"""Signed statements: they come back, and every one needs all its signatures."""

import msgspec
import pytest

from ledger import statement
from ledger.entry import Kind
from ledger.statement import BadStatement, Constants, Enrolment, Genesis, Grant, Revocation, Statement
from tests.ledger.world import MESH, flips, key, secret

AUTHORITY = key("authority")
CASES: dict[str, tuple[Statement, list[str]]] = {
    "genesis": (Genesis(MESH, AUTHORITY, Constants(), 1), ["authority"]),
    "enrolment": (Enrolment(MESH, key("ada"), "ada", key("hub"), False, b"", 1), ["ada", "hub"]),
    "owner": (Enrolment(MESH, key("ada"), "ada", key("hub"), True, b"", 1), ["ada", "hub", "authority"]),
    "rotation": (Enrolment(MESH, key("ada 2"), "ada", key("hub"), False, key("ada"), 1), ["ada 2", "hub", "ada"]),
    "owner's rotation": (
        Enrolment(MESH, key("ada 2"), "ada", key("hub"), True, key("ada"), 1),
        ["ada 2", "hub", "authority", "ada"],
    ),
    "revocation": (Revocation(MESH, key("ada"), 17, key("hub"), 1), ["hub"]),
    "revocation from now on": (Revocation(MESH, key("ada"), None, key("ada"), 1), ["ada"]),
    "grant": (Grant(bytes(32), 1, "solo", (key("hub"),), 2, bytes(32)), ["authority"]),
    "large grant": (
        Grant(bytes(32), 2, "etcd", tuple(key(str(at)) for at in range(16)), 2, bytes(32), b"x" * 32),
        ["authority"],
    ),
}
every_case = pytest.mark.parametrize(("said", "by"), CASES.values(), ids=CASES)


def sealed(said: Statement, by: list[str]) -> bytes:
    return statement.seal(said, AUTHORITY, [secret(name) for name in by])


@every_case
def test_a_statement_comes_back(said: Statement, by: list[str]) -> None:
    text, kind = sealed(said, by), statement.kind_of(said)
    assert statement.verify(kind, text, AUTHORITY) == said == statement.decode(kind, text)
    assert sealed(said, by[::-1]) == text
    assert len(text) <= statement.MAX_STATEMENT_BYTES
    for other in set(Kind) - {kind}:
        with pytest.raises(BadStatement):
            statement.decode(other, text)


@every_case
def test_every_signature_is_needed(said: Statement, by: list[str]) -> None:
    text, kind = sealed(said, by), statement.kind_of(said)
    for missing in by:
        with pytest.raises(BadStatement):
            sealed(said, [name for name in by if name != missing])
    for at in range(len(by)):
        start = len(text) - 64 * (at + 1)
        with pytest.raises(BadStatement):
            statement.verify(kind, text[:start] + bytes(64) + text[start + 64 :], AUTHORITY)
        with pytest.raises(BadStatement):
            statement.verify(kind, text[:start] + text[start + 64 :], AUTHORITY)
    with pytest.raises(BadStatement):
        statement.verify(kind, text + text[-64:], AUTHORITY)


@pytest.mark.parametrize("name", ["enrolment", "revocation", "grant"])
def test_every_flipped_bit_is_refused(name: str) -> None:
    said, by = CASES[name]
    for flipped in flips(sealed(said, by)):
        with pytest.raises(BadStatement):
            statement.verify(statement.kind_of(said), flipped, AUTHORITY)


@pytest.mark.parametrize("name", ["genesis", "grant", "owner"])
def test_only_the_authority_founds_grants_and_makes_owners(name: str) -> None:
    said, by = CASES[name]
    with pytest.raises(BadStatement):
        statement.verify(statement.kind_of(said), sealed(said, by), key("another authority"))


GENESIS, ENROLMENT, REVOCATION, GRANT = (CASES[name][0] for name in ("genesis", "enrolment", "revocation", "grant"))


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (GENESIS, {"mesh": b""}),
        (GENESIS, {"authority": bytes(31)}),
        (GENESIS, {"time_ms": -1}),
        (GENESIS, {"constants": Constants(prior=0)}),
        (GENESIS, {"constants": Constants(start=1_000_001)}),
        (GENESIS, {"constants": Constants(shift=0)}),
        (ENROLMENT, {"agent": b""}),
        (ENROLMENT, {"voice": bytes(33)}),
        (ENROLMENT, {"name": ""}),
        (ENROLMENT, {"name": "x" * 129}),
        (ENROLMENT, {"replaces": b"x"}),
        (ENROLMENT, {"replaces": key("ada")}),
        (REVOCATION, {"by": b""}),
        (REVOCATION, {"void_from": -1}),
        (GRANT, {"engine": "raft"}),
        (GRANT, {"hubs": ()}),
        (GRANT, {"hubs": (key("hub"), key("hub"))}),
        (GRANT, {"hubs": tuple(key(str(at)) for at in range(17))}),
        (GRANT, {"epoch": 0}),
        (GRANT, {"start_size": -1}),
        (GRANT, {"start_root": b""}),
        (GRANT, {"previous": b""}),
    ],
)
def test_fields_out_of_bounds_are_refused(said: Statement, change: dict[str, object]) -> None:
    with pytest.raises(BadStatement, match="out of bounds"):
        statement.payload(msgspec.structs.replace(said, **change))  # type: ignore[type-var]


def test_another_form_of_the_same_is_refused() -> None:
    said, by = CASES["revocation from now on"]
    text = sealed(said, by)
    context = text[: text.index(b"\0") + 1]
    longer = msgspec.msgpack.encode(msgspec.to_builtins(said, builtin_types=[bytes]))
    assert text.startswith(context + longer)
    with pytest.raises(BadStatement):
        statement.decode(
            Kind.REVOCATION, text.replace(longer, b"\xdc\x00" + longer[:1].replace(b"\x95", b"\x05") + longer[1:])
        )


@pytest.mark.parametrize("text", [b"", b"x" * 5_000, b"cortex-node/grant/v1\0", b"cortex-node/grant/v1\0" + bytes(64)])
def test_bytes_that_are_no_statement(text: bytes) -> None:
    with pytest.raises(BadStatement):
        statement.decode(Kind.GRANT, text)
    with pytest.raises(BadStatement, match="no statement"):
        statement.decode(Kind.VOTE, text)
