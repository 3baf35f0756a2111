"""Faults to plant, one at a time, into a copy of the code: does the simulator notice, and which oracle says so?

A fault is a change of source text. A text that is no longer there fails the test that plants it, so this list cannot
quietly stop testing anything. tests/sim/README.md tells what each stands for.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = 120
"""All are found within these; most in the first few."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`changes`: (file, text, what it becomes). `oracles`: those that may be the first to see it."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    oracles: frozenset[str]


def _fault(name: str, oracles: str, *changes: tuple[str, str, str]) -> Fault:
    return Fault(name, changes, frozenset(oracles.split(", ")))


SESSION, TRANSFER, OVERLAP = "sync/session.py", "sync/transfer.py", "sync/overlap.py"
PUSH = "sync/push.py"
DISK, WORLD = "tests/sim/disk.py", "tests/sim/world.py"

FAULTS = (
    _fault(
        "acknowledges before it commits",
        "early ack",
        ("sync/ready.py", "assert not (self.persist and self.send)", "assert True"),
        (
            SESSION,
            "return Ready(persist=(Commit(self.peer, self.number, message.number, message.ops, by_walk=by_walk),))",
            "ack = self._incoming.committed(len(message.ops))\n"
            "                return Ready((Commit(self.peer, self.number, message.number, message.ops),))"
            " + self._send(ack)",
        ),
        (SESSION, "return self._send(self._incoming.committed(fresh)) + self._go_on()", "return self._go_on()"),
    ),
    _fault(
        "a driver that says persisted before it commits",
        "early ack",
        (
            WORLD,
            "boot = node.boot\n        self.after(node.disk_free",
            "boot = node.boot\n"
            "        self._feed(node, boot, lambda core: core.persisted(commit, len(commit.ops), self.now))\n"
            "        self.after(node.disk_free",
        ),
        (WORLD, "self._feed(node, boot, lambda core: core.persisted(commit, fresh, self.now))", "return"),
    ),
    _fault(
        "ops_after repeats the op that is there",
        "blame, convergence",
        (DISK, "if op.seq > seq:", "if op.seq >= seq > 0:"),
    ),
    _fault("ops_after skips an op", "convergence, waste, blame", (DISK, "if op.seq > seq:", "if op.seq > seq + 1:")),
    _fault(
        "a vector moves by what the peer claims",
        "claim",
        (
            SESSION,
            "self._check_shared(names)\n        self._told = {}",
            "self._check_shared(names)\n"
            "        claims = self._replica.__dict__.get('claims', {})\n"
            "        self._told = {}",
        ),
        (SESSION, "dict(vector))\n        return", "{**claims.get(name, {}), **vector})\n        return"),
        (
            SESSION,
            "self.state = State.STREAMING\n",
            "self.state = State.STREAMING\n"
            "        self._replica.__dict__['claims'] = {n: known.vector for n, known in theirs.projects.items()}\n",
        ),
    ),
    _fault(
        "the reserved project is forgotten",
        "blame, convergence",
        (OVERLAP, "return name == RESERVED or (", "return name != RESERVED and ("),
        (SESSION, "in_order({RESERVED, *names})", "in_order(names)"),
    ),
    _fault(
        "the reserved project goes last",
        "order, blame",
        (OVERLAP, "(name != RESERVED, name))", "(name == RESERVED, name))"),
    ),
    _fault(
        "the digest ignores roots",
        "damage",
        ("sync/digest.py", "version.digest(vector) + root", "version.digest(vector)"),
    ),
    _fault(
        "an op that comes twice is counted twice in the tree",
        "root, convergence, damage",
        (
            DISK,
            "            return 0\n        if op.header.prev_seq and",
            "            total, count = self.totals[op.project]\n"
            "            self.totals[op.project] = merkle.add(total, merkle.fingerprint(op.hash)), count\n"
            "            return 0\n        if op.header.prev_seq and",
        ),
    ),
    _fault(
        "the window is not released when a connection breaks",
        "convergence",
        (TRANSFER, "self._sent - self._acked < self._window", "UNDER_WAY.get(id(self._replica), 0) < self._window"),
        (TRANSFER, "self._sent += 1", "self._sent += 1\n        _count(self._replica, 1)"),
        (TRANSFER, "self._acked += 1", "self._acked += 1\n        _count(self._replica, -1)"),
        (
            TRANSFER,
            "class Outgoing:",
            "UNDER_WAY = {}\n\n\ndef _count(replica, change):\n"
            "    UNDER_WAY[id(replica)] = UNDER_WAY.get(id(replica), 0) + change\n\n\nclass Outgoing:",
        ),
    ),
    _fault(
        "more batches than the peer grants", "bound, blame", (TRANSFER, "self._acked < self._window", "self._acked < 9")
    ),
    _fault(
        "both answer when hellos cross",
        "blame",
        (SESSION, "if self.peer < self._me else NOTHING", "if True else NOTHING"),
    ),
    _fault(
        "projects that the peer does not carry are compared too",
        "foreign name, blame, convergence",
        (SESSION, "self._replica.projects() if self._overlap.shared(name)]", "self._replica.projects()]"),
    ),
    _fault(
        "names are told instead of blinded",
        "foreign name",
        (
            OVERLAP,
            "return self._prefixes, tuple(",
            "return self._prefixes + tuple(f'{n}*' for n in self._names), tuple(",
        ),
    ),
    _fault(
        "a round ends before the disk is done",
        "blame, convergence",
        (TRANSFER, "return self._heard_done and not self.waits_for_disk", "return self._heard_done"),
    ),
    _fault(
        "an address that was lost is not dialled again",
        "convergence",
        (
            "sync/dialling.py",
            "        for target in self._of(peer):\n            self._put_off(target, now)",
            "        pass",
        ),
    ),
    _fault(
        "a silent peer is waited for, for ever",
        "convergence, damage",
        (SESSION, "return self._heard + STALL_S", "return inf"),
        (SESSION, "else self._heard + STALL_S", "else inf"),
    ),
    _fault(
        "a push goes back to where it came from",
        "echo",
        (PUSH, "if name != source:", "if True:"),
        (PUSH, "if not peer.shares(op.project) or name in self._seen.get(key, ()):", "if not peer.shares(op.project):"),
        (PUSH, "if name not in self._seen.get(key, ()):", "if True:"),
    ),
    _fault(
        "a push is acknowledged before it is committed",
        "early ack",
        ("sync/ready.py", "assert not (self.persist and self.send)", "assert True"),
        (
            PUSH,
            "return Ready(persist=(commit,))",
            "return Ready((commit,)) + self._answer(name, peer, push.number, Fate.STORED)",
        ),
        (
            PUSH,
            "return ready + self._answer(commit.peer, peer, commit.number, fate)",
            "return ready",
        ),
    ),
    _fault("more pushes than the window", "bound, blame", (PUSH, "< PUSH_WINDOW and", "< 9 and")),
    _fault(
        "what lies ahead of a gap is passed on",
        "claim",
        (PUSH, "ops = [op for op in ops if op.seq <= vectors[op.project].get(op.author, 0)]", "del vectors"),
    ),
    _fault(
        "a fork is not kept",
        "convergence",
        (DISK, "any(_follows(op, there) for there in reversed(chain))", "(chain and _follows(op, chain[-1]))"),
    ),
    _fault(
        "a node that finds ops of its own goes on as before",
        "epoch",
        (WORLD, "node.writer.renew(node.disk)", "pass"),
    ),
    _fault(
        "what is held wins all the same",
        "winner",
        ("crdt/register.py", "(op.timestamp <= held_after, op.order)", "op.order"),
    ),
    _fault(
        "no op waits for those that it has seen",
        "winner",
        ("crdt/survive.py", "return missing_cause(op, vector) is None", "return True"),
    ),
    _fault(
        "a walk believes the books",
        "damage, root",
        ("sync/walk.py", "if not right:", "if False:"),
        ("sync/walk.py", "if rows.damaged:", "if False:"),
    ),
    _fault(
        "nothing is ever suspect",
        "damage, convergence, root",
        ("sync/audit.py", "self._queue = in_order({*self._queue, *names})", "self._queue = []"),
    ),
    _fault("a dot is never asked for", "late", (PUSH, "ask.setdefault(wanted.asked, []).append(key)", "pass")),
)


def plant(fault: Fault, into: Path) -> tuple[str, str]:
    """Run worlds with the fault in a copy of the code. Returns the oracle that saw it ("" for none) and the output."""
    for package in ("crdt", "sync", "tests/sim"):
        shutil.copytree(ROOT / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text, becomes in fault.changes:
        path = into / file
        source = path.read_text(encoding="utf-8")
        if text not in source:
            raise LookupError(f"{file} no longer contains {text!r}: plant this fault where it belongs now")
        path.write_text(source.replace(text, becomes), encoding="utf-8")
    crowd = ["--crowd", "100"] if fault.oracles <= {"late", "cost"} else ["--seeds", str(SEEDS)]
    command = [sys.executable, str(into / "tests/sim/run.py"), *crowd]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^(?:seed|crowd of) \d+: ([\w ]+):", said.stdout, re.MULTILINE)
    return found[1] if found else "", (said.stdout + said.stderr).strip()
