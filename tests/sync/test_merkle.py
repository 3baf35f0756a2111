"""Laws of the tree: order-free, fold = direct, removing undoes adding, no depth changes the root."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sync import merkle

digests = st.lists(st.binary(min_size=32, max_size=32), unique=True, max_size=60)
depths = st.sampled_from(merkle.BITS)
sums = st.integers(0, 2**64 - 1)


def total(tree: dict[int, merkle.Leaf]) -> merkle.Leaf:
    held, count = merkle.EMPTY
    for more, number in tree.values():
        held, count = merkle.add(held, more), count + number
    return held, count


def test_a_leaf_is_the_first_bits_of_the_hash_and_the_fingerprint_its_second_eight_bytes() -> None:
    digest = bytes.fromhex("abcd") + bytes(6) + bytes(range(1, 9)) + bytes(16)
    assert [merkle.leaf_of(digest, bits) for bits in (0, 4, 8, 12, 16)] == [0, 0xA, 0xAB, 0xABC, 0xABCD]
    assert merkle.fingerprint(digest) == 0x0102030405060708


@given(digests, depths, st.randoms())
def test_the_order_of_ops_does_not_matter(hashes: list[bytes], bits: int, rng: Random) -> None:
    shuffled = list(hashes)
    rng.shuffle(shuffled)
    assert merkle.leaves(hashes, bits) == merkle.leaves(shuffled, bits)


@given(digests, digests, depths)
def test_sums_of_two_sets_add_up(left: list[bytes], right: list[bytes], bits: int) -> None:
    added: dict[int, merkle.Leaf] = merkle.leaves(left, bits)
    for place, (held, count) in merkle.leaves(right, bits).items():
        before, number = added.get(place, merkle.EMPTY)
        added[place] = merkle.add(before, held), number + count
    assert added == merkle.leaves([*left, *right], bits)


@given(digests)
def test_folding_is_the_same_as_building_the_smaller_tree(hashes: list[bytes]) -> None:
    for bits in merkle.BITS:
        for to_bits in range(bits + 1):
            assert merkle.fold(merkle.leaves(hashes, bits), bits, to_bits) == merkle.leaves(hashes, to_bits)


@given(digests, depths)
def test_a_node_is_the_sum_of_its_children(hashes: list[bytes], bits: int) -> None:
    tree = merkle.leaves(hashes, bits)
    for depth in range(bits // merkle.FAN_OUT_BITS):
        below = merkle.level(tree, bits, depth + 1)
        for node, sums in merkle.level(tree, bits, depth).items():
            assert total({child: below.get(child, merkle.EMPTY) for child in merkle.children(node)}) == sums
    assert merkle.level(tree, bits, bits // merkle.FAN_OUT_BITS) == tree


@given(digests)
def test_the_root_does_not_depend_on_the_depth(hashes: list[bytes]) -> None:
    roots = {merkle.root(*total(merkle.leaves(hashes, bits))) for bits in merkle.BITS}
    assert len(roots) == 1
    assert all(len(root) == merkle.ROOT_BYTES for root in roots)


@given(digests, st.binary(min_size=32, max_size=32))
def test_one_op_more_changes_the_root(hashes: list[bytes], more: bytes) -> None:
    """Also one whose fingerprint is 0: the root counts ops too."""
    before = total(merkle.leaves(hashes, 8))
    after = total(merkle.leaves([*hashes, more], 8))
    assert merkle.root(*before) != merkle.root(*after)


@given(sums, sums)
def test_subtracting_undoes_adding(left: int, right: int) -> None:
    assert merkle.subtract(merkle.add(left, right), right) == left
    assert 0 <= merkle.add(left, right) < 2**64
    assert merkle.add(left, right) == merkle.add(right, left)


@given(sums)
def test_sqlite_can_hold_every_sum(value: int) -> None:
    signed = merkle.to_signed(value)
    assert -(2**63) <= signed < 2**63
    assert merkle.from_signed(signed) == value


def test_a_tree_grows_in_whole_levels_and_never_shrinks_as_ops_come() -> None:
    counts = [0, 2048, 2049, 32_768, 32_769, 10**7]
    assert [merkle.bits_for(count) for count in counts] == [8, 8, 12, 12, 16, 16]
    assert all(bits % merkle.FAN_OUT_BITS == 0 for bits in merkle.BITS)


def test_pinned_roots() -> None:
    """Bytes on the wire: a change here is a change of the protocol."""
    assert merkle.EMPTY_ROOT.hex() == PINNED_EMPTY
    assert merkle.root(1, 1).hex() == PINNED_ONE


PINNED_EMPTY = "2e10163a159542a80ca6196851811634"
PINNED_ONE = "692b6688e8340f2916c1ab98bf9a91fd"
