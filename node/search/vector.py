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

FEW: Final = 250
"""Texts that are all compared: about as quick as finding candidates among 50,000 and judging those."""


class Meaning(Protocol):
    """A query as a vector, among those of the texts."""

    def nearest(self, project: int | None) -> Iterator[list[int]]:
        """Texts (rowids) of a project, or of all, nearest first, in chunks. Some may be gone by now."""

    def cosines(self, connection: sqlite3.Connection, texts: Sequence[int]) -> dict[int, float]:
        """The cosine of each text that has a vector, -1.0 to 1.0."""


def leg(
    connection: sqlite3.Connection, meaning: Meaning, conditions: Conditions, also: Collection[Text], least: int
) -> dict[Text, float]:
    """Cosines above 0: of the nearest texts that meet `conditions`, and of `also`, which meet them.

    At least `least` of them, when that many have a vector that points the query's way.
    """
    few = eligible.few(connection, conditions, FEW)
    near: dict[Text, float] = {}
    for texts in meaning.nearest(conditions.project) if few is None else [few]:
        admitted = admit(connection, conditions, texts)
        found = _judged(connection, meaning, admitted)
        near |= found
        if len(near) >= least or (admitted and not found):  # what is farther by bits points away as well
            break
    return near | _judged(connection, meaning, [text for text in also if text not in near])


def _judged(connection: sqlite3.Connection, meaning: Meaning, texts: Iterable[Text]) -> dict[Text, float]:
    by_id = {text.id: text for text in texts}
    return {by_id[text]: cosine for text, cosine in meaning.cosines(connection, list(by_id)).items() if cosine > 0}
