"""Policies: which hubs a checkpoint must be signed by, and how many witnesses make it count (C2SP tlog-policy).

    log VKEY
    witness NAME VKEY
    group NAME K|any|all MEMBER...
    quorum NAME|none

A checkpoint counts when one of the logs signed it and the quorum of witnesses cosigned it. Nodes make such a file from
the grant and from the members that they know; an outsider is given it once, by a way that is trusted.
Tests: tests/ledger/test_policy.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.checkpoint import Opened, open_checkpoint
from ledger.note import Algorithm, BadNote, VerifierKey, parse_vkey

MAX_POLICY_BYTES: Final = 64 * 1024
MAX_LINES: Final = 256
"""The specification asks for 32 logs, 32 witnesses and 32 groups at least."""
NONE: Final = "none"


class BadPolicy(Exception):
    """A policy file that says nothing clear, and the line at fault."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`groups`: name -> (how many, of which witnesses and groups). `quorum`: a name in them, or "none"."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str = NONE

    @property
    def origin(self) -> str:
        """The log that it is about: all keys of one ledger have its origin as their name."""
        return self.logs[0].name

    def __str__(self) -> str:
        lines = [f"log {key}" for key in self.logs]
        lines += [f"witness {name} {key}" for name, key in self.witnesses.items()]
        lines += [f"group {name} {least} {' '.join(members)}" for name, (least, members) in self.groups.items()]
        return "\n".join([*lines, f"quorum {self.quorum}", ""])


def policy_of(logs: Sequence[VerifierKey], witnesses: Sequence[VerifierKey] = (), least: int = 0) -> Policy:
    """Any of these hubs, and at least so many of these witnesses."""
    if not least:
        return Policy(tuple(logs), {f"w{at}": key for at, key in enumerate(witnesses)})
    named = {f"w{at}": key for at, key in enumerate(witnesses)}
    if not 0 < least <= len(named):
        raise BadPolicy(f"{least} of {len(named)} witnesses")
    return Policy(tuple(logs), named, {"witnesses": (least, tuple(named))}, "witnesses")


def open_under(policy: Policy, raw: bytes) -> Opened:
    """The checkpoint in `raw`. Raises BadNote unless the policy lets it count."""
    opened = open_checkpoint(raw, policy.origin, policy.logs, policy.witnesses.values())
    if not cosigned(policy, opened):
        raise BadNote(f"cosigned by {len(opened.witnesses)} witnesses, too few for the policy's quorum")
    return opened


def cosigned(policy: Policy, opened: Opened) -> bool:
    """Whether the witnesses that signed are the policy's quorum."""
    there = {signature.key for signature in opened.witnesses}
    holds = {name: key in there for name, key in policy.witnesses.items()} | {NONE: True}
    for name, (least, members) in policy.groups.items():  # a group names only what stands before it
        holds[name] = sum(holds[member] for member in members) >= least
    return holds[policy.quorum]


def parse_policy(raw: bytes) -> Policy:
    """The policy in a file. Raises BadPolicy."""
    if len(raw) > MAX_POLICY_BYTES:
        raise BadPolicy(f"a policy of {len(raw)} bytes")
    try:
        lines = [words for line in raw.decode().split("\n") if (words := line.split()) and words[0][0] != "#"]
    except UnicodeDecodeError:
        raise BadPolicy("not UTF-8") from None
    logs: list[VerifierKey] = []
    witnesses: dict[str, VerifierKey] = {}
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str | None = None
    if len(lines) > MAX_LINES:
        raise BadPolicy(f"a policy of {len(lines)} lines")
    for words in lines:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                logs.append(_key(vkey, Algorithm.ED25519, logs))
            case ["witness", name, vkey] | ["witness", name, vkey, _] if name not in {*witnesses, *groups, NONE}:
                witnesses[name] = _key(vkey, Algorithm.COSIGNATURE, witnesses.values())
            case ["group", name, least, *members] if name not in {*witnesses, *groups, NONE}:
                groups[name] = _group(least, members, {*witnesses, *groups}, groups)
            case ["quorum", name] if quorum is None and name in {*witnesses, *groups, NONE}:
                quorum = name
            case _:
                raise BadPolicy(f"not a line of a policy: {' '.join(words)[:200]!r}")
    if quorum is None or not logs or len({key.name for key in logs}) != 1:
        raise BadPolicy("a policy names one ledger by the keys of its hubs, and one quorum")
    return Policy(tuple(logs), witnesses, groups, quorum)


def _key(vkey: str, algorithm: Algorithm, before: Iterable[VerifierKey]) -> VerifierKey:
    try:
        key = parse_vkey(vkey)
    except BadNote as error:
        raise BadPolicy(str(error)) from None
    if key.algorithm != algorithm or any(key.key == other.key for other in before):
        raise BadPolicy(f"a key of the wrong kind, or one that was named before: {vkey}")
    return key


def _group(
    least: str, members: Sequence[str], known: set[str], groups: Mapping[str, tuple[int, tuple[str, ...]]]
) -> tuple[int, tuple[str, ...]]:
    taken = {member for _, others in groups.values() for member in others}
    if not members or len(set(members)) != len(members) or not set(members) <= known - taken:
        raise BadPolicy(f"a group's members are known, and each is in one group: {' '.join(members)[:200]}")
    count = {"any": 1, "all": len(members)}.get(least) or (int(least) if least.isdecimal() and least.isascii() else 0)
    if not 0 < count <= len(members):
        raise BadPolicy(f"{least} of {len(members)} members")
    return count, tuple(members)
