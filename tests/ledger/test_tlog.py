"""The tree against its definition: all trees of 0..64 entries, every proof, every flipped bit, published roots."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import tlog
from ledger.tlog import BadProof, Frontier, Node
from tests.ledger.world import flips

# The leaves and roots that Certificate Transparency's implementations are tested with (trees of 1..8 leaves).
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = """
    6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
    fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
    aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
    d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
    4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
    76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
    ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
    5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328
""".split()
LARGEST = 64


class Table(dict[Node, bytes]):
    """Stored hashes, and how many reads there were."""

    reads = 0

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        self.reads += 1
        return [self[node] for node in nodes]


def grown(leaves: Sequence[bytes]) -> tuple[Frontier, Table]:
    frontier, stored = tlog.extend(Frontier(), map(tlog.leaf_hash, leaves))
    return frontier, Table(stored)


ENTRIES = [f"entry {at}".encode() for at in range(LARGEST)]
FRONTIER, TABLE = grown(ENTRIES)
LEAVES = [tlog.leaf_hash(entry) for entry in ENTRIES]


@cache
def defined_root(low: int, high: int) -> bytes:
    """RFC 6962 section 2.1, read aloud."""
    if low == high:
        return sha256(b"").digest()
    if high - low == 1:
        return sha256(b"\0" + ENTRIES[low]).digest()
    split = 1
    while split * 2 < high - low:
        split *= 2
    return sha256(b"\1" + defined_root(low, low + split) + defined_root(low + split, high)).digest()


def defined_path(index: int, low: int, high: int) -> list[bytes]:
    """RFC 6962 section 2.1.1, read aloud."""
    if high - low == 1:
        return []
    split = 1
    while split * 2 < high - low:
        split *= 2
    if index < low + split:
        return [*defined_path(index, low, low + split), defined_root(low + split, high)]
    return [*defined_path(index, low + split, high), defined_root(low, low + split)]


def defined_growth(old: int, low: int, high: int, whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2, read aloud. `old` counts from `low`."""
    if old == high - low:
        return [] if whole else [defined_root(low, high)]
    split = 1
    while split * 2 < high - low:
        split *= 2
    if old <= split:
        return [*defined_growth(old, low, low + split, whole), defined_root(low + split, high)]
    return [*defined_growth(old - split, low + split, high, False), defined_root(low, low + split)]


ROOTS = [defined_root(0, size) for size in range(LARGEST + 1)]


def test_published_roots() -> None:
    assert tlog.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for size, expected in enumerate(CT_ROOTS, 1):
        frontier, table = grown(CT_LEAVES[:size])
        assert tlog.frontier_root(frontier).hex() == expected
        assert tlog.root(size, table).hex() == expected


@pytest.mark.parametrize("size", range(LARGEST + 1))
def test_roots_are_as_defined(size: int) -> None:
    assert tlog.root(size, TABLE) == ROOTS[size]
    assert tlog.frontier_root(tlog.read_frontier(size, TABLE)) == ROOTS[size]


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_every_inclusion_proof(size: int) -> None:
    for index in range(size):
        proof = tlog.prove_inclusion(index, size, TABLE)
        assert proof == defined_path(index, 0, size)
        tlog.check_inclusion(proof, index, size, LEAVES[index], ROOTS[size])
        for other in {0, size - 1, index + 1, index - 1} - {index}:
            with pytest.raises(BadProof):
                tlog.check_inclusion(proof, other, size, LEAVES[index], ROOTS[size])


@pytest.mark.parametrize("new", range(LARGEST + 1))
def test_every_consistency_proof(new: int) -> None:
    for old in range(new + 1):
        proof = tlog.prove_consistency(old, new, TABLE)
        assert proof == (defined_growth(old, 0, new, True) if old else [])
        tlog.check_consistency(proof, old, ROOTS[old], new, ROOTS[new])
        for wrong_old, wrong_new in ((ROOTS[old - 1], ROOTS[new]), (ROOTS[old], ROOTS[new - 1])):
            if 0 < old < new:
                with pytest.raises(BadProof):
                    tlog.check_consistency(proof, old, wrong_old, new, wrong_new)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (4, 5), (2, 7), (6, 13), (63, 64), (40, 63)])
def test_every_flipped_bit_of_an_inclusion_proof_is_refused(index: int, size: int) -> None:
    proof = tlog.prove_inclusion(index, size, TABLE)

    def refused(path: Sequence[bytes], leaf: bytes, root: bytes) -> bool:
        with pytest.raises(BadProof):
            tlog.check_inclusion(path, index, size, leaf, root)
        return True

    assert all(refused(proof, leaf, ROOTS[size]) for leaf in flips(LEAVES[index]))
    assert all(refused(proof, LEAVES[index], root) for root in flips(ROOTS[size]))
    for at, value in enumerate(proof):
        assert all(refused([*proof[:at], bad, *proof[at + 1 :]], LEAVES[index], ROOTS[size]) for bad in flips(value))


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 4), (4, 7), (6, 8), (31, 64), (32, 64), (33, 63)])
def test_every_flipped_bit_of_a_consistency_proof_is_refused(old: int, new: int) -> None:
    proof = tlog.prove_consistency(old, new, TABLE)

    def refused(path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
        with pytest.raises(BadProof):
            tlog.check_consistency(path, old, old_root, new, new_root)
        return True

    assert all(refused(proof, root, ROOTS[new]) for root in flips(ROOTS[old]))
    assert all(refused(proof, ROOTS[old], root) for root in flips(ROOTS[new]))
    for at, value in enumerate(proof):
        assert all(refused([*proof[:at], bad, *proof[at + 1 :]], ROOTS[old], ROOTS[new]) for bad in flips(value))


@given(st.integers(1, LARGEST), st.data())
def test_a_proof_of_another_length_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = tlog.prove_inclusion(index, size, TABLE)
    for wrong in ([*proof, ROOTS[1]], [ROOTS[1], *proof], proof[:-1], proof[1:]):
        if wrong != proof:
            with pytest.raises(BadProof):
                tlog.check_inclusion(wrong, index, size, LEAVES[index], ROOTS[size])
    old = data.draw(st.integers(0, size))
    growth = tlog.prove_consistency(old, size, TABLE)
    for wrong in ([*growth, ROOTS[1]], [ROOTS[1], *growth], growth[:-1], growth[1:]):
        if wrong != growth:
            with pytest.raises(BadProof):
                tlog.check_consistency(wrong, old, ROOTS[old], size, ROOTS[size])


@pytest.mark.parametrize("proof", [[b""], [bytes(31)], [bytes(33)], [bytes(32)] * 100])
def test_what_is_no_list_of_hashes_is_refused(proof: list[bytes]) -> None:
    with pytest.raises(BadProof):
        tlog.check_inclusion(proof, 0, 2, LEAVES[0], ROOTS[2])
    with pytest.raises(BadProof):
        tlog.check_consistency(proof, 1, ROOTS[1], 2, ROOTS[2])


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (1, 1), (0, 0), (0, -1), (0, tlog.MAX_SIZE + 1)])
def test_a_place_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(BadProof):
        tlog.check_inclusion([], index, size, LEAVES[0], ROOTS[1])
    if size <= LARGEST:
        with pytest.raises(ValueError, match="no entry"):
            tlog.prove_inclusion(index, size, TABLE)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1), (1, tlog.MAX_SIZE + 1)])
def test_a_tree_does_not_shrink(old: int, new: int) -> None:
    with pytest.raises(BadProof):
        tlog.check_consistency([], old, ROOTS[1], new, ROOTS[1])
    if new <= LARGEST:
        with pytest.raises(ValueError, match="begin"):
            tlog.prove_consistency(old, new, TABLE)


@given(st.lists(st.integers(1, 20), max_size=6))
def test_growing_in_batches_is_growing_at_once(batches: list[int]) -> None:
    frontier, stored = Frontier(), Table()
    for batch in batches:
        start = frontier.size
        frontier, added = tlog.extend(frontier, LEAVES[start : start + batch])
        stored |= dict(added)
    assert frontier == tlog.read_frontier(frontier.size, TABLE)
    assert all(TABLE[node] == value for node, value in stored.items())
    assert len(frontier.hashes) == frontier.size.bit_count()
    assert len(stored) == 2 * frontier.size - frontier.size.bit_count()


def test_costs_are_logarithmic() -> None:
    """One read a proof, of at most 2 log2(size) hashes: what a million entries cost too."""
    for size in range(1, LARGEST + 1):
        table = Table(TABLE)
        proof = tlog.prove_inclusion(size // 2, size, table)
        assert table.reads == 1 and len(proof) <= (size - 1).bit_length()


def test_a_leaf_is_no_node() -> None:
    assert tlog.leaf_hash(LEAVES[0] + LEAVES[1]) != tlog.node_hash(LEAVES[0], LEAVES[1])


def test_a_missing_hash_is_an_error_not_a_proof() -> None:
    with pytest.raises(LookupError):
        tlog.prove_inclusion(3, LARGEST, Table({Node(0, 0): LEAVES[0]}))


def test_the_roots_that_a_proof_leads_to_tell_a_fork_from_a_bad_proof() -> None:
    forked = grown([*ENTRIES[:4], b"another", *ENTRIES[5:]])[1]
    proof = tlog.prove_consistency(6, 13, forked)
    assert tlog.rebuild_roots(proof, 6, 13, ROOTS[6]) == (tlog.root(6, forked), tlog.root(13, forked))
    assert tlog.rebuild_roots(proof, 6, 13, ROOTS[6]) != (ROOTS[6], ROOTS[13])
