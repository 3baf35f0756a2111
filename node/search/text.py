"""The text leg: BM25 over the full-text index, computed from posting lists.

SQLite's own bm25() was left: it weighs a word by how rare it is among the facts of all projects, its length correction
(b = 0.75) is fixed, and among 50,000 facts it takes about twice the processor time of a whole search here when words
are frequent (and a quarter when they are rare; bench/search_speed.py prints both). So FTS5 stems and finds (`porter
unicode61`), and the score is

    sum over the query's words that the text has: log(1 + (N - n + 0.5) / (n + 0.5))    N texts, n have the word
    times (K1 + 1) / (1 + K1 * (1 - B + B * chars / TYPICAL_CHARS))                     a shorter one says it denser

which is BM25 with a word counted once per text: in facts of a sentence or two it hardly ever stands twice. Words are
ORed, never ANDed: a question shares a word or two with its answer, not all.

The score is given as a share of what a very short text with all of the words would have, 0..1. So a query whose words
are hardly there at all says so, and the other leg can weigh more (rank.fused).

Frequent words follow "continue" (Moffat and Zobel, "Self-Indexing Inverted Files", 1996): a word that stands in more
texts than its share of POSTINGS_MAX adds to the score of texts that rarer words found, and brings in none of its own.
When all are frequent the rarest brings in its newest FIRST_MAX. When the filters left fewer than were asked for, all
are read.

S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. Tests:
tests/node/search/test_text.py.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import log
from typing import Final, NamedTuple

from node.search.eligible import Conditions, Text, admit

K1: Final = 1.2
B: Final = 0.3
TYPICAL_CHARS: Final = 150
LONG_CHARS: Final = 1_000
"""Longer texts are not discounted further: each word counts once, so a long note has nothing to offset it with."""

TERMS_MAX: Final = 32
"""Words of one query that are looked up, the rarest: a pasted page of text costs what a long question does."""
POSTINGS_MAX: Final = 10_000
"""Rows read for all words of a query, shared equally: a word with more is frequent. Bounds the work of a search."""
FIRST_MAX: Final = 20_000
"""Rows read for the rarest word of a query that has only frequent ones, the newest texts."""
UNLIMITED: Final = -1

CHUNK: Final = 200
"""Texts put to the filters at once: twice the pool, since most searches have few filters and few superseded texts."""


@dataclass(frozen=True, slots=True)
class _Index:
    """The part of the index to read: `prefix` narrows a match to the project, `texts` is how many texts it has."""

    connection: sqlite3.Connection
    prefix: str
    texts: int

    def match(self, terms: Sequence[str]) -> str:
        """FTS5's expression for texts with any of `terms`, which are words without syntax (query.words)."""
        return f"{self.prefix}({' OR '.join(_column(term) for term in terms)})"

    def rows(self, match: str, limit: int) -> list[int]:
        """The newest `limit` texts that match."""
        found = self.connection.execute(
            "SELECT rowid FROM texts_fts WHERE texts_fts MATCH ? ORDER BY rowid DESC LIMIT ?", (match, limit)
        )
        return [row[0] for row in found]

    def count(self, term: str) -> int:
        """How many texts have `term`."""
        found = self.connection.execute(
            "SELECT count(*) FROM texts_fts WHERE texts_fts MATCH ?", (self.match([term]),)
        ).fetchone()
        return int(found[0])

    def rarity(self, count: int) -> float:
        """The weight of a word that `count` texts have."""
        return log(1 + (max(self.texts, count) - count + 0.5) / (count + 0.5))


def leg(
    connection: sqlite3.Connection, terms: Sequence[str], conditions: Conditions, size: int, least: int
) -> dict[Text, float]:
    """The share, 0..1, of the best `size` texts that have a word of `terms` and meet `conditions`; one text a fact.

    At least `least` of them, when that many have a word: what was skipped to be quick is then read after all.
    """
    index = _open(connection, conditions.project)
    terms = _rarest(index, terms)
    if not terms:
        return {}
    coverage = _coverage(index, terms, POSTINGS_MAX // len(terms))
    found = _admitted(connection, coverage.scores, conditions, size)
    if not coverage.complete and len(found) < least:
        coverage = _coverage(index, terms, UNLIMITED)
        found = _admitted(connection, coverage.scores, conditions, size)
    whole = coverage.whole * _density(0)
    return {text: score / whole for text, score in found.items()}


def _open(connection: sqlite3.Connection, project: int | None) -> _Index:
    """The index of one project, or of all.

    Intersecting with a project that holds most of the texts costs more than it saves: then the whole index is read, and
    `admit` drops the few that belong elsewhere.
    """
    texts, everything = _counts(connection, project)
    if 2 * texts < everything:
        return _Index(connection, f'scope:"p{project}" AND ', texts)
    return _Index(connection, "", everything)


def reads_all(connection: sqlite3.Connection, project: int | None) -> bool:
    """Whether the scores of a search depend on the texts of all projects."""
    texts, everything = _counts(connection, project)
    return 2 * texts >= everything


def _counts(connection: sqlite3.Connection, project: int | None) -> tuple[int, int]:
    """How many texts a project has, and how many there are."""
    (everything,) = connection.execute("SELECT coalesce(sum(texts), 0) FROM texts_counts").fetchone()
    if project is None:
        return int(everything), int(everything)
    row = connection.execute("SELECT texts FROM texts_counts WHERE scope = ?", (f"p{project}",)).fetchone()
    return int(row[0]) if row else 0, int(everything)


def _column(term: str) -> str:
    return f'{{content body}}:"{term}"'


def _rarest(index: _Index, terms: Sequence[str]) -> Sequence[str]:
    """At most TERMS_MAX of the terms that occur at all."""
    if len(terms) <= TERMS_MAX:
        return terms
    counts = {term: index.count(term) for term in terms}
    return sorted((term for term in terms if counts[term]), key=counts.__getitem__)[:TERMS_MAX]


class _Coverage(NamedTuple):
    """The weight of the query's words in each text, of all of them together, and whether no text is missing."""

    scores: dict[int, float]
    whole: float
    complete: bool


def _coverage(index: _Index, terms: Sequence[str], limit: int) -> _Coverage:
    scores: dict[int, float] = {}
    found: list[str] = []
    frequent: list[str] = []
    whole = 0.0
    for term in terms:
        rows = index.rows(index.match([term]), limit if limit == UNLIMITED else limit + 1)
        if limit != UNLIMITED and len(rows) > limit:
            frequent.append(term)
            continue
        whole += index.rarity(len(rows))
        if rows:
            found.append(term)
            _add(scores, rows, index.rarity(len(rows)))
    counts = {term: index.count(term) for term in frequent}
    for term in sorted(frequent, key=counts.__getitem__):
        if found:
            rows = index.rows(f"{index.match(found)} AND {_column(term)}", UNLIMITED)
        else:
            rows = index.rows(index.match([term]), FIRST_MAX)
            found.append(term)
        whole += index.rarity(counts[term])
        _add(scores, rows, index.rarity(counts[term]))
    return _Coverage(scores, whole, not frequent)


def _add(scores: dict[int, float], rows: Sequence[int], weight: float) -> None:
    for row in rows:
        scores[row] = scores.get(row, 0.0) + weight


def _density(chars: int) -> float:
    """What the words of a text of that length count."""
    return (K1 + 1) / (1 + K1 * (1 - B + B * min(chars, LONG_CHARS) / TYPICAL_CHARS))


def _admitted(
    connection: sqlite3.Connection, scores: dict[int, float], conditions: Conditions, size: int
) -> dict[Text, float]:
    """The best texts of `scores` that may answer, until there are `size` of them."""
    found: dict[Text, float] = {}
    for texts in _best_first(scores, max(CHUNK, 2 * size)):
        admitted = admit(connection, conditions, texts)
        found |= {text: scores[text.id] * _density(text.chars) for text in admitted}
        if len(found) >= size:
            break
    return found


def _best_first(scores: dict[int, float], size: int) -> Iterator[list[int]]:
    """The texts in chunks, best first; of equals the newest. Sorts them all only when the first chunk is not enough."""
    yield [text for _, text in nlargest(size, zip(scores.values(), scores.keys(), strict=True))]
    if len(scores) > size:
        rest = sorted(zip(scores.values(), scores.keys(), strict=True), reverse=True)[size:]
        for start in range(0, len(rest), 10 * size):
            yield [text for _, text in rest[start : start + 10 * size]]
