"""The vector leg: facts that mean what the query means, with other words.

A `Meaning` knows the query's vector, and the texts that have vectors of the same model. Where the filters leave few
texts, all of them are compared; where they leave many, the nearest by bits are, in chunks that grow until enough facts
may answer. Either way a fact's score is the cosine of its vector in this snapshot, so no hit is older than the search.

What makes vectors, and numpy, is not known here: node/search/nearest.py has it.
Tests: tests/node/search/test_vector.py.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

from node.search import eligible
from node.search.eligible import Conditions, Text, admit

FEW: Final = 1_000
"""Texts that are all compared: as quick as finding candidates among 50,000 and judging those."""


class Meaning(Protocol):
    """A query as a vector, among those of the texts."""

    def nearest(self, project: int | None) -> Iterator[list[int]]:
        """Texts (rowids) of a project, or of all, nearest first, in chunks. Some may be gone by now."""

    def cosines(self, connection: sqlite3.Connection, texts: Sequence[int]) -> dict[int, float]:
        """The cosine of each text that has a vector, -1.0 to 1.0."""


def leg(
    connection: sqlite3.Connection, meaning: Meaning, conditions: Conditions, also: Collection[int], least: int
) -> dict[int, float]:
    """Cosines above 0 by the fact's rowid: of the nearest facts that meet `conditions`, and of those in `also`.

    At least `least` facts, when that many have a vector that points the query's way.
    """
    few = eligible.few(connection, conditions, FEW)
    facts: dict[int, float] = {}
    for texts in meaning.nearest(conditions.project) if few is None else [few]:
        admitted = admit(connection, conditions, texts)
        found = _judged(connection, meaning, admitted)
        facts |= found
        if len(facts) >= least or (admitted and not found):  # what is farther by bits points away as well
            break
    missing = [fact for fact in also if fact not in facts]
    return facts | _judged(connection, meaning, eligible.texts(connection, conditions, missing))


def _judged(connection: sqlite3.Connection, meaning: Meaning, texts: Iterable[Text]) -> dict[int, float]:
    facts = {text.id: text.fact for text in texts}
    return {facts[text]: cosine for text, cosine in meaning.cosines(connection, list(facts)).items() if cosine > 0}
