"""What users do: facts created, updated, retracted, tagged, linked and edited, on real ops that are really signed."""

from random import Random

from nacl.bindings import crypto_sign_seed_keypair

from crdt import fact, text
from crdt.hlc import Clock
from crdt.op import PREV_BYTES, Header, Op, OpClass, seal
from crdt.orset import surviving_adds
from crdt.survive import clock_over, dots_of, in_register
from crdt.version import Dot, author_id
from sync.overlap import RESERVED
from tests.sim.disk import Disk

WORDS = "valve pump relay north south rain pressure shift night crew gauge bolt copper steam".split()
Draft = tuple[OpClass, str, str, str, bytes, tuple[tuple[bytes, int], ...]]
"""class, subject, field, kind, body, clock."""


class Writer:
    """One node's identity and its users. It writes what it would see, given its disk."""

    def __init__(self, name: str, mesh: bytes, rng: Random) -> None:
        self.name = name
        self._mesh = mesh
        self._rng = rng
        self._node_key, self._secret_key = crypto_sign_seed_keypair(rng.randbytes(32))
        self._epoch = rng.getrandbits(63)
        self._clock = Clock()
        self.author = author_id(self._node_key, self._epoch)

    def introduce(self, disk: Disk) -> Op:
        """The node's own record in the reserved project: before it, nobody takes its ops."""
        return self._seal(disk, RESERVED, (OpClass.WRITE, "", "", "member", self.name.encode(), ()))

    def write(self, disk: Disk, project: str) -> Op:
        """Some write that a user of this node might make now."""
        ops = disk.in_effect(project)
        subjects = sorted({op.subject for op in ops})
        if project == RESERVED or not subjects or self._rng.random() < 0.3:
            return self.create(disk, project)
        subject = self._rng.choice(subjects)
        about = sorted((op for op in ops if op.subject == subject), key=lambda op: op.order)
        action = self._rng.choice((self._update, self._retract, self._tag, self._untag, self._link, self._edit))
        return self._seal(disk, project, action(disk, subject, about))

    def create(self, disk: Disk, project: str) -> Op:
        """A new fact."""
        return self._seal(disk, project, self._create())

    def skip_seqs(self, disk: Disk) -> None:
        """After an unclean stop: the rest of the block is never used."""
        disk.last_seq += self._rng.randint(0, 5)

    def _seal(self, disk: Disk, project: str, draft: Draft) -> Op:
        op_class, subject, field, kind, body, clock = draft
        chain = disk.chains.get((project, self.author), [])
        prev_seq, prev_hash = (chain[-1].seq, chain[-1].hash[:PREV_BYTES]) if chain else (0, b"")
        disk.last_seq += 1
        stamp = self._clock.issue(disk.now_ms)
        header = Header(
            format=1,
            project=project,
            op_class=op_class,
            subject=subject,
            field=field,
            node_key=self._node_key,
            epoch=self._epoch,
            seq=disk.last_seq,
            prev_seq=prev_seq,
            prev_hash=prev_hash,
            timestamp=stamp,
            clock=clock,
            kind=kind,
            body=body,
        )
        return seal(self._mesh, header, self._secret_key)

    def sentence(self) -> str:
        return " ".join(self._rng.choices(WORDS, k=self._rng.randint(3, 20)))

    def _create(self) -> Draft:
        record = fact.Record(content=self.sentence(), source=self.name, tags=tuple(self._rng.sample(WORDS, 2)))
        return OpClass.WRITE, "", "", fact.FACT, fact.encode_record(record), ()

    def _update(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        clock = clock_over(in_register(about, "content"))
        return OpClass.WRITE, subject, "content", fact.VALUE, fact.encode_value(self.sentence()), clock

    def _retract(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        clock = clock_over(in_register(about, fact.RETRACTED))
        reason = self._rng.choice((None, fact.Retraction("wrong")))
        return OpClass.WRITE, subject, fact.RETRACTED, fact.VALUE, fact.encode_value(reason), clock

    def _tag(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        return OpClass.ADD, subject, fact.TAG_PREFIX + self._rng.choice(WORDS), fact.ELEMENT, b"", ()

    def _untag(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        field = fact.TAG_PREFIX + self._rng.choice(WORDS)
        taken = surviving_adds(op for op in about if op.header.field == field)
        clock = next(iter(dots_of(taken)), ())
        return OpClass.REMOVE, subject, field, fact.ELEMENT, b"", clock

    def _link(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        return OpClass.ADD, subject, f"{fact.LINK_PREFIX}see:{subject}", fact.ELEMENT, b"", ()

    def _edit(self, disk: Disk, subject: str, about: list[Op]) -> Draft:
        body = text.append(fact.text_ops(about), Dot(self.author, disk.last_seq + 1), self.sentence())
        return OpClass.APPEND, subject, fact.BODY_FIELD, fact.TEXT, body, ()
