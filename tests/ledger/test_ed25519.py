"""Ed25519 as the ledger uses it: the vectors of RFC 8032, and what is refused."""

import pytest

from ledger.ed25519 import is_signed, public_key, secret_key, sign
from tests.ledger.world import flips

# RFC 8032 section 7.1, tests 1 and 2: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_the_rfc(seed: str, public: str, message: str, signature: str) -> None:
    secret = secret_key(bytes.fromhex(seed))
    assert public_key(secret).hex() == public
    assert sign(secret, bytes.fromhex(message)).hex() == signature
    assert is_signed(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


def test_a_flipped_bit_is_refused() -> None:
    secret = secret_key(bytes(32))
    message, key = b"text", public_key(secret)
    signature = sign(secret, message)
    assert not any(is_signed(key, message, flipped) for flipped in flips(signature))
    assert not any(is_signed(key, flipped, signature) for flipped in flips(message))
    assert not any(is_signed(flipped, message, signature) for flipped in flips(key))


def test_a_second_signature_cannot_be_made_from_the_first() -> None:
    """S + L has the same effect in a lax implementation (RFC 8032 section 8.4); then one vote could have two names."""
    secret = secret_key(bytes(32))
    signature = sign(secret, b"text")
    order = (1 << 252) + 27742317777372353535851937790883648493
    twin = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert is_signed(public_key(secret), b"text", signature)
    assert not is_signed(public_key(secret), b"text", twin)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), b"\x01" + bytes(31), bytes(33)])
def test_what_is_no_key_has_signed_nothing(key: bytes) -> None:
    assert not is_signed(key, b"text", bytes(64))
    assert not is_signed(key, b"text", b"\x01" + bytes(63))


def test_lengths_are_checked() -> None:
    assert not is_signed(public_key(secret_key(bytes(32))), b"text", b"")
    with pytest.raises(ValueError, match="64 bytes"):
        public_key(bytes(32))
