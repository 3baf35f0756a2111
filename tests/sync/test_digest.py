"""Equal knowledge, equal digest; anything else, another one."""

from hypothesis import given
from hypothesis import strategies as st

from sync import digest

vectors = st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(1, 2**62 - 1), max_size=5)
roots = st.binary(min_size=16, max_size=16)
names = st.text(min_size=1, max_size=20)


@given(names, vectors, roots, names, vectors, roots)
def test_digests_are_equal_exactly_when_name_vector_and_root_are(n, v, r, n2, v2, r2) -> None:
    same = (n, v, r) == (n2, v2, r2)
    assert (digest.of_project(n, v, r) == digest.of_project(n2, v2, r2)) == same
    assert digest.of_project(n, v, r) == digest.of_project(n, dict(reversed(v.items())), r)


@given(names, vectors, roots, roots)
def test_a_root_alone_makes_a_difference(name, vector, root, other) -> None:
    assert (digest.of_project(name, vector, root) == digest.of_project(name, vector, other)) == (root == other)


@given(st.lists(st.binary(min_size=16, max_size=16), unique=True), st.randoms())
def test_the_order_of_projects_does_not_matter(digests, rng) -> None:
    shuffled = list(digests)
    rng.shuffle(shuffled)
    whole = digest.of_all(digests)
    assert whole == digest.of_all(shuffled)
    assert len(whole) == digest.DIGEST_BYTES
    assert all(whole != digest.of_all([d for d in digests if d != gone]) for gone in digests)


def test_pinned_bytes() -> None:
    one = digest.of_project("factory-7", {bytes(16): 3}, bytes(16))
    assert (one.hex(), digest.of_all([one]).hex()) == PINNED


PINNED = ("982464b816785a53cc97471054911d02", "cfac21dc8144c4825bf9b35302739343")
