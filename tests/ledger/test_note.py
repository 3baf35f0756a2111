"""Signed notes: published examples, several signers, and everything that is refused."""

import pytest

from ledger import note
from ledger.note import Algorithm, BadNote, Note, Signer, VerifierKey, parse_vkey
from tests.ledger.world import flips, secret

# The example of the specification's current text (C2SP signed-note).
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
""".encode()

# The example of golang.org/x/mod/sumdb/note: public key and note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
""".encode()

TEXT = "first line\n\nlast line\n"
ONE, TWO = Signer("example.org/one", secret("one")), Signer("example.org/two", secret("two"))
WITNESS = Signer("example.org/witness", secret("witness"), Algorithm.COSIGNATURE)


@pytest.mark.parametrize(("vkey", "raw"), [(C2SP_KEY, C2SP_NOTE), (GO_KEY, GO_NOTE)], ids=["C2SP", "Go"])
def test_published_notes(vkey: str, raw: bytes) -> None:
    key = parse_vkey(vkey)
    assert str(key) == vkey
    opened, verified = note.open_note(raw, [key])
    assert bytes(opened) == raw
    assert [(one.key, one.time_s) for one in verified] == [(key, None)]


def test_the_form_of_published_notes_with_other_kinds_of_signature() -> None:
    """The specifications' other examples come without their keys; their form is checked, and that they come back."""
    lines = (
        "example.com/behind-the-sofa",
        "20852163",
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        "",
        "— example.com/behind-the-sofa "
        "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=",
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0"
        "xUe+mbIUBkBIfZ+qnA==",
        "",
    )
    raw = "\n".join(lines).encode()
    parsed = note.parse(raw)
    assert bytes(parsed) == raw
    assert int.from_bytes(parsed.signatures[1].value[:8], "big") == 1_679_315_147  # the time that the page prints


def test_several_signers_and_a_witness() -> None:
    signed = note.sign(note.sign(note.sign(Note(TEXT), ONE), TWO), WITNESS, 1_700_000_000)
    keys = [ONE.verifier, TWO.verifier, WITNESS.verifier]
    opened, verified = note.open_note(bytes(signed), keys)
    assert opened == signed
    assert {one.key: one.time_s for one in verified} == dict(zip(keys, (None, None, 1_700_000_000), strict=True))
    for key in keys:
        assert [one.key for one in note.open_note(bytes(signed), [key])[1]] == [key]


def test_a_later_signature_takes_the_place_of_an_earlier_one() -> None:
    signed = note.sign(note.sign(note.sign(Note(TEXT), ONE), WITNESS, 1), WITNESS, 2)
    _, verified = note.open_note(bytes(signed), [WITNESS.verifier])
    assert len(signed.signatures) == 2 and [one.time_s for one in verified] == [2]


def test_merging_gathers_signatures_of_one_text() -> None:
    merged = note.merge(note.sign(Note(TEXT), ONE), note.sign(Note(TEXT), TWO))
    assert len(note.open_note(bytes(merged), [ONE.verifier, TWO.verifier])[1]) == 2
    with pytest.raises(ValueError, match="another"):
        note.merge(merged, Note("other\n"))


def test_every_flipped_bit_is_refused() -> None:
    raw = bytes(note.sign(note.sign(Note(TEXT), ONE), WITNESS, 1_700_000_000))
    keys = [ONE.verifier, WITNESS.verifier]
    for flipped in flips(raw):
        try:
            _, verified = note.open_note(flipped, keys)
        except BadNote:
            continue
        # A flip in a name or key id makes it another's signature, which is skipped; the other one still holds.
        assert len(verified) == 1 and flipped.startswith(TEXT.encode() + b"\n")


def test_a_note_by_strangers_only_is_refused() -> None:
    with pytest.raises(BadNote, match="no key"):
        note.open_note(bytes(note.sign(Note(TEXT), ONE)), [TWO.verifier])


def test_a_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    good = note.sign(note.sign(Note(TEXT), TWO), ONE)
    value = good.signatures[1].value
    bad = Note(TEXT, (good.signatures[0], note.Signature(ONE.name, good.signatures[1].key_id, value[::-1])))
    assert note.open_note(bytes(bad), [TWO.verifier])[1]
    with pytest.raises(BadNote, match="one is wrong"):
        note.open_note(bytes(bad), [ONE.verifier, TWO.verifier])


def test_of_two_lines_by_one_key_the_first_is_read() -> None:
    """As golang.org/x/mod/sumdb/note does, so that two verifiers do not differ about one note."""
    good = note.sign(Note(TEXT), ONE)
    line = good.signatures[0]
    doubled = Note(TEXT, (line, note.Signature(line.name, line.key_id, line.value[::-1])))
    assert len(note.open_note(bytes(doubled), [ONE.verifier])[1]) == 1
    with pytest.raises(BadNote, match="wrong"):
        note.open_note(bytes(Note(TEXT, doubled.signatures[::-1])), [ONE.verifier])


def test_a_log_signature_is_no_cosignature() -> None:
    """One key, both kinds: each has its own id, and neither signature passes for the other."""
    both = Signer(WITNESS.name, WITNESS.secret)
    assert both.verifier.key_id != WITNESS.verifier.key_id
    with pytest.raises(BadNote):
        note.open_note(bytes(note.sign(Note(TEXT), both)), [WITNESS.verifier])


@pytest.mark.parametrize("time_s", [None, -1, 1 << 63])
def test_a_cosignature_says_when(time_s: int | None) -> None:
    with pytest.raises(ValueError, match="when"):
        note.sign(Note(TEXT), WITNESS, time_s)


GOOD = bytes(note.sign(Note(TEXT), ONE))
LINE = GOOD.split(b"\n\n")[-1]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"text\n",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + b"x\n",
        GOOD.replace(b"\n\n\xe2", b"\n\xe2"),
        GOOD.replace(b"first", b"fi\x00st"),
        GOOD.replace(b"first", b"fi\tst"),
        GOOD.replace(b"first", b"fi\xffst"),
        GOOD.replace(b"example.org/one", b"example.org/ one"),
        GOOD.replace(b"example.org/one", b"example.org+one"),
        GOOD.replace("— ".encode(), b"- "),
        GOOD.replace("— ".encode(), "—".encode()),
        GOOD.replace(b"=\n", b"\n"),
        GOOD.replace(b"=\n", b"= \n"),
        b"text\n\n" + "— name AAAA\n".encode(),
        b"text\n\n" + LINE * (note.MAX_SIGNATURES + 1),
        b"x" * note.MAX_NOTE_BYTES + GOOD,
    ],
)
def test_malformed_notes_are_refused(raw: bytes) -> None:
    with pytest.raises(BadNote):
        note.parse(raw)


def test_as_many_signatures_as_the_specification_asks_for_are_read() -> None:
    signed = Note(TEXT)
    for at in range(16):
        signed = note.sign(signed, Signer(f"example.org/{at}", secret(str(at))))
    assert len(note.parse(bytes(signed)).signatures) == 16


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        C2SP_KEY[:-1],
        C2SP_KEY.replace("530d903a", "530d903b"),
        C2SP_KEY.replace("530d903a", "530D903A"),
        C2SP_KEY.replace("example", "examp le"),
        "name+00000000+BgAA",
    ],
)
def test_a_vkey_that_does_not_fit_itself_is_refused(vkey: str) -> None:
    with pytest.raises(BadNote):
        parse_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "x" * 257])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(BadNote):
        VerifierKey(name, Algorithm.ED25519, bytes(32))


def test_a_secret_is_not_printed() -> None:
    assert ONE.secret.hex() not in repr(ONE) and repr(ONE.secret) not in repr(ONE)
