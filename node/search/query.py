"""What is searched for: the question, its words, and the answer's shape.

The text of a query comes from people and models and may hold anything. It is split as FTS5's `unicode61` splits (runs
of letters and digits), so nothing of it can reach FTS5 as syntax: quotes, `*`, `NEAR`, `-` and `:` are separators
here, and each word goes into the index's language as a quoted string. Emoji are no words; a text without words has
none.

Words that stand in most English sentences are left out, unless nothing else was said. The list holds what questions are
made of as well ("what", "did", "which"); a language that is not English loses nothing but these few forms.

Laws: tests/node/search/test_query.py.
"""

import re
from dataclasses import dataclass
from typing import Final

STOP_WORDS: Final = frozenset(
    """
    a about above after again against all am an and any are aren as at be because been before being below between both
    but by can cannot could couldn d did didn do does doesn doing don down during each few for from further had hadn has
    hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself let ll m me
    more most my myself no nor not of off on once only or other ought our ours ourselves out over own re s same she
    should shouldn so some such t than that the their theirs them themselves then there these they this those through to
    too under until up ve very was wasn we were weren what when where which while who whom whose why will with won would
    wouldn you your yours yourself yourselves
    """.split()
)

# Letters and digits, with the accents that follow them: the index folds an accent written as a character of its own.
_WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `tags` must all be there. `now_ms` is the wall clock, in milliseconds since 1970 UTC.

    `as_of` (a timestamp of crdt.hlc) asks for what was known at that time, and valid at that time.
    """

    text: str
    project: str | None = None
    fact_type: str | None = None
    tags: tuple[str, ...] = ()
    top_k: int = 10
    as_of: int | None = None
    now_ms: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: the fact's rowid and its match, 0..1, where the best hit of a search has 1.

    `text` is the share of the query's words that it has, by their rarity; `vector` is its cosine. None where the leg
    did not find it, as with a neighbour of a hit.
    """

    fact: int
    match: float
    text: float | None
    vector: float | None


def words(text: str) -> tuple[str, ...]:
    """The words to look for, in the order of the text; each once, whatever its case."""
    found = {word.lower(): word for word in _WORD.findall(text)}
    return tuple(word for key, word in found.items() if key not in STOP_WORDS) or tuple(found.values())
