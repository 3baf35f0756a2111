"""What is asked about votes and agents is read exactly, and what is wrong is named."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Problem
from node.voting import requests
from node.voting.requests import AgentEnd, NewAgent, NewVote, Signed, Wanted

KEY, VERSION, SIGNATURE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 64
OUTSIDE = {
    "agent_key": KEY.hex(), "version": VERSION.hex(), "counter": 3, "value": -1, "reason": "why", "time": 5,
    "signature": SIGNATURE.hex(),
}  # fmt: skip


def test_a_vote_by_an_agent_of_this_node() -> None:
    assert requests.check_vote(NewVote(value=1)) == Wanted(1, "", None, None)
    wanted = requests.check_vote(NewVote(value=0, agent="bo", reason="why", version=VERSION.hex()))
    assert wanted == Wanted(0, "why", VERSION, "bo")


def test_a_vote_that_was_signed_elsewhere() -> None:
    wanted = requests.check_vote(msgspec.convert(OUTSIDE, NewVote))
    assert wanted == Wanted(-1, "why", VERSION, None, signed=Signed(KEY, 3, 5, SIGNATURE))
    zero = requests.check_vote(msgspec.convert(OUTSIDE | {"time": 0}, NewVote))
    assert zero.signed is not None and zero.signed.time_ms == 0


def test_a_vote_of_the_earlier_system_makes_its_agent() -> None:
    assert requests.check_vote(NewVote(vote=-1, agent_id=7)) == Wanted(-1, "", None, "7", make=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.integers() | st.text() | st.booleans() | st.floats()
            for name in NewVote.__struct_fields__
        },
    )
)
def test_whatever_is_asked_is_a_vote_or_a_problem_that_names_a_field(given: dict[str, Any]) -> None:
    try:
        wanted = requests.check_vote(msgspec.convert(given, NewVote))
    except msgspec.ValidationError:
        return
    except Problem as problem:
        assert problem.status == 422 and problem.field in NewVote.__struct_fields__ and problem.action
    else:
        assert wanted.value in (1, 0, -1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counter", 0), ("counter", 1 << 53), ("time", -1), ("time", 1 << 53), ("signature", "03" * 63),
        ("signature", " ".join(["03"] * 64)), ("agent_key", "1" * 63), ("version", "gg" * 32),
    ],
)  # fmt: skip
def test_bounds_and_hexadecimal_are_exact(name: str, value: Any) -> None:
    with pytest.raises(Problem) as refused:
        requests.check_vote(msgspec.convert(OUTSIDE | {name: value}, NewVote))
    assert refused.value.field == name


@pytest.mark.parametrize("void_from", [-1, 1 << 63])
def test_an_index_is_one(void_from: int) -> None:
    assert requests.check_end(AgentEnd(void_from=0)) == 0
    with pytest.raises(Problem):
        requests.check_end(AgentEnd(void_from=void_from))


def test_an_agent_has_a_name_of_a_line_and_a_short_text() -> None:
    assert requests.check_agent(NewAgent(name="Ä" * 64)) == ("Ä" * 64, None)
    for wrong in (NewAgent(name="Ä" * 65), NewAgent(name="a\x1b[2J"), NewAgent(name="a", about="x" * 1_001)):
        with pytest.raises(Problem) as refused:
            requests.check_agent(wrong)
        assert refused.value.status == 422
