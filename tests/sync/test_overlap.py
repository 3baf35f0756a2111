"""Both sides find the same projects, and neither learns the name of any other."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import ProtocolError
from sync.messages import MAX_PATTERNS, Batch, Carries, Digests, Message, Vectors
from sync.overlap import RESERVED, SECRET_BITS, Overlap, covers, in_order, narrowed
from tests.sync.wire import Pair, disk, writer, written

MESH = bytes(32)
NAMES = ["plant", "plant-7", "team", "team/red", "team/blue", "diary", "t"]
grants = st.lists(st.sampled_from([*NAMES, "*", "team/*", "plant*"]), min_size=1, max_size=3)
patterns = st.lists(st.sampled_from([*NAMES, "*", "team/*", "team*", "plant*"]), max_size=5)


def meet(left: list[str], right: list[str], seed: int = 1) -> tuple[Overlap, Overlap, list[object]]:
    """Two sides that have agreed, and everything that each sent."""
    rng = Random(seed)
    a, b = (Overlap(side, MESH, rng.getrandbits(SECRET_BITS)) for side in (left, right))
    offers = a.offer(), b.offer()
    answers = a.answer(*offers[1]), b.answer(*offers[0])
    a.conclude(*answers[1])
    b.conclude(*answers[0])
    return a, b, [*offers, *answers]


@given(patterns, patterns)
def test_what_is_shared_is_what_both_carry_and_both_say_so(left: list[str], right: list[str]) -> None:
    a, b, _ = meet(left, right)
    for name in NAMES:
        both = all(any(covers(pattern, name) for pattern in side) for side in (left, right))
        assert a.shared(name) == b.shared(name) == both
    assert a.shared(RESERVED) and b.shared(RESERVED)


@given(patterns, patterns)
def test_no_name_is_told_that_the_peer_does_not_carry(left: list[str], right: list[str]) -> None:
    _, _, ((_, _), (_, _), (told_by_a, _), (told_by_b, _)) = meet(left, right)
    assert all(any(covers(pattern, name) for pattern in right) for name in told_by_a)
    assert all(any(covers(pattern, name) for pattern in left) for name in told_by_b)


@given(patterns, patterns, st.sampled_from(NAMES))
def test_narrowed_patterns_cover_what_both_cover(carried: list[str], granted: list[str], name: str) -> None:
    both = all(any(covers(pattern, name) for pattern in side) for side in (carried, granted))
    assert any(covers(pattern, name) for pattern in narrowed(carried, granted)) == both


@given(patterns, patterns)
def test_what_both_carry_is_told_as_patterns_too(left: list[str], right: list[str]) -> None:
    a, b, _ = meet(left, right)
    for name in (*NAMES, RESERVED):
        assert a.shared(name) == b.shared(name) == any(covers(pattern, name) for pattern in a.patterns)


def test_a_star_inside_a_name_is_a_letter() -> None:
    assert narrowed(["te*"], ["te**"]) == ("te**",)
    assert not covers("te**", "team")


@settings(max_examples=60)
@given(patterns, patterns, grants, grants, st.booleans())
def test_no_frame_names_what_the_receiver_does_not_carry_or_may_not_read(
    left: list[str], right: list[str], may_left: list[str], may_right: list[str], greedy: bool
) -> None:
    """Whatever is on the disks, such as what a node carried once; and when `b` asks for more than it is granted."""
    allowed = {"a": (left, may_left), "b": (right, may_right)}
    pair = Pair(disk(), disk())
    for name, here in pair.disks.items():
        for project in NAMES:
            written(here, writer(name), project, 1)
        carried, granted = allowed[name]
        here.patterns = tuple(carried) if greedy and name == "b" else narrowed(carried, granted)
        here.projects = lambda known=here.known: list(known)  # type: ignore[method-assign]
    pair.connect({"a": may_left, "b": may_right}).settle().tick(60)
    for sender, message, _ in pair.log:
        carried, granted = allowed["b" if sender == "a" else "a"]
        if greedy and sender == "b":
            continue
        for name in names_in(message) - {RESERVED}:
            assert any(covers(pattern, name) for pattern in carried), f"{sender} told {name}, not carried"
            assert any(covers(grant, name) for grant in granted), f"{sender} told {name}, not granted"
    assert greedy or not pair.closes


def names_in(message: Message) -> set[str]:
    """Every name of a project in a message, but for the prefixes, which are nobody's name."""
    match message:
        case Carries():
            return set(message.names)
        case Digests() | Vectors():
            return set(message.projects)
        case Batch():
            return {message.project}
        case _:
            return set()


def test_points_of_two_sessions_have_nothing_in_common() -> None:
    said = [meet(["plant", "diary"], ["plant"], seed)[2] for seed in (1, 2)]
    points = [{point for _, points in sent for point in points} for sent in said]
    assert not points[0] & points[1]


def test_a_point_says_nothing_without_the_secret() -> None:
    """Even somebody who guesses the name can't tell from the offer that it is there."""
    a, _, _ = meet(["plant"], ["diary"])
    guess = Overlap(["plant"], MESH, Random(9).getrandbits(SECRET_BITS))
    assert a.offer()[1][0] != guess.offer()[1][0]


@pytest.mark.parametrize("point", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_what_is_no_point_of_the_group_is_refused(point: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        Overlap(["plant"], MESH, 7).answer((), (point,))


def test_an_answer_of_another_length_is_refused() -> None:
    a = Overlap(["plant"], MESH, 7)
    a.answer((), ())
    with pytest.raises(ProtocolError, match="points came back"):
        a.conclude((), ())


def test_a_prefix_needs_its_wildcard() -> None:
    with pytest.raises(ProtocolError, match="wildcard"):
        Overlap(["plant"], MESH, 7).answer(("team/",), ())


def test_more_names_than_a_message_holds_are_the_operators_mistake() -> None:
    with pytest.raises(ValueError, match="wider prefixes"):
        Overlap([f"p{n}" for n in range(MAX_PATTERNS + 1)], MESH, 7)


def test_the_reserved_project_goes_first() -> None:
    assert in_order({"b", "_mesh", "A", "~"}) == ["_mesh", "A", "b", "~"]


def test_a_prefix_covers_what_begins_with_it() -> None:
    assert covers("team/*", "team/red") and covers("*", "x") and covers("plant", "plant")
    assert not covers("team/*", "team") and not covers("plant", "plant-7")
