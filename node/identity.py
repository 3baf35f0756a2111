"""Who this node is: its key, its certificate, the mesh's CA certificate, and the files that hold them.

A node has one Ed25519 key. It signs the node's ops and is its TLS key; the node id is derived from it
(crdt.version.node_id). The mesh id is the SHA-256 of the CA certificate. The founder also holds the CA's key.

* `create` writes everything or nothing, never over something that is there, and every file is 0600 before it has
  content. The certificate comes last: a home without it is no node yet.
* `load` refuses, with what to do, a home in which a file is missing or damaged, in which a secret is open to others, or
  whose certificate is for another key. It does not judge the certificate: node.tls.examine does.

Keys are PKCS #8 PEM (RFC 8410), which for Ed25519 is a constant followed by the 32-byte seed. Reading that here, by
hand and exactly, keeps `cryptography` and its 8 MB out of a running node. Tests: tests/node/test_identity.py.
"""

import base64
import binascii
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from nacl.bindings import crypto_sign_seed_keypair

from crdt.version import node_id
from node.errors import Problem
from node.paths import Home

SEED_BYTES = 32
KEY_BYTES = 32
TOKEN_BYTES = 32
MAX_FILE_BYTES = 64 * 1024
"""Of a key, a certificate or a token: the largest real one is a certificate of 8 KiB (node/mesh.py)."""

_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")  # RFC 8410 section 7, up to the seed
_PUBLIC_KEY = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo, RFC 8410 section 4, up to the key
_KEY_LABEL, _CERTIFICATE_LABEL = "PRIVATE KEY", "CERTIFICATE"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node as its home says. `secret_key` is libsodium's 64 bytes, as crdt.op.seal takes it; certificates are DER."""

    home: Home
    node_key: bytes
    secret_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    ca: bytes = field(repr=False)
    founder: bool
    """Whether the CA's key is here: only then can this node enrol others."""

    @property
    def node_id(self) -> str:
        return node_id(self.node_key)

    @property
    def mesh_id(self) -> bytes:
        """32 bytes."""
        return mesh_id(self.ca)


def new_seed() -> bytes:
    """The secret that an Ed25519 key is made of."""
    return secrets.token_bytes(SEED_BYTES)


def key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """The public key (32 bytes) and libsodium's secret key (64 bytes) of a seed."""
    public, secret = crypto_sign_seed_keypair(seed)
    return public, secret


def mesh_id(ca: bytes) -> bytes:
    """The mesh's id, which is also its CA's fingerprint: SHA-256 of the certificate's DER."""
    return sha256(ca).digest()


def public_key_of(certificate: bytes) -> bytes:
    """The Ed25519 key in a certificate that is known to be the CA's work. Raises ValueError when there is none.

    The key's frame is looked for in the bytes instead of parsing them. Nothing that a member can choose comes before
    it: the subject is empty, so only the serial number, the issuer and the dates do, and they are the CA's.
    """
    _, frame, rest = certificate.partition(_PUBLIC_KEY)
    if not frame or len(rest) < KEY_BYTES:
        raise ValueError("no Ed25519 key in the certificate")
    return rest[:KEY_BYTES]


def load(home: Home) -> Identity:
    """The node whose home this is. Raises Problem: no_home, home_damaged, home_unreadable, secret_exposed."""
    if not _present(home):
        raise Problem(
            404,
            "no_home",
            f"there is no node in {home.path}",
            "found a mesh with `cortex-node init`, or become part of one with `cortex-node join CODE`",
        )
    read_secret(home.token)
    return _identity(
        home,
        seed=read_seed(home.key),
        certificate=_pem_of(home.certificate, _CERTIFICATE_LABEL, read(home.certificate)),
        ca=_pem_of(home.ca_certificate, _CERTIFICATE_LABEL, read(home.ca_certificate)),
        ca_seed=read_seed(home.ca_key) if home.ca_key.exists() else None,
    )


def load_ca_seed(identity: Identity) -> bytes:
    """The CA's key, where it is. Raises Problem not_the_founder."""
    if not identity.founder:
        raise Problem(
            409,
            "not_the_founder",
            "this node does not hold the mesh's CA key, so it can't enrol others",
            "run `cortex-node invite` on the machine that founded the mesh",
        )
    return read_seed(identity.home.ca_key)


def require_vacant(home: Home) -> None:
    """Raise Problem home_exists or home_partial when anything is there that a new identity would replace.

    Also home_unwritable: who is about to use up an invitation had better know.
    """
    present = _present(home)
    if home.certificate in present:
        raise Problem(
            409,
            "home_exists",
            f"{home.path} is already the home of a node; nothing was changed",
            "use it as it is, or give another directory with --home",
        )
    if present:
        raise Problem(
            409,
            "home_partial",
            f"{home.path} holds {', '.join(path.name for path in present)} but no {home.certificate.name}; "
            "nothing was changed",
            "restore what is missing; or, when nothing in it is to be kept, remove these files; or give another --home",
        )
    folder = next(folder for folder in (home.path, *home.path.absolute().parents) if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise unwritable(home.path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def create(
    home: Home,
    seed: bytes,
    certificate: bytes,
    ca: bytes,
    ca_seed: bytes | None = None,
    database: Callable[[Identity, Path], None] | None = None,
) -> Identity:
    """Make `home` that of a new node: its keys, certificates (DER) and a fresh token. `ca_seed`: the founder's only.

    `database` writes the node's database at the path that it is given, durably.
    Raises Problem: home_exists, home_partial, home_busy, home_unreadable, home_unwritable. Whatever goes wrong, what
    was there before is as it was, and nothing new is left.
    """
    identity = _identity(home, seed, certificate, ca, ca_seed)
    contents: dict[Path, bytes | Callable[[Path], None]] = {
        **({home.database: partial(database, identity)} if database else {}),
        home.token: secrets.token_urlsafe(TOKEN_BYTES).encode() + b"\n",
        home.ca_certificate: _to_pem(_CERTIFICATE_LABEL, ca),
        **({home.ca_key: seed_pem(ca_seed)} if ca_seed else {}),
        home.key: seed_pem(seed),
        home.certificate: _to_pem(_CERTIFICATE_LABEL, certificate),  # last: now it is a home
    }
    made = [folder for folder in (home.path, *home.path.absolute().parents) if not folder.exists()]
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(home.path):
            require_vacant(home)
            _write_all(home.path, contents)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # somebody else has put something there, or it was never made
                folder.rmdir()
        if isinstance(error, OSError):
            raise unwritable(home.path, error) from error
        raise
    return identity


def read_secret(path: Path) -> bytes:
    """A file that only its owner may read. Raises Problem: secret_exposed, home_damaged, home_unreadable."""
    content = read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Problem(
            403,
            "secret_exposed",
            f"{path} is open to others (mode {mode:04o})",
            f"run `chmod 600 {path}`; when somebody else may have read it, start with a new home instead",
        )
    return content


def read(path: Path) -> bytes:
    """A small file of the home. Raises Problem: home_damaged when it is missing or too large, home_unreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_FILE_BYTES:
        raise _damaged(path, f"is larger than {MAX_FILE_BYTES} bytes")
    return content


def read_seed(path: Path) -> bytes:
    """The key in a file that only its owner may read. Raises Problem as `read_secret` does."""
    der = _pem_of(path, _KEY_LABEL, read_secret(path))
    if len(der) != len(_PKCS8) + SEED_BYTES or not der.startswith(_PKCS8):
        raise _damaged(path, "is not a plain Ed25519 key (PKCS #8, RFC 8410)")
    return der[len(_PKCS8) :]


def seed_pem(seed: bytes) -> bytes:
    """What `read_seed` reads."""
    return _to_pem(_KEY_LABEL, _PKCS8 + seed)


def write_private(path: Path, content: bytes) -> None:
    """A new file, 0600 before it has content, durable but for its name: `sync_folder`. Raises OSError."""
    path.unlink(missing_ok=True)  # what a process that was killed left
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> Problem:
    """The problem home_unwritable: what to do when a file of the home could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Problem(
        507 if full else 403,
        "home_unwritable",
        f"{path} can't be written: {error.strerror or error}; nothing was changed",
        "free some space and try again" if full else "give a directory that you may write, with --home",
    )


def _present(home: Home) -> list[Path]:
    """Which files of a node are there: what `create` makes, and the database."""
    parts = (home.certificate, home.key, home.ca_certificate, home.ca_key, home.token, home.database)
    try:
        return [path for path in parts if path.exists()]
    except OSError as error:
        raise _unreadable(home.path, error) from error


def _identity(home: Home, seed: bytes, certificate: bytes, ca: bytes, ca_seed: bytes | None) -> Identity:
    """Raises Problem home_damaged when the certificates are not for these keys."""
    node_key, secret_key = key_pair(seed)
    pairs = [(home.key, node_key, home.certificate, certificate)]
    if ca_seed is not None:
        pairs.append((home.ca_key, key_pair(ca_seed)[0], home.ca_certificate, ca))
    for key_path, key, certificate_path, der in pairs:
        try:
            certified = public_key_of(der)
        except ValueError as error:
            raise _damaged(certificate_path, f"holds {error}") from None
        if certified != key:
            raise _damaged(certificate_path, f"is for another key than {key_path.name}")
    return Identity(home, node_key, secret_key, certificate, ca, ca_seed is not None)


def _damaged(path: Path, what: str) -> Problem:
    return Problem(
        500,
        "home_damaged",
        f"{path} {what}",
        "restore the whole home from a backup, or start with a new one: `cortex-node --home DIR join CODE`",
    )


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        403,
        "home_unreadable",
        f"{path} can't be read: {error.strerror}",
        "run as the user whom the node belongs to",
    )


def _to_pem(label: str, der: bytes) -> bytes:
    """RFC 7468: 64 characters a line."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _pem_of(path: Path, label: str, content: bytes) -> bytes:
    """The DER in `content`, which holds exactly one PEM block with this label."""
    lines = content.split()
    head, tail = f"-----BEGIN {label}-----".encode().split(), f"-----END {label}-----".encode().split()
    if lines[: len(head)] != head or lines[-len(tail) :] != tail:
        raise _damaged(path, f"does not hold one PEM block of {label}")
    try:
        return base64.b64decode(b"".join(lines[len(head) : -len(tail)]), validate=True)
    except binascii.Error as error:
        raise _damaged(path, f"is not valid PEM ({error})") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second `init` or `join` out of `folder`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                409, "home_busy", f"another `init` or `join` is writing {folder}", "wait until it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _write_all(folder: Path, contents: Mapping[Path, bytes | Callable[[Path], None]]) -> None:
    """Write every file, or have it written, beside its place, then move them there in order; after a failure none of
    them is there.
    """
    staged = {path: path.with_name(f".{path.name}.new") for path in contents}
    placed: list[Path] = []
    try:
        for path, content in contents.items():
            if isinstance(content, bytes):
                write_private(staged[path], content)
            else:
                content(staged[path])
        for path, beside in staged.items():
            beside.replace(path)
            placed.append(path)
        sync_folder(folder)
    except BaseException:
        for path in (*staged.values(), *placed):
            path.unlink(missing_ok=True)
        raise
