"""Ed25519 as the ledger uses it: sign, check, and the limits of what counts as a key.

`sign` is deterministic (RFC 8032), so equal texts by one key have equal signatures. `is_signed` refuses what libsodium
refuses: keys of small order and values of S that are not reduced. So nobody but the key's holder can make a second
signature of a text, and a text with its signature has one SHA-256.

Nothing here makes a key: a seed is an argument. Tests: tests/ledger/test_ed25519.py.
"""

from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SECRET_BYTES: Final = 64
SIGNATURE_BYTES: Final = crypto_sign_BYTES


def secret_key(seed: bytes) -> bytes:
    """libsodium's 64 bytes, seed and public key, from the 32-byte seed."""
    secret: bytes = crypto_sign_seed_keypair(seed)[1]
    return secret


def public_key(secret: bytes) -> bytes:
    """The 32-byte key that checks what `secret` (64 bytes) signs."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret key has {SECRET_BYTES} bytes, not {len(secret)}")
    return secret[SEED_BYTES:]


def sign(secret: bytes, message: bytes) -> bytes:
    """The 64-byte signature of `message`."""
    signed: bytes = crypto_sign(message, secret)
    return signed[:SIGNATURE_BYTES]


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is by `key` over `message`. About 60 microseconds; never raises on bytes from outside."""
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True
