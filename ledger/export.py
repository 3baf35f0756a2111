"""Exports: the ledger as a folder of files that other programs can check, and the way back.

    checkpoint            the newest note
    policy                whom it must be signed by (C2SP tlog-policy)
    tile/...              hashes and entries (C2SP tlog-tiles), also what a node serves under /tlog/
    text/000 ...          the texts of the entries, 256 a file, each behind its length in two bytes; an empty one is not
                          included
    history, history.d/N  the sizes of earlier checkpoints, and the note of each

Files are pairs of path and bytes; who writes or reads them is the caller's affair, and so is that a path from an
export is never used as it comes: `Export` asks only for paths that it makes itself. Tests: tests/ledger/test_export.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ledger import note
from ledger.checkpoint import Checkpoint, parse_text
from ledger.entry import Entry, Kind, decode
from ledger.note import BadNote
from ledger.policy import Policy
from ledger.tiles import (
    WIDTH,
    BadTile,
    Bundle,
    TileReader,
    bundles_of,
    decode_bundle,
    encode_bundle,
    read_tile,
    tiles_of,
)
from ledger.tlog import Node
from ledger.verify import Source

CHECKPOINT, POLICY, HISTORY = "checkpoint", "policy", "history"
MAX_HISTORY: Final = 100_000
"""Kept checkpoints that an export lists; with one per 1,000 votes that is more votes than etcd's index can count."""

File = tuple[str, bytes]
Read = Callable[[str], bytes | None]
"""A file of the export by its path; None when it is not there."""


def export(source: Source, policy: Policy, include: Callable[[Entry], bool] = lambda entry: True) -> Iterator[File]:
    """The files of an export, as large as the newest checkpoint. In memory: one file at a time.

    `include`: whose texts go with it, beside the statements, which always do: those of one project, say.
    """
    notes = {parse_text(note.parse(raw).text).size: raw for raw in source.checkpoints()}
    if not notes:
        raise LookupError("there is no checkpoint yet, so nothing that an export could be checked against")
    size = max(notes)
    for bundle in bundles_of(size):
        start = bundle.index * WIDTH
        raws = source.read_entries(start, bundle.width)
        texts = source.read_texts(start, bundle.width)
        chosen = [text if _goes(decode(raw), include) else None for raw, text in zip(raws, texts, strict=True)]
        yield bundle.path, encode_bundle(raws)
        yield _text_path(bundle), encode_bundle([text or b"" for text in chosen])
    for tile in tiles_of(size):
        yield tile.path, read_tile(tile, source)
    earlier = sorted(notes)[:-1]
    yield HISTORY, "".join(f"{at}\n" for at in earlier).encode()
    yield from ((f"{HISTORY}.d/{at}", notes[at]) for at in earlier)
    yield POLICY, str(policy).encode()
    yield CHECKPOINT, notes[size]  # last: an export that was cut off while it was made has none


class Export:
    """An export as a `Source`. Raises BadNote when it has no checkpoint that can be read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        raw = read(CHECKPOINT)
        if raw is None:
            raise BadNote("no file `checkpoint`: this is no export, or one that was cut off")
        self.checkpoint: Checkpoint = parse_text(note.parse(raw).text)
        """Unchecked."""
        self._note = raw
        self._tiles = TileReader(self.checkpoint.size, read)

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return self._tiles.read_hashes(nodes)

    def read_entries(self, start: int, count: int) -> list[bytes]:
        return self._slice(start, count, lambda bundle: bundle.path)

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        return [text or None for text in self._slice(start, count, _text_path)]

    def checkpoints(self) -> Iterable[bytes]:
        *sizes, rest = (self._read(HISTORY) or b"").decode("ascii", "replace").split("\n")
        if rest or len(sizes) > MAX_HISTORY:
            raise BadTile("the list of earlier checkpoints is cut off, or too long")
        for size in sizes:
            raw = self._read(f"{HISTORY}.d/{size}") if size.isascii() and size.isdecimal() else None
            if raw is None:
                raise LookupError(f"the checkpoint of size {size[:20]!r} is listed and not there")
            yield raw
        yield self._note

    def _slice(self, start: int, count: int, path: Callable[[Bundle], str]) -> list[bytes]:
        found: list[bytes] = []
        end = min(start + count, self.checkpoint.size)
        while start < end:
            index, offset = divmod(start, WIDTH)
            bundle = Bundle(index, min(self.checkpoint.size - index * WIDTH, WIDTH))
            data = self._read(path(bundle))
            rows = decode_bundle(data) if data is not None else []
            if len(rows) != bundle.width:
                raise BadTile(f"{path(bundle)} has {len(rows)} of {bundle.width} entries")
            taken = rows[offset : offset + end - start]
            found += taken
            start += len(taken)
        return found


def _goes(entry: Entry, include: Callable[[Entry], bool]) -> bool:
    return entry.kind != Kind.VOTE or include(entry)


def _text_path(bundle: Bundle) -> str:
    return bundle.path.replace("tile/entries/", "text/", 1)
