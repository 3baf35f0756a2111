"""A certificate names one node by its own key, comes from this mesh's CA, and every other one is refused."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import MAX_NAME_BYTES as MAX_PROJECT_BYTES
from crdt.version import node_id
from node import identity, mesh
from node.errors import Problem
from node.mesh import Authority, BadCertificate, Role
from node.paths import Home

NOW_MS = 1_780_000_000_000
DAY_MS = 86_400_000

AUTHORITY = mesh.found_authority(NOW_MS)
KEY, _ = identity.key_pair(bytes(range(32)))
CERTIFICATE = mesh.issue(AUTHORITY, KEY, "anna", Role.MEMBER, ("team/*",), NOW_MS)
NAMES = (f"cortex:node:{node_id(KEY)}", "cortex:name:anna", "cortex:role:member", "cortex:project:*")


def signed(uris: list[str] | None, key: object = None, authority: Authority = AUTHORITY) -> bytes:
    """A certificate as a careless or malicious holder of the CA's key might make it."""
    ca = x509.load_der_x509_certificate(authority.ca)
    ca_key = Ed25519PrivateKey.from_private_bytes(authority.seed)
    builder = (
        x509.CertificateBuilder()
        .serial_number(1)
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key or Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key())  # type: ignore[arg-type]
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
    )
    if uris is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(ca_key, None).public_bytes(Encoding.DER)


def test_what_is_issued_is_what_is_read() -> None:
    member = mesh.check_member(AUTHORITY.ca, CERTIFICATE, NOW_MS)
    assert (member.node_id, member.node_key) == (node_id(KEY), KEY)
    assert (member.name, member.role, member.projects) == ("anna", Role.MEMBER, ("team/*",))
    assert member.not_after_ms == NOW_MS + 3 * 365 * DAY_MS


printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)


@given(
    name=printable.filter(lambda text: len(text.encode()) <= mesh.MAX_NODE_NAME_BYTES),
    role=st.sampled_from(Role),
    projects=st.sets(
        printable.map(lambda text: text.replace("*", "x")).filter(lambda text: len(text.encode()) <= MAX_PROJECT_BYTES),
        min_size=1,
        max_size=mesh.MAX_GRANTS,
    ),
)
def test_any_name_survives_its_certificate(name: str, role: Role, projects: set[str]) -> None:
    member = mesh.check_member(AUTHORITY.ca, mesh.issue(AUTHORITY, KEY, name, role, projects, NOW_MS))
    assert (member.name, member.role, set(member.projects)) == (name, role, projects)


def test_the_largest_certificate_is_within_the_limit() -> None:
    projects = [chr(0x3041 + number) * (MAX_PROJECT_BYTES // 3) for number in range(mesh.MAX_GRANTS)]
    largest = mesh.issue(AUTHORITY, KEY, "ü" * (mesh.MAX_NODE_NAME_BYTES // 2), Role.MEMBER, projects, NOW_MS)
    assert mesh.MAX_CERTIFICATE_BYTES * 3 // 4 < len(largest) <= mesh.MAX_CERTIFICATE_BYTES
    mesh.check_member(AUTHORITY.ca, largest)


def test_the_certificate_is_what_etcd_and_strict_verifiers_want(tmp_path: Path) -> None:
    certificate = x509.load_der_x509_certificate(CERTIFICATE)
    assert certificate.subject == x509.Name([])  # etcd's gateway refuses a client with a common name
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert extension.critical
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    for name, der in (("ca", AUTHORITY.ca), ("node", CERTIFICATE)):
        (tmp_path / name).write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    for purpose in ("sslclient", "sslserver"):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca", "node"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )


def test_every_mesh_is_another() -> None:
    other = mesh.found_authority(NOW_MS)
    assert identity.mesh_id(other.ca) != identity.mesh_id(AUTHORITY.ca)
    with pytest.raises(BadCertificate):
        mesh.check_member(other.ca, CERTIFICATE)


def test_an_impostor_with_the_same_ca_name_is_refused() -> None:
    """The issuer's name can be copied, the CA's key can't."""
    ca = x509.load_der_x509_certificate(AUTHORITY.ca)
    mine = Ed25519PrivateKey.generate()
    forged_ca = (
        x509.CertificateBuilder(ca.subject, ca.subject, mine.public_key(), 1)
        .not_valid_before(ca.not_valid_before_utc)
        .not_valid_after(ca.not_valid_after_utc)
        .sign(mine, None)
        .public_bytes(Encoding.DER)
    )
    forged = mesh.issue(Authority(mine.private_bytes_raw(), forged_ca), KEY, "anna", Role.ADMIN, ("*",), NOW_MS)
    with pytest.raises(BadCertificate, match="not signed by this mesh's CA"):
        mesh.check_member(AUTHORITY.ca, forged)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # refused as badly signed, whatever its number
def test_no_bit_of_a_certificate_can_be_changed() -> None:
    for position in range(len(CERTIFICATE)):
        for bit in range(8):
            changed = bytearray(CERTIFICATE)
            changed[position] ^= 1 << bit
            with pytest.raises(BadCertificate):
                mesh.check_member(AUTHORITY.ca, bytes(changed))


def test_one_certificate_has_one_encoding() -> None:
    """The signature's count of unused bits is not signed, and parsers let it be when those bits are 0."""
    certificate = CERTIFICATE
    while certificate[-1] & 1:
        certificate = mesh.issue(AUTHORITY, KEY, "anna", Role.MEMBER, ("team/*",), NOW_MS)
    mesh.check_member(AUTHORITY.ca, certificate)
    other = bytearray(certificate)
    other[-65] = 1
    assert x509.load_der_x509_certificate(bytes(other)).signature == certificate[-64:]
    with pytest.raises(BadCertificate, match="canonical"):
        mesh.check_member(AUTHORITY.ca, bytes(other))


@given(st.binary(max_size=200) | st.integers(0, len(CERTIFICATE) - 1).map(lambda end: CERTIFICATE[:end]))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadCertificate):
        mesh.check_member(AUTHORITY.ca, garbage)


def test_a_huge_certificate_is_refused_unread() -> None:
    with pytest.raises(BadCertificate, match="bytes"):
        mesh.check_member(AUTHORITY.ca, CERTIFICATE + bytes(mesh.MAX_CERTIFICATE_BYTES))


def test_an_expired_certificate_counts_only_where_dates_do() -> None:
    ends = mesh.check_member(AUTHORITY.ca, CERTIFICATE).not_after_ms
    mesh.check_member(AUTHORITY.ca, CERTIFICATE, ends)
    with pytest.raises(BadCertificate, match="expired"):
        mesh.check_member(AUTHORITY.ca, CERTIFICATE, ends + 1)
    mesh.check_member(AUTHORITY.ca, CERTIFICATE)


def test_a_node_whose_clock_says_1970_accepts_its_peers() -> None:
    for der in (AUTHORITY.ca, CERTIFICATE):  # TLS asks for the current time to be within a certificate's dates
        assert x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp() == 0
    mesh.check_member(AUTHORITY.ca, CERTIFICATE, 0)


def test_no_certificate_outlives_its_ca() -> None:
    ends_ms = int(x509.load_der_x509_certificate(AUTHORITY.ca).not_valid_after_utc.timestamp()) * 1000
    late = mesh.issue(AUTHORITY, KEY, "anna", Role.MEMBER, ("*",), ends_ms - DAY_MS)
    assert mesh.check_member(AUTHORITY.ca, late).not_after_ms == ends_ms
    with pytest.raises(Problem) as caught:
        mesh.issue(AUTHORITY, KEY, "anna", Role.MEMBER, ("*",), ends_ms)
    assert caught.value.code == "ca_expired"


def test_a_clock_that_was_never_set_dates_no_certificate() -> None:
    for make in (
        lambda: mesh.found_authority(0),
        lambda: mesh.issue(AUTHORITY, KEY, "anna", Role.MEMBER, ("*",), mesh.EARLIEST_MS - 1),
    ):
        with pytest.raises(Problem, match="clock says") as caught:
            make()
        assert caught.value.code == "clock_wrong"
        assert "timedatectl" in caught.value.action


@pytest.mark.parametrize(
    ("uris", "reason"),
    [
        (None, "names no node"),
        ([], "one node"),
        (NAMES[1:], "one node"),
        ([NAMES[0], *NAMES[2:]], "one name"),
        ([*NAMES[:2], NAMES[3]], "one role"),
        (NAMES[:3], "0 projects"),
        ([*NAMES, "cortex:node:aaaaaaaaaaaaaaaa"], "one node"),
        ([*NAMES, "cortex:role:admin"], "one role"),
        (["cortex:node:aaaaaaaaaaaaaaaa", *NAMES[1:]], "its key is that of"),
        ([*NAMES[:2], "cortex:role:owner", NAMES[3]], "no role 'owner'"),
        ([NAMES[0], "cortex:name:", *NAMES[2:]], "node's name"),
        ([NAMES[0], "cortex:name:a%0Ab", *NAMES[2:]], "node's name"),
        ([*NAMES[:3], "cortex:project:a*b"], "not at its end"),
        ([*NAMES, *(f"cortex:project:p{number}" for number in range(16))], "17 projects"),
    ],
)
def test_a_certificate_that_names_no_member_is_refused(uris: list[str] | None, reason: str) -> None:
    with pytest.raises(BadCertificate, match=reason):
        mesh.check_member(AUTHORITY.ca, signed(None if uris is None else list(uris)))


def test_what_a_later_version_says_is_passed_over() -> None:
    member = mesh.check_member(AUTHORITY.ca, signed([*NAMES, "cortex:colour:red", "https://example.org/"]))
    assert member.projects == ("*",)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(BadCertificate, match="not an Ed25519 key"):
        mesh.check_member(AUTHORITY.ca, signed(list(NAMES), ec.generate_private_key(ec.SECP256R1()).public_key()))


def test_the_key_is_found_without_parsing() -> None:
    assert identity.public_key_of(CERTIFICATE) == KEY


@pytest.mark.parametrize("name", ["", " ", " anna", "anna\n", "a\x1b[31m", "a" * 65, "ü" * 33, "\ud800"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        mesh.check_name(name)
    assert (caught.value.status, caught.value.field) == (422, "name")
    assert caught.value.action


@pytest.mark.parametrize(
    "patterns", [[], [""], ["a*b"], ["**"], ["*a"], ["a\n"], ["a" * 129], [f"p{number}" for number in range(17)]]
)
def test_a_bad_grant_is_refused(patterns: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        mesh.check_grants(patterns)
    assert (caught.value.status, caught.value.code) == (422, "bad_grant")


@pytest.mark.parametrize(
    ("patterns", "readable", "hidden"),
    [
        (("*",), ["a", "team/x"], []),
        (("team/*",), ["team/x", "team/x/y", "team/"], ["team", "teams/x", "a"]),
        (("a", "b"), ["a", "b"], ["ab", "A", "", "c"]),
    ],
)
def test_what_a_grant_covers(patterns: tuple[str, ...], readable: list[str], hidden: list[str]) -> None:
    member = mesh.check_member(AUTHORITY.ca, mesh.issue(AUTHORITY, KEY, "anna", Role.READER, patterns, NOW_MS))
    assert [project for project in readable + hidden if member.may_read(project)] == readable


def test_names_in_a_certificate_are_quoted_exactly() -> None:
    """An odd name can't pass for another alternative name."""
    name = "x, URI:cortex:role:admin"
    certificate = mesh.issue(AUTHORITY, KEY, name, Role.READER, ("*",), NOW_MS)
    names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"cortex:node:{node_id(KEY)}",
        f"cortex:name:{quote(name, safe='')}",
        "cortex:role:reader",
        "cortex:project:*",
    ]


def test_the_founder_is_the_first_admin(tmp_path: Path) -> None:
    me = mesh.found(Home(tmp_path), "anna", NOW_MS)
    member = mesh.check_member(me.ca, me.certificate, NOW_MS)
    assert (member.node_id, member.role, member.projects) == (me.node_id, Role.ADMIN, ("*",))
    assert mesh.load_authority(identity.load(me.home)).ca == me.ca


@pytest.mark.parametrize(("name", "now_ms"), [("", NOW_MS), ("anna", 0)])
def test_a_mesh_that_is_not_founded_leaves_nothing(tmp_path: Path, name: str, now_ms: int) -> None:
    with pytest.raises(Problem):
        mesh.found(Home(tmp_path / "home"), name, now_ms)
    assert list(tmp_path.iterdir()) == []


def test_a_second_mesh_does_not_replace_the_first(tmp_path: Path) -> None:
    me = mesh.found(Home(tmp_path), "anna", NOW_MS)
    with pytest.raises(Problem) as caught:
        mesh.found(Home(tmp_path), "bert", NOW_MS)
    assert caught.value.code == "home_exists"
    assert identity.load(me.home) == me
