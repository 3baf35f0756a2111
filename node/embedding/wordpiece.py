"""BERT's uncased WordPiece in pure Python: text to the ids of its word pieces, without [CLS] and [SEP].

Two steps, as in the reference (google-research/bert `tokenization.py`, Hugging Face `BertNormalizer`,
`BertPreTokenizer` and `WordPiece`):

* `words(text)`: drop control characters, set CJK characters apart, strip accents, lower, split at white space and
  around each punctuation mark;
* each word: the longest known piece from the left, then the longest known `##` piece, and so on; a word with a rest
  that no piece begins is one [UNK].

One difference, on purpose: the words "[SEP]", "[MASK]" and so on in a text are text here, not special tokens.

The vocabulary is a `Lookup`: a dict in tests, the mapped table (node.embedding.table) in the node, which costs no
memory of its own. Words that were seen are kept in a bounded cache.

Laws and golden ids: tests/node/embedding/test_wordpiece.py.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Protocol

UNKNOWN = "[UNK]"
WORD_MAX_CHARS = 100  # longer words are [UNK] in the reference
CACHE_WORDS_MAX = 4096  # words kept with their ids, about 0.2 KB each; emptied when full
TEXT_MAX_CHARS = 16_384  # the rest of a longer text is not read: its mean vector would hardly move
CACHE_CHARS_MAX = 4096  # characters whose class is kept

_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)  # as the reference has them, 0x2B920 (for 0x2B820) included


class Lookup(Protocol):
    """A vocabulary: the id of a piece, None where it has none."""

    def get(self, piece: str, /) -> int | None: ...


@lru_cache(maxsize=CACHE_CHARS_MAX)
def _spread(char: str) -> str:
    """What one character becomes before splitting: "", " ", itself, or itself between spaces."""
    if char in "\t\n\r":  # control characters to Unicode, white space to BERT
        return " "
    code = ord(char)
    if code == 0xFFFD or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    if char.isspace():
        return " "
    if any(low <= code <= high for low, high in _CJK):
        return f" {char} "
    return char


@lru_cache(maxsize=CACHE_CHARS_MAX)
def _isolate(char: str) -> str:
    """Second pass over one lower-case character without accents: punctuation stands alone."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    if category.startswith("P") or (char.isascii() and char.isprintable() and not char.isalnum() and char != " "):
        return f" {char} "
    return char


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, lower case and without accents."""
    text = text[:TEXT_MAX_CHARS]
    if text.isascii():
        return _ASCII_WORD.findall(text.translate(_ASCII_CONTROL).lower())
    spread = "".join(map(_spread, text.translate(_ASCII_CONTROL)))
    stripped = "".join(char for char in unicodedata.normalize("NFD", spread) if unicodedata.category(char) != "Mn")
    return "".join(map(_isolate, stripped.lower())).split()


class WordPiece:
    """The tokenizer over one vocabulary."""

    __slots__ = ("_cache", "_lookup", "_unknown")

    def __init__(self, lookup: Lookup) -> None:
        """`lookup` must know [UNK] (ValueError)."""
        unknown = lookup.get(UNKNOWN)
        if unknown is None:
            raise ValueError(f"the vocabulary has no {UNKNOWN}")
        self._lookup = lookup
        self._unknown = unknown
        self._cache: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """The ids of the text's pieces, in order; [] for a text without words."""
        found: list[int] = []
        cache = self._cache
        for word in words(text):
            known = cache.get(word)
            found.extend(self._remember(word) if known is None else known)
        return found

    def coverage(self, text: str) -> float:
        """Share of the text's letters that lie in words which are one Latin piece of two letters or more: 0.0 to 1.0.

        Median 0.97 for English, about 0.25 for other languages in Latin script, 0 for other scripts: the table was
        distilled from English, and words that it knows only as fragments have no meaning in it.
        """
        letters = served = 0
        for word in words(text):
            if not word.isalpha():
                continue
            letters += len(word)
            known = self._cache.get(word) or self._remember(word)
            if len(word) > 1 and word.isascii() and len(known) == 1 and known[0] != self._unknown:
                served += len(word)
        return served / letters if letters else 0.0

    def _remember(self, word: str) -> tuple[int, ...]:
        if len(self._cache) >= CACHE_WORDS_MAX:
            self._cache.clear()
        pieces = self._cache[word] = self._split(word)
        return pieces

    def _split(self, word: str) -> tuple[int, ...]:
        if len(word) > WORD_MAX_CHARS:
            return (self._unknown,)
        get = self._lookup.get
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                return (self._unknown,)
            pieces.append(piece)
            start = end
        return tuple(pieces)
