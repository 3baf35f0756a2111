"""What the core wants done: parts add up in order, and no answer goes with the commit that it depends on."""

import pytest

from sync.errors import Reason, Refused
from sync.messages import Done, Same
from sync.ready import NOTHING, Close, Commit, Outcome, Ready, RoundEnded, Send


def test_two_add_up_in_their_order() -> None:
    ended = RoundEnded("p", Outcome.SAME, 0, 0, 0)
    close = Close("p", Refused(Reason.STORE, "no"))
    left, right = (
        Ready(send=(Send("p", Same()),), dial=("x",)),
        Ready(send=(Send("p", Done()),), notify=(ended,), close=(close,)),
    )
    assert left + right == Ready((), (Send("p", Same()), Send("p", Done())), (ended,), (close,), ("x",))
    assert left + NOTHING == NOTHING + left == left


def test_an_answer_never_goes_with_the_commit_it_depends_on() -> None:
    commit, send = Ready(persist=(Commit("p", 1, 1, ()),)), Ready(send=(Send("p", Same()),))
    with pytest.raises(AssertionError, match="before the commit"):
        commit + send
