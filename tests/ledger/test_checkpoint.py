"""Checkpoints: signed and opened, and forks told apart from everything that is none."""

from base64 import b64encode
from collections.abc import Sequence

import pytest

from ledger import checkpoint, note, tlog
from ledger.checkpoint import Checkpoint, Fork, ForkError, Opened, Standing
from ledger.note import Algorithm, BadNote, Note, Signer
from ledger.tlog import BadProof, Frontier, Node
from tests.ledger.world import key, secret

LEDGER = bytes(range(32))
ORIGIN = checkpoint.origin_of(LEDGER)
HUBS = checkpoint.hub_keys(LEDGER, [key("hub"), key("hub 2")])
WITNESS = Signer("example.org/witness", secret("witness"), Algorithm.COSIGNATURE)


class History(dict[Node, bytes]):
    """A log as one hub tells it."""

    def __init__(self, entries: Sequence[str]) -> None:
        super().__init__(tlog.extend(Frontier(), [tlog.leaf_hash(entry.encode()) for entry in entries])[1])

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return [self[node] for node in nodes]

    def at(self, size: int, hub: str = "hub") -> Opened:
        said = Checkpoint(ORIGIN, size, tlog.root(size, self))
        raw = checkpoint.sign_checkpoint(said, [checkpoint.hub_signer(LEDGER, secret(hub))])
        return checkpoint.open_checkpoint(raw, ORIGIN, HUBS, [WITNESS.verifier])


TOLD = History([f"entry {at}" for at in range(20)])
OTHER = History([f"entry {at}" if at != 3 else "another" for at in range(20)])


def test_a_checkpoint_comes_back() -> None:
    opened = TOLD.at(7)
    assert opened.checkpoint == Checkpoint(ORIGIN, 7, tlog.root(7, TOLD))
    assert [one.key for one in opened.hubs] == [HUBS[0]] and not opened.witnesses
    assert opened.raw.startswith(f"cortex-node/ledger/{LEDGER.hex()}\n7\n".encode())


def test_a_witness_cosigns() -> None:
    raw = checkpoint.cosign(TOLD.at(7), WITNESS, 1_700_000_000)
    opened = checkpoint.open_checkpoint(raw, ORIGIN, HUBS, [WITNESS.verifier])
    assert [(one.key, one.time_s) for one in opened.witnesses] == [(WITNESS.verifier, 1_700_000_000)]
    with pytest.raises(BadNote, match="no hub"):
        checkpoint.open_checkpoint(raw, ORIGIN, HUBS[1:], [WITNESS.verifier])


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(BadNote, match="not of"):
        checkpoint.open_checkpoint(TOLD.at(7).raw, checkpoint.origin_of(bytes(32)), HUBS)


ROOT = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ORIGIN}\n07\n{ROOT}\n",
        f"{ORIGIN}\n-7\n{ROOT}\n",
        f"{ORIGIN}\n7\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n7\n{ROOT}\nextension\n",
        f"\n7\n{ROOT}\n",
        f"{ORIGIN}\n9999999999999999999\n{ROOT}\n",
        f"{ORIGIN}\n٧\n{ROOT}\n",
        f"{ORIGIN}\n7\n{ROOT[:42]}B=\n",
    ],
)
def test_other_texts_are_no_checkpoints(text: str) -> None:
    with pytest.raises(BadNote):
        checkpoint.parse_text(text)
    signed = note.sign(Note(text or "\n"), checkpoint.hub_signer(LEDGER, secret("hub")))
    with pytest.raises(BadNote):
        checkpoint.open_checkpoint(bytes(signed), ORIGIN, HUBS)


def test_standings() -> None:
    proof = tlog.prove_consistency(5, 9, TOLD)
    assert checkpoint.compare(TOLD.at(5), TOLD.at(5, "hub 2")) is Standing.SAME
    assert checkpoint.compare(TOLD.at(5), TOLD.at(9), proof) is Standing.NEWER
    assert checkpoint.compare(TOLD.at(9), TOLD.at(5), proof) is Standing.OLDER
    assert checkpoint.compare(TOLD.at(9), TOLD.at(5)) is Standing.OLDER
    assert checkpoint.compare(TOLD.at(5), TOLD.at(9)) is Standing.UNPROVEN


@pytest.mark.parametrize("proof", [[], [bytes(32)], tlog.prove_consistency(6, 9, TOLD), [b"short"]])
def test_a_useless_proof_convicts_nobody(proof: list[bytes]) -> None:
    assert checkpoint.compare(TOLD.at(5), TOLD.at(9), proof) is Standing.UNPROVEN
    assert checkpoint.compare(OTHER.at(5), TOLD.at(9), proof) is Standing.UNPROVEN


def convicted(known: Opened, seen: Opened, proof: Sequence[bytes] | None = None, root_then: bytes = b"") -> Fork:
    with pytest.raises(ForkError) as raised:
        checkpoint.compare(known, seen, proof, root_then)
    return raised.value.fork


def test_two_roots_of_one_size_are_a_fork() -> None:
    fork = convicted(TOLD.at(5), OTHER.at(5, "hub 2"))
    assert checkpoint.check_fork(fork, ORIGIN, HUBS) == (TOLD.at(5).checkpoint, OTHER.at(5).checkpoint)


@pytest.mark.parametrize("old", [5, 6, 7, 9, 19])
def test_a_proof_to_the_newer_root_from_another_older_one_is_a_fork(old: int) -> None:
    proof = tlog.prove_consistency(old, 20, OTHER)
    fork = convicted(TOLD.at(old), OTHER.at(20), proof)
    assert fork == convicted(OTHER.at(20), TOLD.at(old), proof)
    assert fork.root_then == tlog.root(old, OTHER)
    assert checkpoint.check_fork(fork, ORIGIN, HUBS) == (TOLD.at(old).checkpoint, OTHER.at(20).checkpoint)


@pytest.mark.parametrize("old", [4, 8, 16])
def test_at_a_power_of_two_the_root_then_is_needed(old: int) -> None:
    proof = tlog.prove_consistency(old, 20, OTHER)
    assert checkpoint.compare(TOLD.at(old), OTHER.at(20), proof) is Standing.UNPROVEN
    fork = convicted(TOLD.at(old), OTHER.at(20), proof, tlog.root(old, OTHER))
    assert checkpoint.check_fork(fork, ORIGIN, HUBS) == (TOLD.at(old).checkpoint, OTHER.at(20).checkpoint)


def test_a_root_then_that_is_made_up_convicts_nobody() -> None:
    proof = tlog.prove_consistency(8, 20, TOLD)
    assert checkpoint.compare(TOLD.at(8), TOLD.at(20), proof, tlog.root(8, OTHER)) is Standing.UNPROVEN


def test_evidence_that_shows_no_fork_is_refused() -> None:
    fork = convicted(TOLD.at(5), OTHER.at(20), tlog.prove_consistency(5, 20, OTHER))
    honest = TOLD.at(5).raw, TOLD.at(20).raw
    for wrong in (
        Fork(*honest, tuple(tlog.prove_consistency(5, 20, TOLD))),
        Fork(fork.older, fork.newer),
        Fork(fork.older, fork.newer, fork.proof[1:]),
        Fork(*honest, fork.proof, fork.root_then),
        Fork(fork.older, fork.older),
    ):
        with pytest.raises(BadProof):
            checkpoint.check_fork(wrong, ORIGIN, HUBS)
    with pytest.raises(BadNote):
        checkpoint.check_fork(fork, ORIGIN, checkpoint.hub_keys(LEDGER, [key("stranger")]))


def test_two_logs_are_not_compared() -> None:
    elsewhere = Checkpoint("elsewhere", 5, bytes(32))
    with pytest.raises(ValueError, match="two logs"):
        checkpoint.compare(TOLD.at(5), Opened(elsewhere, b"", (), ()))


def test_of_each_span_the_last_checkpoint_stays() -> None:
    sizes = list(range(10, 3_000, 10))
    kept = set(sizes) - set(checkpoint.superfluous(sizes, newest=5))
    assert {990, 1990, 2990, 2950} <= kept and 980 not in kept
    assert all(any(start <= size < start + 1_000 for size in kept) for start in (0, 1_000, 2_000))
    assert not checkpoint.superfluous(sizes[:100])
