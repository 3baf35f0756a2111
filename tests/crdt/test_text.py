"""Long text: everybody's words are kept, and an update that is not its author's has no effect."""

from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import fact
from crdt.op import MAX_TEXT_BYTES
from crdt.text import MAX_CHANGES, append, client_id, edit, read, well_formed
from crdt.version import AUTHOR_ID_BYTES, Dot
from crdt.yjs import CLIENT_BITS, NO_CHANGE, is_text_edit
from tests.crdt.histories import histories, share
from tests.crdt.world import Node, a_fact, meet

DOT = Dot(b"a" * AUTHOR_ID_BYTES, 1)
TEXTS = st.text(st.sampled_from("abé😀 \n.,_\r\t"), max_size=60)


def with_body(body: str, nodes: int = 2) -> list[Node]:
    everybody = a_fact(nodes=nodes)
    everybody[0].edit(body)
    meet(*everybody)
    return everybody


def paragraphs(count: int) -> list[str]:
    return [
        f"Paragraph {n}. " + " ".join(f"The {n + k}th field was sown in week {k % 7}." for k in range(25))
        for n in range(count)
    ]


# --- one author ---


@given(st.lists(TEXTS, max_size=5))
def test_a_body_shows_what_was_written_last(texts: list[str]) -> None:
    (node,) = a_fact(nodes=1)
    for becomes in texts:
        node.edit(becomes)
        assert node.body == becomes
    assert all(well_formed(op) for op in fact.text_ops(node.ops))


@given(TEXTS, TEXTS)
def test_append_adds_at_the_end(first: str, second: str) -> None:
    (node,) = with_body(first, nodes=1)
    node.append(append(fact.text_ops(node.ops), node.next_dot, second))
    assert node.body == first + second


def test_without_ops_there_is_no_text() -> None:
    assert read([]) == ""
    assert edit([], DOT, "") == append([], DOT, "") == NO_CHANGE


def test_an_edit_that_changes_nothing_says_nothing() -> None:
    (node,) = with_body("as it is", nodes=1)
    assert node.edit("as it is").header.body == NO_CHANGE


def test_an_edit_costs_what_it_changes_also_after_many() -> None:
    (node,) = a_fact(nodes=1)
    for n in range(60):
        node.edit(f"{n} words that are replaced each time\n")
    assert len(node.edit("60 words that are replaced each time\n").header.body) < 60


# --- several authors ---


def test_two_edits_of_one_paragraph_of_a_long_text_keep_both_peoples_words() -> None:
    parts = paragraphs(60)
    text = "\n\n".join(parts)
    assert len(text) > 50_000
    left, right = with_body(text)
    left.edit(text.replace(parts[30], parts[30].replace("Paragraph 30.", "Paragraph 30, as Ada saw it.")))
    right.edit(text.replace(parts[30], parts[30] + " And Bob mended the fence."))
    meet(left, right)
    merged = parts[30].replace("Paragraph 30.", "Paragraph 30, as Ada saw it.") + " And Bob mended the fence."
    assert left.body == right.body == text.replace(parts[30], merged)


def test_also_when_the_long_text_is_one_line() -> None:
    text = " ".join(paragraphs(40))
    left, right = with_body(text)
    left.edit(text.replace("Paragraph 7.", "Paragraph seven.").replace("Paragraph 30.", "Paragraph thirty."))
    right.edit(text.replace("Paragraph 20.", "Paragraph twenty (Bob)."))
    meet(left, right)
    assert left.body == right.body
    for words in ("Paragraph seven.", "Paragraph thirty.", "Paragraph twenty (Bob)."):
        assert words in left.body
    assert len(left.body) == len(text) + len("seven") - 1 + len("thirty") - 2 + len("twenty (Bob)") - 2


def test_words_put_into_the_same_place_do_not_mix() -> None:
    left, right = with_body("Start. End.")
    left.edit("Start. From the left. End.")
    right.edit("Start. From the right. End.")
    meet(left, right)
    assert left.body == right.body
    assert "From the left" in left.body and "From the right" in left.body


def test_words_put_into_what_another_deletes_are_kept() -> None:
    left, right = with_body("one two three four")
    left.edit("one four")
    right.edit("one two new three four")
    meet(left, right)
    assert left.body == right.body and "new" in left.body


def test_a_text_that_many_write_at_once_converges() -> None:
    nodes = with_body("shared\n", nodes=5)
    for n, node in enumerate(nodes):
        for line in range(3):
            node.append(append(fact.text_ops(node.about), node.next_dot, f"{n}.{line}\n"))
    meet(*nodes)
    assert len({node.body for node in nodes}) == 1
    for n in range(5):
        lines = [line for line in nodes[0].body.splitlines() if line.startswith(f"{n}.")]
        assert lines == [f"{n}.{line}" for line in range(3)]


def test_an_op_whose_causes_are_missing_shows_nothing_yet_and_spoils_no_edit() -> None:
    left, right = a_fact()
    base, more = left.edit("written first"), left.edit("written first, then second")
    right.ops.append(more)
    assert right.body == ""
    own = right.edit("mine. ")
    assert well_formed(own) and right.body == "mine. "
    right.receive([base])
    assert "written first, then second" in right.body and "mine. " in right.body


# --- what does not belong ---


def test_every_op_has_a_client_of_its_own() -> None:
    clients = {client_id(Dot(bytes([n]) * AUTHOR_ID_BYTES, seq)) for n in range(20) for seq in (*range(1, 50), 2**61)}
    assert len(clients) == 20 * 50 and all(0 < client < 1 << CLIENT_BITS for client in clients)


def test_an_update_of_another_ops_client_has_no_effect() -> None:
    left, right = with_body("the text that was here")
    theirs = fact.text_ops(left.ops)[0].header.body
    assert not well_formed(right.append(theirs))
    meet(left, right)
    assert left.body == right.body == "the text that was here"


def test_an_update_that_would_squat_another_ops_client_has_no_effect() -> None:
    """The victim's next dot is known, so its client is; an update that starts late in it shows in no state vector."""
    victim, liar = a_fact()
    forged = edit([], victim.next_dot, "a lie that is long enough to hide much")
    assert is_text_edit(forged, client_id(victim.next_dot), "body")
    late = forged[:2] + forged[2:].replace(b"\x00\x04\x01\x04body", b"\x03\x04\x01\x04body", 1)
    assert late != forged
    refused = [liar.append(update) for update in (forged, late)]
    liar.send(victim)
    victim.edit("what the victim says")
    meet(victim, liar)
    assert victim.body == liar.body == "what the victim says"
    assert not any(well_formed(op) for op in refused)


def test_of_two_ops_with_one_dot_the_first_in_order_is_read_whole() -> None:
    left, right = a_fact(nodes=2)
    one = left.edit("one")
    left.forget_last()
    two = left.edit("two, and longer")
    assert one.dot == two.dot
    first = min(one, two, key=lambda op: op.order)
    for arrival in ([one, two], [two, one]):
        right.ops = [*left.ops[:1], *arrival]
        assert right.body == read(arrival) == read([first])


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 200))
def test_garbage_has_no_effect(data: bytes, start: int, end: int) -> None:
    (node,) = with_body("the text that was here", nodes=1)
    update = edit(fact.text_ops(node.ops), node.next_dot, "the text that was once here, and more")
    for garbage in (data, update[:start] + data + update[end:]):
        if garbage == update or is_text_edit(garbage, client_id(node.next_dot), "body"):
            continue
        assert not well_formed(node.append(garbage))
        assert node.body == "the text that was here"


def test_an_update_cut_off_anywhere_has_no_effect() -> None:
    (node,) = with_body("the text that was here", nodes=1)
    whole = edit(fact.text_ops(node.ops), node.next_dot, "another text was here 😀")
    for length in range(len(whole)):
        op = node.append(whole[:length])
        assert not well_formed(op) and node.body == "the text that was here"
        node.ops.remove(op)
    node.append(whole)
    assert node.body == "another text was here 😀"


@share
@given(histories())
def test_reading_a_body_never_fails_and_every_edit_is_its_own(nodes: list[Node]) -> None:
    meet(*nodes)
    becomes = nodes[1].body + "at the end"
    assert well_formed(nodes[1].edit(becomes))
    assert nodes[1].body == becomes


# --- differences ---


@pytest.mark.parametrize("separator", [" ", "\n"])
def test_scattered_changes_are_found_each(separator: str) -> None:
    words = [f"word{n % 300}" for n in range(3000)]
    (node,) = with_body(separator.join(words), nodes=1)
    for n in range(0, 3000, 60):
        words[n] = "new"
    update = node.edit(separator.join(words)).header.body
    assert node.body == separator.join(words)
    assert len(update) < 50 * 40


def test_a_rewritten_text_is_replaced_whole() -> None:
    (node,) = with_body(" ".join(f"old{n}" for n in range(2 * MAX_CHANGES)), nodes=1)
    becomes = " ".join(f"new{n}" for n in range(2 * MAX_CHANGES))
    assert node.edit(becomes).header.body.count(b"new0 new1") == 1
    assert node.body == becomes


@pytest.mark.parametrize("unit", ["x", "x ", "x\n", "the cat and the dog "])
def test_a_large_repetitive_text_is_compared_in_time(unit: str) -> None:
    """Within pytest's timeout by far; a quadratic comparison would take hours."""
    text = unit * (MAX_TEXT_BYTES // 4 // len(unit))
    (node,) = with_body(text, nodes=1)
    becomes = f"a {text[: len(text) // 3]} b {text[len(text) // 3 :]} c"
    node.edit(becomes)
    assert node.body == becomes


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_no_shorter_edit_is_missed(old: list[str], new: list[str]) -> None:
    """At least as much is kept as the standard library's heuristic keeps."""
    (node,) = with_body("\n".join([*old, ""]), nodes=1)
    inserted = node.edit("\n".join([*new, ""])).header.body
    kept = sum(block.size for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks())
    assert sum(inserted.count(letter.encode() + b"\n") for letter in "abc") <= len(new) - kept
