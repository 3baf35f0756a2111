"""What users do: facts created, updated, retracted, tagged, linked and edited, on real ops that are really signed."""

from collections.abc import Iterable
from random import Random

from nacl.bindings import crypto_sign_seed_keypair

from crdt import fact, hlc, text
from crdt.op import MAX_SEQ, Header, Op, OpClass, seal
from crdt.orset import surviving_adds
from crdt.survive import clock_over, dots_of, in_register
from crdt.version import Dot, author_id
from sync.overlap import RESERVED
from tests.sim.disk import Disk

WORDS = "valve pump relay north south rain pressure shift night crew gauge bolt copper steam".split()
FAR_AHEAD_MS = 24 * 3_600_000
"""See node/store.py."""
Draft = tuple[OpClass, str, str, str, bytes, tuple[tuple[bytes, int], ...]]
"""class, subject, field, kind, body, clock."""


class Writer:
    """One node's identity and its users. It writes what it would see, given its disk."""

    def __init__(self, name: str, mesh: bytes, rng: Random) -> None:
        self.name = name
        self._mesh = mesh
        self._rng = rng
        self.node_key, self._secret_key = crypto_sign_seed_keypair(rng.randbytes(32))
        self.epoch = rng.getrandbits(63)

    @property
    def author(self) -> bytes:
        """The name under which this node writes now."""
        return author_id(self.node_key, self.epoch)

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

    def update(self, disk: Disk, project: str, subject: str) -> Op:
        """Other content of a fact, by somebody who has seen what is shown here."""
        about = [op for op in disk.in_effect(project) if op.subject == subject]
        return self._seal(disk, project, self._update(disk, subject, about))

    def skip_seqs(self, disk: Disk) -> None:
        """After an unclean stop: the rest of the block is never used."""
        disk.last_seq += self._rng.randint(0, 5)

    def renew(self, disk: Disk) -> None:
        """Go on as a new author: this node does not remember all that it has written."""
        self.epoch = self._rng.getrandbits(63)
        disk.last_seq = 0

    def poison(self, disk: Disk, project: str, authors: Iterable[bytes]) -> Op:
        """A write that claims to have seen everything that anybody will ever write."""
        ops = disk.in_effect(project)
        subject = self._rng.choice(sorted({op.subject for op in ops})) if ops else ""
        clock = tuple(sorted((author, MAX_SEQ) for author in authors))
        value = fact.encode_value(self.sentence())
        return self._seal(disk, project, (OpClass.WRITE, subject, "content", fact.VALUE, value, clock))

    def _seal(self, disk: Disk, project: str, draft: Draft) -> Op:
        op_class, subject, field, kind, body, clock = draft
        prev_seq, prev_hash = disk.head(project, self.author)
        disk.last_seq += 1
        limit = hlc.horizon(disk.now_ms)
        if disk.clock.last > limit + hlc.timestamp(FAR_AHEAD_MS):  # our clock was wrong and has been set right
            disk.clock.last = hlc.timestamp(disk.now_ms)
        stamp = disk.clock.issue(disk.now_ms)
        header = Header(
            format=1,
            project=project,
            op_class=op_class,
            subject=subject,
            field=field,
            node_key=self.node_key,
            epoch=self.epoch,
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
