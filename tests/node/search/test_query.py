"""node.search.query: which words of a text are looked for."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.search.query import STOP_WORDS, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("When did Oskar go to the harbour office?", ("Oskar", "go", "harbour", "office")),
        ("what is it", ("what", "is", "it")),
        ("The Press, the press; THE PRESS", ("PRESS",)),
        ("don't you've", ("don", "t", "you", "ve")),
        ("snake_case kebab-case path/to.py", ("snake", "case", "kebab", "path", "py")),
        ("E-217 at 10:30", ("E", "217", "10", "30")),
        ("café cafe\u0301", ("café", "cafe\u0301")),
        ("İstanbul", ("İstanbul",)),
        ("東京 is Tokyo", ("東京", "Tokyo")),
        ('"a NEAR(b c)" -d e* ^f g:h AND', ("NEAR", "b", "c", "e", "f", "g", "h")),
        ("🙂 🚀", ()),
        ("  \n\x00 \"'()*", ()),
        ("", ()),
    ],
)
def test_words(text: str, found: tuple[str, ...]) -> None:
    assert words(text) == found


@given(st.text())
def test_a_word_is_never_syntax_and_never_said_twice(text: str) -> None:
    found = words(text)
    assert len({word.lower() for word in found}) == len(found)
    for word in found:
        assert word in text
        assert not set(word) & set(string.punctuation + string.whitespace + "\0")


@given(st.text(alphabet=string.ascii_letters + " ?'"))
def test_stop_words_are_kept_only_alone(text: str) -> None:
    stops = [word.lower() in STOP_WORDS for word in words(text)]
    assert all(stops) or not any(stops)
