"""A code survives how people copy it, a wrong one is told from an old one, and the book alone opens no door."""

import json
import re
from base64 import b32encode
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import identity, invitation, mesh
from node.errors import Problem
from node.identity import Identity
from node.invitation import CLOCK_SLACK_MS, Grants, Invitation
from node.mesh import Role
from node.paths import Home

NOW_MS = 1_780_000_000_000
ADDRESSES = ("192.168.1.5:7400", "[2001:db8::5]:7400", "pi-5.local:7400")
EXAMPLE = Invitation(bytes(range(16)), bytes(range(32)), NOW_MS + 600_000, ADDRESSES)
CODE = invitation.encode(EXAMPLE)


class Shelf:
    """What an inviter has put into its book."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, str, int]] = []

    async def put(self, secret_hash: bytes, grants_json: str, expires_ms: int) -> None:
        self.rows.append((secret_hash, grants_json, expires_ms))

    async def take(self, secret_hash: bytes, now_ms: int, node_id: str) -> str:
        raise AssertionError("nobody enrols here")


@pytest.fixture(scope="module")
def me(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return mesh.found(Home(tmp_path_factory.mktemp("home")), "anna", NOW_MS)


addresses = st.builds(
    "{}:{}".format,
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map("[{}]".format)
    | st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?", fullmatch=True),
    st.integers(1, 65_535),
)
invitations = st.builds(
    Invitation,
    secret=st.binary(min_size=16, max_size=16),
    fingerprint=st.binary(min_size=32, max_size=32),
    expires_ms=st.integers(NOW_MS // 1000, 2 * NOW_MS // 1000).map(lambda seconds: seconds * 1000),
    addresses=st.lists(addresses, min_size=1, max_size=8).map(tuple),
)


@given(invitations)
def test_a_code_says_what_was_put_in(made: Invitation) -> None:
    code = invitation.encode(made)
    assert invitation.decode(code, NOW_MS) == made
    assert len(code) <= invitation.MAX_CODE_CHARS
    assert re.fullmatch("[A-Z0-9-]+", code)  # what QR codes pack into 5.5 bits a character


def test_the_longest_code_has_room_to_be_wrapped() -> None:
    longest = "a" * (invitation.MAX_ADDRESS_CHARS - 6) + ":65535"
    code = invitation.encode(Invitation(bytes(16), bytes(32), 1 << 49, (longest,) * invitation.MAX_ADDRESSES))
    assert len(code) * 1.25 < invitation.MAX_CODE_CHARS


@pytest.mark.parametrize(
    "copied",
    [
        CODE.lower(),
        f"  {CODE}\n",
        "\n".join(CODE[start : start + 40] for start in range(0, len(CODE), 40)),
        CODE[:8] + "-".join(CODE[start : start + 5] for start in range(8, len(CODE), 5)),
        CODE[:8] + CODE[8:].replace("O", "0").replace("I", "1"),
    ],
)
def test_how_people_copy_a_code_does_no_harm(copied: str) -> None:
    assert invitation.decode(copied, NOW_MS) == EXAMPLE


@given(st.integers(len("CORTEX1-"), len(CODE) - 1), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_slip_is_noticed_or_does_no_harm(position: int, character: str) -> None:
    copied = CODE[:position] + character + CODE[position + 1 :]
    try:
        assert invitation.decode(copied, NOW_MS) == EXAMPLE
        assert character == CODE[position] or position == len(CODE) - 1  # its last bits are padding
    except Problem as problem:
        assert problem.code == "invitation_damaged"


@given(st.text(max_size=300) | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567=-8").map("CORTEX1-".__add__))
def test_garbage_is_damaged(text: str) -> None:
    with pytest.raises(Problem) as caught:
        invitation.decode(text, NOW_MS)
    assert caught.value.code == "invitation_damaged"


@pytest.mark.parametrize("code", ["", CODE[:-1], CODE[:40], CODE[8:], CODE + "A", CODE * 20, "CORTEX1-", "CORTEX-AAAA"])
def test_half_a_code_is_damaged(code: str) -> None:
    with pytest.raises(Problem) as caught:
        invitation.decode(code, NOW_MS)
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invitation_damaged", "code")
    assert "copy the code again" in caught.value.action


@pytest.mark.parametrize(
    "payload",
    [
        [bytes(15), bytes(32), 1, ["a:1"]],
        [bytes(16), bytes(31), 1, ["a:1"]],
        [bytes(16), bytes(32), -1, ["a:1"]],
        [bytes(16), bytes(32), 1 << 63, ["a:1"]],
        [bytes(16), bytes(32), 1, []],
        [bytes(16), bytes(32), 1, ["a:1"] * 9],
        [bytes(16), bytes(32), 1, ["a" * 100 + ":1"]],
        [bytes(16), bytes(32), 1],
        {},
    ],
)
def test_a_whole_code_with_nonsense_in_it_is_damaged(payload: object) -> None:
    with pytest.raises(Problem) as caught:
        invitation.decode(coded(payload), NOW_MS)
    assert caught.value.code == "invitation_damaged"


def coded(payload: object) -> str:
    raw = msgspec.msgpack.encode(payload)
    return "CORTEX1-" + b32encode(raw + invitation._checksum(raw)).decode().rstrip("=")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        ":7400",
        "host:0",
        "host:65536",
        "host:7400/x",
        "u@host:1",
        "a b:1",
        "::1:7400",
        "[::1]",
        "-a:1",
        "h:١",
    ],
)
def test_an_address_is_a_host_and_a_port_and_nothing_else(address: str) -> None:
    with pytest.raises(Problem, match="not an address"):
        invitation.parse_address(address)
    with pytest.raises(Problem, match="not an address"):
        invitation.decode(coded([bytes(16), bytes(32), NOW_MS // 1000, [address]]), NOW_MS)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("10.0.0.1:7400", ("10.0.0.1", 7400)), ("[::1]:1", ("::1", 1)), ("Pi-5.local:65535", ("Pi-5.local", 65535))],
)
def test_what_an_address_says(address: str, parts: tuple[str, int]) -> None:
    assert invitation.parse_address(address) == parts


@pytest.mark.parametrize("version", ["0", "2", "12"])
def test_a_code_of_another_version_is_not_called_damaged(version: str) -> None:
    with pytest.raises(Problem, match=f"version {version}") as caught:
        invitation.decode(f"CORTEX{version}-WHATEVER+COMES", NOW_MS)
    assert caught.value.code == "invitation_version"
    assert "same version" in caught.value.action


def test_an_old_code_is_expired_by_a_clock_that_may_be_a_little_ahead() -> None:
    invitation.decode(CODE, EXAMPLE.expires_ms + CLOCK_SLACK_MS - 1)
    with pytest.raises(Problem, match="clock says") as caught:
        invitation.decode(CODE, EXAMPLE.expires_ms + CLOCK_SLACK_MS)
    assert (caught.value.status, caught.value.code) == (410, "invitation_expired")


async def test_an_invitation_is_recorded_before_it_is_shown(me: Identity) -> None:
    book = Shelf()
    made = await invitation.invite(
        book, me, ADDRESSES, role=Role.READER, projects=["team/*", "a", "a"], ttl_ms=60_000, now_ms=NOW_MS
    )
    assert (made.fingerprint, made.expires_ms, made.addresses) == (me.mesh_id, NOW_MS + 60_000, ADDRESSES)
    [(secret_hash, grants_json, expires_ms)] = book.rows
    assert secret_hash == invitation.secret_hash(invitation.one_time_key(made.secret)[0])
    assert expires_ms == made.expires_ms
    assert invitation.read_grants(grants_json) == Grants(Role.READER, ("a", "team/*"))


async def test_the_book_holds_nothing_that_opens_the_door(me: Identity) -> None:
    book = Shelf()
    made = await invitation.invite(book, me, ADDRESSES, now_ms=NOW_MS)
    public, private = invitation.one_time_key(made.secret)
    kept = repr(book.rows).encode() + book.rows[0][0]
    assert not any(secret in kept for secret in (made.secret, private[:32], public, made.secret.hex().encode()))
    assert json.loads(book.rows[0][1]) == {"role": "member", "projects": ["*"]}


async def test_no_two_invitations_are_alike(me: Identity) -> None:
    book = Shelf()
    for _ in range(3):
        await invitation.invite(book, me, ADDRESSES, now_ms=NOW_MS)
    assert len({row[0] for row in book.rows}) == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"addresses": []}, "bad_address"),
        ({"addresses": ["a:1"] * 9}, "bad_address"),
        ({"addresses": ["nonsense"]}, "bad_address"),
        ({"ttl_ms": 0}, "bad_ttl"),
        ({"ttl_ms": invitation.MAX_TTL_MS + 1}, "bad_ttl"),
        ({"projects": []}, "bad_grant"),
        ({"projects": ["a*b"]}, "bad_grant"),
    ],
)
async def test_a_bad_invitation_is_not_recorded(me: Identity, arguments: dict[str, object], code: str) -> None:
    book = Shelf()
    with pytest.raises(Problem) as caught:
        await invitation.invite(book, me, **{"addresses": ADDRESSES, "now_ms": NOW_MS} | arguments)  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.code) == (422, code)
    assert not book.rows


async def test_only_the_founder_invites(me: Identity, tmp_path: Path) -> None:
    seed = identity.new_seed()
    certificate = mesh.issue(mesh.load_authority(me), identity.key_pair(seed)[0], "bert", Role.ADMIN, ("*",), NOW_MS)
    bert = identity.create(Home(tmp_path), seed, certificate, me.ca)
    book = Shelf()
    with pytest.raises(Problem) as caught:
        await invitation.invite(book, bert, ADDRESSES, now_ms=NOW_MS)
    assert caught.value.code == "not_the_founder"
    assert not book.rows


@pytest.mark.parametrize("reason", ["unknown", "expired", "used"])
def test_a_refusal_says_what_to_do(reason: str) -> None:
    problem = invitation.refused(reason)
    assert problem.code == f"invitation_{reason}"
    assert "cortex-node invite" in problem.action


def test_secrets_do_not_show_in_a_log() -> None:
    assert repr(EXAMPLE.secret) not in repr(EXAMPLE)


def test_a_qr_code_of_eight_addresses_fits_a_terminal() -> None:
    many = Invitation(bytes(16), bytes(32), NOW_MS, tuple(f"192.168.100.{number}:17400" for number in range(100, 108)))
    drawn = invitation.qr(invitation.encode(many))
    assert max(len(re.sub("\x1b[^m]*m", "", line)) for line in drawn.splitlines()) <= 80
