"""Signed notes: a text, and lines that sign it (C2SP signed-note, and cosignature/v1 of C2SP tlog-cosignature).

    text, ending in a newline
    (an empty line)
    — NAME BASE64(key id, 4 bytes + signature)

A key is named by a name and an id of four bytes, which is a hint: only a `VerifierKey` that the reader already has
decides. `open_note` skips signatures by keys that it does not know, as the specification wants, and refuses the note
when one by a known key is wrong or none is right.

Two kinds of key: ED25519 (0x01) signs the text; COSIGNATURE (0x04) is a witness's and signs the time with it. ML-DSA
cosignatures (0x06) are skipped like any unknown key. Published examples and flipped bits: tests/ledger/test_note.py.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from typing import Final, assert_never

from ledger.ed25519 import KEY_BYTES, is_signed, public_key
from ledger.ed25519 import sign as sign_bytes

MAX_NOTE_BYTES: Final = 64 * 1024
"""A checkpoint with MAX_SIGNATURES lines of the longest kind that this version makes has 20 KiB."""
MAX_SIGNATURES: Final = 64
"""The specification asks for 16 at least; a checkpoint here has some hubs' and at most 16 witnesses'."""
MAX_NAME_BYTES: Final = 256
KEY_ID_BYTES: Final = 4
TIME_BYTES: Final = 8
MAX_TIME_S: Final = (1 << 63) - 1
_DASH: Final = "— "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class BadNote(Exception):
    """A note that is malformed, or that no key which the reader knows has signed."""


class Algorithm(IntEnum):
    """The signature types of the specification that are read and made here."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who may sign: a name without spaces and plus signs, what its signatures cover, and the 32-byte key."""

    name: str
    algorithm: Algorithm
    key: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name) or len(self.key) != KEY_BYTES:
            raise BadNote(f"not the name and key of a signer: {self.name!r}")

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        """The vkey: NAME+ID+BASE64, as policies and other tools write it."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.algorithm]) + self.key).decode()}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs. `secret` is libsodium's 64 bytes."""

    name: str
    secret: bytes
    algorithm: Algorithm = Algorithm.ED25519

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.algorithm, public_key(self.secret))

    def __repr__(self) -> str:
        return f"Signer({self.name!r}, {self.algorithm!r})"


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below the text: as it came, checked by nobody."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signature lines. `str` gives back the bytes that it was read from."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def __str__(self) -> str:
        lines = "".join(
            f"{_DASH}{line.name} {b64encode(line.key_id + line.value).decode()}\n" for line in self.signatures
        )
        return f"{self.text}\n{lines}"

    def __bytes__(self) -> bytes:
        return str(self).encode()


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds. `time_s`: when a witness says that it signed (seconds since 1970 UTC); else None."""

    key: VerifierKey
    time_s: int | None


def parse_vkey(text: str) -> VerifierKey:
    """The key that a vkey names. Raises BadNote; also when its id does not fit, so that a typing error shows."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = from_base64(encoded)
    if not data or data[0] not in list(Algorithm):
        raise BadNote(f"a vkey of a kind that is not known here: {text!r}")
    key = VerifierKey(name, Algorithm(data[0]), data[1:])
    if str(key) != f"{name}+{key_id}+{encoded}":
        raise BadNote(f"the id in the vkey is not that of its key: {text!r}")
    return key


def sign(note: Note, signer: Signer, time_s: int | None = None) -> Note:
    """`note` with the signature of `signer`, in place of an earlier one by the same key. A witness needs the time."""
    message, stamp = note.text.encode(), b""
    if signer.algorithm == Algorithm.COSIGNATURE:
        if time_s is None or not 0 <= time_s <= MAX_TIME_S:
            raise ValueError("a cosignature says when")
        message, stamp = _cosigned(note.text, time_s), time_s.to_bytes(TIME_BYTES, "big")
    key = signer.verifier
    line = Signature(key.name, key.key_id, stamp + sign_bytes(signer.secret, message))
    return merge(note, replace(note, signatures=(line,)))


def merge(note: Note, other: Note) -> Note:
    """`note` with the lines of `other`, whose text must be the same; they replace lines by the same keys."""
    if note.text != other.text:
        raise ValueError("signatures of one text say nothing about another")
    newer = {(line.name, line.key_id) for line in other.signatures}
    kept = [line for line in note.signatures if (line.name, line.key_id) not in newer]
    return Note(note.text, (*kept, *other.signatures))


def parse(raw: bytes) -> Note:
    """The note in `raw`, checked for form and bounds, not for its signatures. Raises BadNote."""
    if len(raw) > MAX_NOTE_BYTES:
        raise BadNote(f"a note of {len(raw)} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadNote("not UTF-8") from None
    if _CONTROL.search(text):
        raise BadNote("a control character")
    end = text.rfind("\n\n")
    if end < 0 or not text.endswith("\n"):
        raise BadNote("no empty line between a text and its signatures")
    lines = text[end + 2 :].split("\n")[:-1]
    if not 0 < len(lines) <= MAX_SIGNATURES:
        raise BadNote(f"{len(lines)} signatures")
    return Note(text[: end + 1], tuple(map(_parse_line, lines)))


def open_note(raw: bytes, keys: Iterable[VerifierKey]) -> tuple[Note, Sequence[Verified]]:
    """The note in `raw`, and which of `keys` have signed it: at least one.

    Raises BadNote when it is malformed, when a signature by one of `keys` is wrong, and when none of them has signed.
    """
    note, known = parse(raw), {(key.name, key.key_id): key for key in keys}
    verified: dict[VerifierKey, Verified] = {}
    for line in note.signatures:
        if (key := known.get((line.name, line.key_id))) is None or key in verified:
            continue
        verified[key] = Verified(key, _check(note.text, key, line.value))
    if not verified:
        raise BadNote("signed by no key that is known here")
    return note, list(verified.values())


def _check(text: str, key: VerifierKey, value: bytes) -> int | None:
    """The time in a signature, None where its kind has none. Raises BadNote unless it is right."""
    match key.algorithm:
        case Algorithm.ED25519:
            time_s, right = None, is_signed(key.key, text.encode(), value)
        case Algorithm.COSIGNATURE:
            time_s = int.from_bytes(value[:TIME_BYTES], "big")
            right = time_s <= MAX_TIME_S and is_signed(key.key, _cosigned(text, time_s), value[TIME_BYTES:])
        case _:
            assert_never(key.algorithm)
    if not right:
        raise BadNote(f"the signature of {key.name} is wrong")
    return time_s


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _parse_line(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = from_base64(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or len(data) <= KEY_ID_BYTES:
        raise BadNote(f"not a signature line: {line[:80]!r}")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _is_name(name: str) -> bool:
    return 0 < len(name.encode()) <= MAX_NAME_BYTES and "+" not in name and name.split() == [name]


def from_base64(text: str) -> bytes:
    """Strictly: one text for one value, or flipped padding bits would go unseen. Empty when it is none."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if b64encode(data).decode() == text else b""
