"""What users may ask about votes and agents: REST, the command line and MCP all come through here.

The shapes are those of the API; `check_*` turns them into what is done, or raises a `Problem` that names the field.
Bytes are hexadecimal; `time` is in milliseconds since 1970 UTC, because it is signed. Tests:
tests/node/voting/test_requests.py.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ledger.ed25519 import KEY_BYTES, SIGNATURE_BYTES
from ledger.entry import MAX_NUMBER
from ledger.vote import DOWN, HASH_BYTES, MAX_COUNTER, MAX_TIME_MS, UP, WITHDRAWN
from node.errors import Problem
from node.requests import check_text, check_word
from node.voting.records import MAX_ABOUT_BYTES, MAX_NAME_BYTES, MAX_REASON_BYTES

VALUES: Final = {UP: "up", WITHDRAWN: "withdraw", DOWN: "down"}


class NewVote(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A vote on the version of a fact that is shown, or on `version`: 1 up, -1 down, 0 withdrawn.

    By an agent of this node: `value`, and `agent` or nobody for this machine's default. Signed elsewhere (see
    ledger/FORMAT.md): all of `agent_key`, `version`, `counter`, `value`, `time`, `signature`, and `reason` if there is
    one. As clients of the earlier system send it: `vote` and `agent_id`, an agent of this node that is made when it is
    not there yet.
    """

    value: int | None = None
    agent: str | None = None
    reason: str | None = None
    version: str | None = None
    agent_key: str | None = None
    counter: int | None = None
    time: int | None = None
    signature: str | None = None
    vote: int | None = None
    agent_id: str | int | None = None


class NewAgent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """An agent to be enrolled by this node. With `key` it holds its key itself.

    Then the answer is what is to be signed, and the same request with that `time` and the `signature` enrols it.
    """

    name: str
    about: str | None = None
    key: str | None = None
    time: int | None = None
    signature: str | None = None


class NewKey(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A new key for an agent. Empty for one whose key is on this node.

    An agent that holds its key itself gives the new `key`, is told what is to be signed, and sends it again with that
    `time`, the `signature` of the new key, and the `former_signature` of the one that it has.
    """

    key: str | None = None
    time: int | None = None
    signature: str | None = None
    former_signature: str | None = None


class AgentEnd(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The end of an agent. `void_from`: the ledger's index from which its earlier votes are void, too."""

    void_from: int | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """The fields of a vote that was signed elsewhere."""

    agent: bytes
    counter: int
    time_ms: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A vote as it is wanted. `agent`: its name or key, None for the default; `make`: enrol it when it is not there."""

    value: int
    reason: str
    version: bytes | None
    agent: str | None
    make: bool = False
    signed: Signed | None = None


def check_vote(request: NewVote) -> Wanted:
    """Raises Problem."""
    reason = check_text(request.reason or "", "reason", MAX_REASON_BYTES)
    version = None if request.version is None else check_version(request.version)
    if request.vote is not None or request.agent_id is not None:
        return _old_vote(request, reason, version)
    value = _value(request.value, "value")
    outside = (request.agent_key, request.version, request.counter, request.time, request.signature)
    if request.agent_key is None and request.signature is None:
        if stray := [name for name in ("counter", "time") if getattr(request, name) is not None]:
            raise _bad(stray[0], f"{stray[0]} is for votes that were signed elsewhere", "leave it out, or sign")
        agent = None if request.agent is None else check_word(request.agent, "agent")
        return Wanted(value, reason, version, agent)
    if request.agent is not None:
        raise _bad("agent", "a signed vote names its agent by agent_key", "leave agent out")
    names = ("agent_key", "version", "counter", "time", "signature")
    for name, given in zip(names, outside, strict=True):
        if given is None:
            raise _bad(name, f"a vote that was signed elsewhere needs {name}", "see ledger/FORMAT.md")
    signed = Signed(
        _bytes(request.agent_key or "", "agent_key", KEY_BYTES),
        _number(request.counter or 0, "counter", 1, MAX_COUNTER),
        _number(request.time or 0, "time", 0, MAX_TIME_MS),
        _bytes(request.signature or "", "signature", SIGNATURE_BYTES),
    )
    return Wanted(value, reason, version, None, signed=signed)


def check_agent(request: NewAgent) -> tuple[str, str | None]:
    """The name, and what it says of itself. Raises Problem."""
    about = None if request.about is None else check_text(request.about, "about", MAX_ABOUT_BYTES)
    return check_word(request.name, "name", MAX_NAME_BYTES), about


def check_key(key: str, field: str = "key") -> bytes:
    """Raises Problem."""
    return _bytes(key, field, KEY_BYTES)


def check_version(version: str) -> bytes:
    """Raises Problem."""
    return _bytes(version, "version", HASH_BYTES)


def check_time(time: int | None) -> int | None:
    """Raises Problem."""
    return None if time is None else _number(time, "time", 0, MAX_TIME_MS)


def check_signature(signature: str | None, field: str = "signature") -> bytes | None:
    """Raises Problem."""
    return None if signature is None else _bytes(signature, field, SIGNATURE_BYTES)


def check_end(request: AgentEnd) -> int | None:
    """Raises Problem."""
    return None if request.void_from is None else _number(request.void_from, "void_from", 0, MAX_NUMBER)


def _old_vote(request: NewVote, reason: str, version: bytes | None) -> Wanted:
    if request.value is not None or request.agent is not None or request.agent_key is not None:
        raise _bad("vote", "two kinds of vote in one request", "give value and agent, or vote and agent_id")
    if request.agent_id is None:
        raise _bad("agent_id", "agent_id is missing", "say whose vote it is")
    value = _value(request.vote, "vote")
    return Wanted(value, reason, version, check_word(str(request.agent_id), "agent_id", MAX_NAME_BYTES), make=True)


def _value(given: Any, field: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given not in VALUES:
        said = "is missing" if given is None else f"is {msgspec.json.encode(given).decode()[:80]}"
        raise _bad(field, f"{field} {said}", "give 1 for up, -1 for down, 0 to withdraw")
    return given


def _number(given: int, field: str, low: int, high: int) -> int:
    if not low <= given <= high:
        raise _bad(field, f"{field} is {given}", f"give a whole number from {low} to {high}")
    return given


def _bytes(given: str, field: str, count: int) -> bytes:
    try:
        raw = bytes.fromhex(given)
    except ValueError:
        raw = b""
    if len(raw) != count or len(given) != 2 * count:
        raise _bad(field, f"{field} is not {count} bytes in hexadecimal", f"give {2 * count} digits")
    return raw


def _bad(field: str, detail: str, action: str) -> Problem:
    return Problem(422, f"invalid_{field}", detail, action, field)
