"""Which projects two peers both carry, found without either telling the other names that only it carries.

What a node carries is a list of patterns: names (`factory-7`) and prefixes (`team/*`, `*`). Prefixes are told in the
clear. A name is not, not even hashed, since names can be guessed: it goes out as a point of a curve times a secret that
lasts one session. The peer multiplies it by a secret of its own and returns it. Both orders of multiplying give the
same point, so each side recognises the names that both listed, and of the others sees only how many there are. A name
that a prefix of the peer covers is then told as it is: both carry it.

Diffie-Hellman private set intersection: Meadows 1986; Huberman, Franklin and Hogg, "Enhancing privacy and trust in
electronic communities", EC 1999; the same idea in Willow's private interest overlap. A member may still list a name
that it guesses and see whether the peer has it, MAX_PATTERNS guesses a session.

What a certificate grants bounds all of it: before a session begins, what this node carries is narrowed to what both may
read (`narrowed`), so a name that the peer may not read is neither told, nor blinded, nor compared with its guesses.

Every method is called once, in this order: `offer`, `answer`, `conclude`. Tests: tests/sync/test_overlap.py.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from nacl.bindings import crypto_core_ed25519_from_uniform, crypto_scalarmult_ed25519
from nacl.exceptions import CryptoError

from tests.sync.frozen_v1.errors import ProtocolError, Reason
from tests.sync.frozen_v1.messages import MAX_PATTERNS

RESERVED: Final = "_mesh"
"""The project of members, grants and agents: every node carries it, and it goes first."""
ANYTHING: Final = "*"
SECRET_BITS: Final = 256


def covers(pattern: str, name: str) -> bool:
    """Whether `name` is carried by who carries `pattern`."""
    return name.startswith(pattern[:-1]) if pattern.endswith(ANYTHING) else pattern == name


def narrowed(patterns: Iterable[str], grants: Iterable[str]) -> tuple[str, ...]:
    """Patterns for what both `patterns` and `grants` cover. Each is one of them, so there are not many more."""
    grants = tuple(grants)
    pairs = [(pattern, grant) for pattern in patterns for grant in grants]
    return tuple(sorted({narrow for a, b in pairs for narrow, wide in ((a, b), (b, a)) if _within(narrow, wide)}))


def _within(narrow: str, wide: str) -> bool:
    """Whether the pattern `wide` covers all that `narrow` covers."""
    return narrow.removesuffix(ANYTHING).startswith(wide[:-1]) if wide.endswith(ANYTHING) else narrow == wide


def in_order(names: Iterable[str]) -> list[str]:
    """Projects in the order in which they are sent: the reserved one first, since it says who may write the others."""
    return sorted(names, key=lambda name: (name != RESERVED, name))


class Overlap:
    """What two peers both carry. `mesh`: 32 bytes; `secret`: SECRET_BITS of chance, of this session alone."""

    def __init__(self, patterns: Sequence[str], mesh: bytes, secret: int) -> None:
        self._prefixes = tuple(pattern for pattern in patterns if pattern.endswith(ANYTHING))
        self._names = tuple(sorted({pattern for pattern in patterns if not pattern.endswith(ANYTHING)}))
        if len(self._prefixes) > MAX_PATTERNS or len(self._names) > MAX_PATTERNS:
            raise ValueError(f"a node carries at most {MAX_PATTERNS} names and as many prefixes: use wider prefixes")
        self._mesh = mesh
        self._secret = secret.to_bytes(SECRET_BITS // 8, "little")
        self._their_prefixes: tuple[str, ...] = ()
        self._their_names: frozenset[str] = frozenset()
        self._their_points: frozenset[bytes] = frozenset()

    def offer(self) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
        """Our prefixes, and our names as points."""
        return self._prefixes, tuple(self._blind(_point(self._mesh, name)) for name in self._names)

    def answer(self, prefixes: tuple[str, ...], points: tuple[bytes, ...]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
        """To the peer's offer: the names of ours that its prefixes cover, and its points blinded again."""
        if not all(prefix.endswith(ANYTHING) for prefix in prefixes):
            raise ProtocolError(Reason.MALFORMED, "a prefix without its wildcard")
        self._their_prefixes = prefixes
        again = tuple(self._blind(point) for point in points)
        self._their_points = frozenset(again)
        return tuple(name for name in self._names if self._they_cover(name)), again

    def conclude(self, names: tuple[str, ...], points: tuple[bytes, ...]) -> None:
        """Take the peer's answer: its names that our prefixes cover, and our points blinded again."""
        if len(points) != len(self._names):
            raise ProtocolError(Reason.MALFORMED, f"{len(points)} points came back of {len(self._names)}")
        both = (name for name, point in zip(self._names, points, strict=True) if point in self._their_points)
        self._their_names = frozenset(names) | frozenset(both)

    def shared(self, name: str) -> bool:
        """Whether both carry the project `name`. Both sides give the same answer."""
        return name == RESERVED or (
            any(covers(pattern, name) for pattern in (*self._prefixes, *self._names))
            and (name in self._their_names or self._they_cover(name))
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """What both carry, as patterns: for a time when the peer is gone, and cannot be asked."""
        theirs = (*self._their_prefixes, *self._their_names, RESERVED)
        return narrowed((*self._prefixes, *self._names, RESERVED), theirs)

    def _they_cover(self, name: str) -> bool:
        return any(covers(prefix, name) for prefix in self._their_prefixes)

    def _blind(self, point: bytes) -> bytes:
        try:
            return crypto_scalarmult_ed25519(self._secret, point)
        except (CryptoError, RuntimeError):
            raise ProtocolError(Reason.MALFORMED, "not a point of the curve") from None


@lru_cache(maxsize=MAX_PATTERNS)
def _point(mesh: bytes, name: str) -> bytes:
    seed = blake2b(mesh + name.encode(), digest_size=32, person=b"cortex/overlap").digest()
    return crypto_core_ed25519_from_uniform(seed)
