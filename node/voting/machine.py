"""This node as it signs statements about agents: as their voice, and on the founder's machine as the authority.

Statements are made and sealed here, and nothing is written. What a statement needs besides is given: the secret of an
agent whose key is on this node, or the signature of one that holds its key itself. Times come from the caller. Tests:
tests/node/voting/test_machine.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crdt.version import node_id
from ledger import statement as statements
from ledger.ed25519 import public_key, sign
from ledger.entry import Kind
from ledger.statement import BadStatement, Enrolment, Revocation
from node.errors import Problem
from node.voting.roster import Known


@dataclass(frozen=True, slots=True)
class Machine:
    """This node in its `mesh` (32 bytes). `secret`: its own, of 64 bytes; `authority`: the key of the mesh's CA.

    `authority_secret` reads the CA's secret where it is, on the founder's machine.
    """

    mesh: bytes
    name: str
    secret: bytes = field(repr=False)
    authority: bytes
    authority_secret: Callable[[], bytes] | None = field(default=None, repr=False)

    @property
    def key(self) -> bytes:
        return public_key(self.secret)

    def enrolment(self, name: str, key: bytes, time_ms: int, former: Known | None = None) -> Enrolment:
        """That this node enrols `key`: a new agent, or the new key of one."""
        owner, replaces = (former.agent.owner, former.agent.key) if former else (False, b"")
        return Enrolment(self.mesh, key, name, self.key, owner, replaces, time_ms)

    def seal(self, said: Enrolment | Revocation, secrets: Sequence[bytes] = ()) -> bytes:
        """The text of a statement; `secrets` are those of agents. Raises Problem not_the_founder."""
        return statements.seal(said, self.authority, [*self._own_secrets(said), *secrets])

    def attach(self, said: Enrolment, signatures: Mapping[bytes, bytes]) -> bytes:
        """The text of an enrolment that agents signed elsewhere: key to signature. Raises Problem invalid_signature."""
        signed = statements.payload(said)
        by_key = {public_key(secret): sign(secret, signed) for secret in self._own_secrets(said)} | dict(signatures)
        text = signed + b"".join(by_key[key] for key in statements.signers(said, self.authority))
        try:
            statements.verify(Kind.ENROLMENT, text, self.authority)
        except BadStatement as error:
            raise Problem(
                422, "invalid_signature", f"the enrolment is {error}",
                "sign exactly the bytes of `to_sign`, and send them with the `time` that came with them", "signature",
            ) from None  # fmt: skip
        return text

    def end(self, known: Known, void_from: int | None, time_ms: int, *, again: bool = False) -> bytes:
        """The revocation of an agent, as its node or as the authority. Raises Problem not_your_agent, void_already.

        `again`: earlier votes of it are void already; that more of them are is the authority's to say.
        """
        if known.agent.voice == self.key and not again:
            by, secrets = self.key, []
        elif self.authority_secret is not None:
            by, secrets = self.authority, [self.authority_secret()]
        elif known.agent.voice == self.key:
            raise Problem(
                409, "void_already", f"votes of {known.name!r} were made void before; a node does so once",
                "revoke it with this void_from on the machine that founded the mesh", "void_from",
            )  # fmt: skip
        else:
            raise elsewhere(known, "revoke it there, or on the machine that founded the mesh")
        return self.seal(Revocation(self.mesh, known.agent.key, void_from, by, time_ms), secrets)

    def _own_secrets(self, said: Enrolment | Revocation) -> list[bytes]:
        if not (isinstance(said, Enrolment) and said.owner):
            return [self.secret]
        if self.authority_secret is None:
            raise Problem(
                409, "not_the_founder", "an owner's key is enrolled by the mesh's authority, which is not on this node",
                "do it on the machine that founded the mesh",
            )  # fmt: skip
        return [self.secret, self.authority_secret()]


def elsewhere(known: Known, action: str) -> Problem:
    """The agent is another node's, or holds its key itself: nobody signs for it here."""
    return Problem(
        403,
        "not_your_agent",
        f"the key of agent {known.name!r} is not on this node; it is an agent of node {node_id(known.agent.voice)}",
        action,
        "agent",
    )
