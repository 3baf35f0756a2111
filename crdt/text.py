"""Text that several people edit at once: the `body` of a fact, a Yjs document (pycrdt).

One op carries one Yjs update. Its client id is derived from the op's dot (`client_id`) and checked before it is read,
because Yjs silently ignores an update that repeats a client's clock: with a client of its own, an update can neither be
mistaken for another nor hide one. Whatever else an edit of ours would not do is refused as well (crdt/yjs.py): such an
op has no effect. Documents are rebuilt from the ops; no document is replicated as such.

pycrdt is used for text alone. Its Map gives concurrent writes to the larger client id, whatever the time, which is no
way to settle a fact.

Positions are counted in UTF-8 bytes, as pycrdt does. Nicolaescu et al., "Near Real-Time Peer-to-Peer Shared Editing on
Extensible Data Types" (YATA), 2016; Myers, "An O(ND) Difference Algorithm and Its Variations", 1986.
Laws: tests/crdt/test_text.py.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from re import findall
from typing import Final

from pycrdt import Doc, Text, TransactionEvent

from crdt.op import Op
from crdt.version import Dot
from crdt.yjs import CLIENT_BITS, NO_CHANGE, is_text_edit

ROOT: Final = "body"
MAX_CHANGES: Final = 400
"""Parts taken out and put in that a comparison looks for, at quadratic cost; what changed more is replaced whole."""

_LINES: Final = r"[^\n]*\n|[^\n]+"
_WORDS: Final = r"\w+|\s|[^\w\s]"


def client_id(dot: Dot) -> int:
    """The Yjs client of the op at `dot`: 53 bits that no other op has."""
    seed = blake2b(dot.author + dot.seq.to_bytes(8, "big"), digest_size=8, person=b"cortex/yjs").digest()
    return (int.from_bytes(seed, "big") >> (64 - CLIENT_BITS)) or 1


def read(ops: Iterable[Op]) -> str:
    """The text that the ops of one body make, in whatever order they came."""
    return str(_document(ops).get(ROOT, type=Text))


def well_formed(op: Op) -> bool:
    """Whether an op's body is an edit as `edit` makes them: text of that op's own client, and deletions."""
    return is_text_edit(op.header.body, client_id(op.dot), ROOT)


def edit(ops: Iterable[Op], dot: Dot, text: str) -> bytes:
    """The update that turns what `ops` show into `text`, to be the body of the op at `dot`.

    Only what differs is deleted and inserted, so that words which others insert meanwhile stay where they belong.
    """
    document = _document(ops, client_id(dot))
    updates = [NO_CHANGE]

    def note(event: TransactionEvent) -> None:
        updates.append(event.update)

    # What this transaction did, and no more: `get_update` would repeat every deletion that the document has seen.
    subscription = document.observe(note)
    shared = document.get(ROOT, type=Text)
    with document.transaction():
        at = 0
        for keep, delete, insert in _differences(str(shared), text):
            at += keep
            if delete:
                del shared[at : at + delete]
            if insert:
                shared.insert(at, insert)
                at += len(insert.encode())
    document.unobserve(subscription)
    return updates[-1]


def append(ops: Iterable[Op], dot: Dot, text: str) -> bytes:
    """The update that adds `text` at the end of what `ops` show."""
    ops = list(ops)
    return edit(ops, dot, read(ops) + text)


def _document(ops: Iterable[Op], client: int | None = None) -> Doc[Text]:
    document: Doc[Text] = Doc(client_id=client)
    document.get(ROOT, type=Text)
    applied: set[Dot] = set()
    for op in sorted(ops, key=lambda op: op.order):
        # Of two ops with one dot, and so with one client, only the first is read: Yjs would mix them unit by unit.
        if op.dot not in applied and well_formed(op):
            document.apply_update(op.header.body)
            applied.add(op.dot)
    return document


def _differences(old: str, new: str) -> Iterator[tuple[int, int, str]]:
    """Steps from `old` to `new`, by lines and then by words: (bytes to keep, bytes to delete, text to insert)."""
    keep = 0
    for lines_before, lines_after in _changes(old, new, _LINES):
        for before, after in _changes(lines_before, lines_after, _WORDS):
            length = len(before.encode())
            if before == after:
                keep += length
            else:
                yield keep, length, after
                keep = 0


def _changes(old: str, new: str, pattern: str) -> Iterator[tuple[str, str]]:
    """`old` and `new` cut at the parts that `pattern` finds, piece beside piece; what stays is a pair of equals."""
    if old == new:
        yield old, new
        return
    a, b = findall(pattern, old), findall(pattern, new)
    shorter = min(len(a), len(b))
    start = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    end = next((i for i in range(shorter - start) if a[-1 - i] != b[-1 - i]), shorter - start)
    same_start, same_end = "".join(a[:start]), "".join(a[len(a) - end :])
    a, b = a[start : len(a) - end], b[start : len(b) - end]
    yield same_start, same_start
    i = j = 0
    for x, y in _matches(a, b):
        yield "".join(a[i:x]), "".join(b[j:y])
        yield a[x], b[y]
        i, j = x + 1, y + 1
    yield "".join(a[i:]), "".join(b[j:])
    yield same_end, same_end


def _matches(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Positions in `a` and `b` of what a shortest edit keeps; none when it takes more than MAX_CHANGES steps."""
    # Per diagonal (position in a less position in b) how far into `a` so many steps can reach; and a copy per step.
    furthest = {1: 0}
    trail: list[dict[int, int]] = []
    for steps in range(MAX_CHANGES + 1):
        trail.append(furthest.copy())
        for diagonal in range(-steps, steps + 1, 2):
            x = _reach(furthest, diagonal, steps)
            while x < len(a) and x - diagonal < len(b) and a[x] == b[x - diagonal]:
                x += 1
            furthest[diagonal] = x
            if x >= len(a) and x - diagonal >= len(b):
                return _retrace(trail, len(a), diagonal)
    return []


def _reach(furthest: dict[int, int], diagonal: int, steps: int) -> int:
    """Where the last of `steps` steps, which puts a part in or takes one out, enters `diagonal`."""
    if diagonal == -steps or (diagonal != steps and furthest[diagonal - 1] < furthest[diagonal + 1]):
        return furthest[diagonal + 1]
    return furthest[diagonal - 1] + 1


def _retrace(trail: list[dict[int, int]], x: int, diagonal: int) -> list[tuple[int, int]]:
    matches: list[tuple[int, int]] = []
    for steps in range(len(trail) - 1, -1, -1):
        furthest = trail[steps]
        entered = _reach(furthest, diagonal, steps)
        matches += [(i, i - diagonal) for i in range(x - 1, entered - 1, -1)]
        inserted = entered == furthest.get(diagonal + 1)
        x, diagonal = (entered, diagonal + 1) if inserted else (entered - 1, diagonal - 1)
    return matches[::-1]
