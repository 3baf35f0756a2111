"""Who belongs to the mesh: its certificate authority, and what a certificate says about a node.

A mesh is the nodes whose certificates one CA has signed. The founder holds the CA's key; everybody else knows the mesh
by the SHA-256 of the CA's certificate. What a certificate says stands in its subject alternative names:

    cortex:node:<node id>   cortex:name:<name>   cortex:role:<role>   cortex:project:<pattern>   (one for each grant)

with name and pattern percent-encoded, so that the standard library's `getpeercert()` is enough to read it in a running
node. The subject is empty: etcd's gateway refuses client certificates with a common name. `cryptography` is imported
only where a certificate is made or checked.

* `issue` names the node by its own key; nobody can ask for an id.
* `check_member` accepts a certificate only from this CA, and only if the id in it is that of the key in it.
* A mesh's certificates have no beginning, for a Raspberry Pi without a clock wakes up in 1970 and must still be able to
  hear from its peers what time it is.

X.509: RFC 5280, RFC 8410 (Ed25519). Tests: tests/node/test_mesh.py.
"""

import calendar
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from crdt.op import MAX_NAME_BYTES as MAX_PROJECT_BYTES
from crdt.version import node_id
from node import identity
from node.clock import rfc3339
from node.errors import Problem
from node.identity import Identity
from node.paths import Home

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_NODE_NAME_BYTES: Final = 64
MAX_GRANTS: Final = 16
"""With names at their longest, 16 grants make a certificate of 7 KiB; each TLS handshake carries two."""
MAX_CERTIFICATE_BYTES: Final = 8 * 1024
ALL_PROJECTS: Final = "*"

CA_LIFETIME: Final = timedelta(days=20 * 365)
"""Longer than the machines last. A new CA is a new mesh."""
NODE_LIFETIME: Final = timedelta(days=3 * 365)
"""A stolen node is cut off by revocation, not by waiting. So this only has to outlast a year in a drawer, and leave a
node whose clock is a year ahead still able to connect and to be told so."""
NO_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_MS: Final = calendar.timegm((2025, 1, 1, 0, 0, 0)) * 1000
"""Before this program was written. A certificate dated by such a clock would have expired for everybody else."""

_SCHEME = "cortex"
_SIGNATURE = bytes.fromhex("034100")  # BIT STRING of 64 bytes and no unused bits: how a certificate by Ed25519 ends
_PATTERN = re.compile(r"[^*]*\*?")


class Role(StrEnum):
    """What a member may do: an admin also decides about members, a reader only reads."""

    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"


class BadCertificate(ValueError):
    """Not the certificate of a member of this mesh; the text says why. Whoever sent it is at fault."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node as its certificate names it. `projects` are patterns; the certificate ends at `not_after_ms`."""

    node_id: str
    node_key: bytes
    name: str
    role: Role
    projects: tuple[str, ...]
    not_after_ms: int

    def may_read(self, project: str) -> bool:
        """Whether a grant covers `project`. The reserved project, which all must read, is the caller's to except."""
        return any(covers(pattern, project) for pattern in self.projects)


@dataclass(frozen=True, slots=True)
class Authority:
    """The mesh's CA with its key: `seed` (32 bytes), `ca` (DER)."""

    seed: bytes = field(repr=False)
    ca: bytes = field(repr=False)


def covers(pattern: str, project: str) -> bool:
    """`*` covers every project, `team/*` those that begin with `team/`, anything else the one of that name."""
    return project.startswith(pattern[:-1]) if pattern.endswith("*") else project == pattern


def check_name(name: str) -> str:
    """The name, if a node may have it. Raises Problem bad_name."""
    if not name.isprintable() or name != name.strip() or not 0 < len(name.encode()) <= MAX_NODE_NAME_BYTES:
        raise Problem(
            422,
            "bad_name",
            f"{name[:MAX_NODE_NAME_BYTES]!r} can't be a node's name: it takes 1 to {MAX_NODE_NAME_BYTES} bytes of "
            "printable text, without spaces around it",
            "choose another with --name",
            "name",
        )
    return name


def check_grants(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns, sorted and each once, if they may be granted. Raises Problem bad_grant."""
    granted = tuple(sorted(set(patterns)))
    if not 0 < len(granted) <= MAX_GRANTS:
        raise _bad_grant(
            f"{len(granted)} projects: from 1 to {MAX_GRANTS} can be granted", "group them by a `prefix/*`"
        )
    for pattern in granted:
        if not pattern.isprintable() or not 0 < len(pattern.encode()) <= MAX_PROJECT_BYTES:
            raise _bad_grant(f"{pattern!r} is not a project: 1 to {MAX_PROJECT_BYTES} bytes of printable text", "")
        if not _PATTERN.fullmatch(pattern):
            raise _bad_grant(f"{pattern!r} has a * that is not at its end", "grant `team/*`, `*` or one project's name")
    return granted


def _bad_grant(detail: str, action: str) -> Problem:
    return Problem(422, "bad_grant", detail, action, "projects")


def found(
    home: Home, name: str, now_ms: int, database: Callable[[Identity, bytes, Path], None] | None = None
) -> Identity:
    """Found a mesh in `home`, and make this node its first admin.

    `database` makes the node's database, for this identity and with the CA's seed, at the path that it is given.
    Raises Problem: bad_name, clock_wrong, and what node.identity.create raises. After a Problem nothing has changed.
    """
    authority = found_authority(now_ms)
    seed = identity.new_seed()
    node_key, _ = identity.key_pair(seed)
    certificate = issue(authority, node_key, name, Role.ADMIN, (ALL_PROJECTS,), now_ms)

    def fill(me: Identity, path: Path) -> None:
        if database is not None:
            database(me, authority.seed, path)

    return identity.create(home, seed, certificate, authority.ca, authority.seed, fill if database else None)


def load_authority(me: Identity) -> Authority:
    """The CA of my mesh. Raises Problem not_the_founder, home_damaged."""
    return Authority(identity.load_ca_seed(me), me.ca)


def found_authority(now_ms: int) -> Authority:
    """A new CA. Raises Problem clock_wrong."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    not_after = _moment(now_ms) + CA_LIFETIME
    seed = identity.new_seed()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    # TLS looks an issuer up by its name; with the key's hash in it, another mesh's CA has another name.
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    name = x509.Name.from_rfc4514_string(f"CN=cortex-node mesh {key_id.hex()[:16]}")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return Authority(seed, _sign(key, name, name, key.public_key(), not_after, [(constraints, True)]))


def issue(authority: Authority, node_key: bytes, name: str, role: Role, projects: Iterable[str], now_ms: int) -> bytes:
    """A certificate (DER) for the node that holds `node_key` (32 bytes), valid for NODE_LIFETIME or as long as the CA.

    Raises Problem: bad_name, bad_grant, clock_wrong, ca_expired; ValueError when `node_key` has another length.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.x509.oid import ExtendedKeyUsageOID

    uris = _uris(node_key, check_name(name), role, check_grants(projects))
    moment = _moment(now_ms)
    ca = x509.load_der_x509_certificate(authority.ca)
    if moment >= ca.not_valid_after_utc:
        raise Problem(
            409,
            "ca_expired",
            f"by this machine's clock the mesh's CA ended on {ca.not_valid_after_utc:%Y-%m-%d}",
            "check the clock; if it is right, found a new mesh and import an export of this one",
        )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    return _sign(
        Ed25519PrivateKey.from_private_bytes(authority.seed),
        ca.subject,
        x509.Name([]),
        Ed25519PublicKey.from_public_bytes(node_key),
        min(moment + NODE_LIFETIME, ca.not_valid_after_utc),
        # RFC 5280 section 4.2.1.6: where the subject is empty, the alternative names are critical.
        [(x509.BasicConstraints(ca=False, path_length=None), True), (usages, False), (names, True)],
    )


def check_member(ca: bytes, certificate: bytes, now_ms: int | None = None) -> Member:
    """Who the certificate (DER, from anybody) names, if `ca` (DER, our own) has signed it. Raises BadCertificate.

    Without `now_ms` dates are not looked at: what a member has signed stands after its certificate has ended.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise BadCertificate(f"a certificate of {len(certificate)} bytes; {MAX_CERTIFICATE_BYTES} are allowed")
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        parsed.verify_directly_issued_by(x509.load_der_x509_certificate(ca))
        key = parsed.public_key()
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except InvalidSignature:
        raise BadCertificate("not signed by this mesh's CA") from None
    except x509.ExtensionNotFound:
        raise BadCertificate("names no node") from None
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise BadCertificate(f"not a certificate of this mesh: {error}") from None
    # Otherwise the count of unused bits, which the signature doesn't cover, would give one certificate many encodings.
    if not certificate.endswith(_SIGNATURE + parsed.signature):
        raise BadCertificate("not in canonical form")
    if not isinstance(key, Ed25519PublicKey):
        raise BadCertificate("its key is not an Ed25519 key")
    not_after_ms = calendar.timegm(parsed.not_valid_after_utc.timetuple()) * 1000
    if now_ms is not None and now_ms > not_after_ms:
        raise BadCertificate(f"expired at {rfc3339(not_after_ms)}")
    node_key = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return read_member(names.get_values_for_type(x509.UniformResourceIdentifier), node_key, not_after_ms)


def read_member(uris: Iterable[str], node_key: bytes, not_after_ms: int) -> Member:
    """What the alternative names of a certificate of this mesh's CA say. Raises BadCertificate.

    Kinds that this version doesn't know are passed over: a later version may say more about a node.
    """
    said: dict[str, list[str]] = {"node": [], "name": [], "role": [], "project": []}
    for uri in uris:
        scheme, _, rest = uri.partition(":")
        kind, _, value = rest.partition(":")
        if scheme == _SCHEME and kind in said:
            said[kind].append(unquote(value, errors="replace"))
    if any(len(said[kind]) != 1 for kind in ("node", "name", "role")):
        raise BadCertificate("it does not name one node, with one name and one role")
    [node], [name], [role], projects = said.values()
    if node != node_id(node_key):
        raise BadCertificate(f"it names node {node}, but its key is that of {node_id(node_key)}")
    if role not in set(Role):
        raise BadCertificate(f"this version knows no role {role!r}")
    try:
        return Member(node, node_key, check_name(name), Role(role), check_grants(projects), not_after_ms)
    except Problem as problem:
        raise BadCertificate(problem.detail) from None


def _uris(node_key: bytes, name: str, role: Role, projects: Iterable[str]) -> list[str]:
    uris = [("node", node_id(node_key)), ("name", quote(name, safe="")), ("role", role.value)]
    uris += [("project", quote(pattern, safe="*/")) for pattern in projects]
    return [f"{_SCHEME}:{kind}:{value}" for kind, value in uris]


def _moment(now_ms: int) -> datetime:
    if now_ms < EARLIEST_MS:
        raise Problem(
            409,
            "clock_wrong",
            f"this machine's clock says {rfc3339(now_ms)}; a certificate dated by it would be refused everywhere",
            "set the clock (`timedatectl set-ntp true`) and try again",
        )
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def _sign(
    ca_key: "Ed25519PrivateKey",
    issuer: "x509.Name",
    subject: "x509.Name",
    key: "Ed25519PublicKey",
    not_after: datetime,
    extensions: "Iterable[tuple[x509.ExtensionType, bool]]",
) -> bytes:
    """A certificate's DER. `extensions`: each with whether it is critical; usage and key ids come from the rest."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .not_valid_before(NO_BEGINNING)
        .not_valid_after(not_after)
        .add_extension(_usage(signs_certificates=issuer == subject), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(ca_key, None).public_bytes(Encoding.DER)


def _usage(signs_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
