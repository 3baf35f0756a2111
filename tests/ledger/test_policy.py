"""Policies: who must have signed, read and written as the specification does."""

import pytest

from ledger import checkpoint, policy
from ledger.checkpoint import Checkpoint
from ledger.note import Algorithm, BadNote, Signer
from ledger.policy import BadPolicy
from tests.ledger.world import key, secret

LEDGER = bytes(32)
LOGS = checkpoint.hub_keys(LEDGER, [key("hub"), key("hub 2")])
WITNESSES = [Signer(f"example.org/w{at}", secret(f"w{at}"), Algorithm.COSIGNATURE) for at in range(4)]
KEYS = [witness.verifier for witness in WITNESSES]


def signed(*witnesses: int, hub: str = "hub") -> bytes:
    said = Checkpoint(checkpoint.origin_of(LEDGER), 1, bytes(32))
    raw = checkpoint.sign_checkpoint(said, [checkpoint.hub_signer(LEDGER, secret(hub))])
    for at in witnesses:
        opened = checkpoint.open_checkpoint(raw, said.origin, [*LOGS, *checkpoint.hub_keys(LEDGER, [key(hub)])])
        raw = checkpoint.cosign(opened, WITNESSES[at], at)
    return raw


def counts(rule: policy.Policy, raw: bytes) -> bool:
    try:
        policy.open_under(rule, raw)
    except BadNote:
        return False
    return True


def test_so_many_witnesses() -> None:
    rule = policy.policy_of(LOGS, KEYS, 2)
    assert not counts(rule, signed()) and not counts(rule, signed(0))
    assert counts(rule, signed(0, 3)) and counts(rule, signed(0, 1, 2, 3, hub="hub 2"))
    assert not counts(rule, signed(0, 1, hub="stranger"))
    assert counts(policy.policy_of(LOGS, KEYS), signed())


def test_groups_of_groups() -> None:
    text = "\n".join(
        [
            "# a comment",
            f"log {LOGS[0]}  https://example.org/tlog",
            *(f"\twitness w{at} {vkey}" for at, vkey in enumerate(KEYS)),
            "group a 2 w0 w1",
            "group b any w2 w3",
            "",
            "group both all a b",
            "quorum both",
        ]
    )
    rule = policy.parse_policy(text.encode())
    assert counts(rule, signed(0, 1, 3)) and not counts(rule, signed(0, 2, 3)) and not counts(rule, signed(0, 1))


@pytest.mark.parametrize("least", [0, 1, 4])
def test_a_policy_comes_back(least: int) -> None:
    rule = policy.policy_of(LOGS, KEYS, least)
    assert policy.parse_policy(str(rule).encode()) == rule
    assert rule.origin == checkpoint.origin_of(LEDGER)


LOG, W0, W1 = f"log {LOGS[0]}", f"witness w0 {KEYS[0]}", f"witness w1 {KEYS[1]}"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [LOG],
        ["quorum none"],
        [LOG, "quorum w0"],
        [LOG, "quorum none", "quorum none"],
        [LOG, LOG, "quorum none"],
        [LOG, W0, W0, "quorum w0"],
        [LOG, W0, f"witness other {KEYS[0]}", "quorum w0"],
        [LOG, f"witness none {KEYS[0]}", "quorum none"],
        [LOG, f"witness w0 {LOGS[1]}", "quorum w0"],
        [f"log {KEYS[0]}", "quorum none"],
        [LOG, "group g any w0", W0, "quorum g"],
        [LOG, W0, "group g 2 w0", "quorum g"],
        [LOG, W0, "group g 0 w0", "quorum g"],
        [LOG, W0, "group g some w0", "quorum g"],
        [LOG, W0, "group g any w0 w0", "quorum g"],
        [LOG, W0, "group g any w0", "group h any w0", "quorum g"],
        [LOG, W0, "group g any", "quorum g"],
        [LOG, W0, W1, "group w1 any w0", "quorum w0"],
        [LOG, "log nonsense", "quorum none"],
        [LOG, "quorum none", "unknown line"],
        [LOG, f"log {checkpoint.hub_keys(bytes(31) + b'x', [key('hub 2')])[0]}", "quorum none"],
    ],
)
def test_policies_that_are_refused(lines: list[str]) -> None:
    with pytest.raises(BadPolicy):
        policy.parse_policy("\n".join(lines).encode())


@pytest.mark.parametrize("raw", [b"\xff", f"{LOG}\n".encode() * 300, b"x" * (policy.MAX_POLICY_BYTES + 1)])
def test_bytes_that_are_no_policy(raw: bytes) -> None:
    with pytest.raises(BadPolicy):
        policy.parse_policy(raw)


@pytest.mark.parametrize("least", [-1, 5])
def test_a_quorum_that_nobody_can_reach(least: int) -> None:
    with pytest.raises(BadPolicy):
        policy.policy_of(LOGS, KEYS, least)
