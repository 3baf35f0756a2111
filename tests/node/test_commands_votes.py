"""What each command on votes and agents asks of the node, and how it ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.commands import Answer
from node.errors import EXIT_FAILED, EXIT_OK, Problem
from tests.node.command_line import call_for, perform
from tests.node.scripted_node import ScriptedNode, listening, problem

ID = "k7q2m4zx5tvb3nya-17"
VOTE, VOTES = f"/v1/facts/{ID}/vote", f"/v1/facts/{ID}/votes"
PENDING = {"state": "pending", "entry": None}
Run = Callable[..., Answer]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        node.answer("POST", VOTE, (202, PENDING))
        node.answer("GET", VOTES, {"votes": []})
        node.answer("POST", "/v1/agents", (201, {"name": "bo"}))
        node.answer("GET", "/v1/agents", {"agents": []})
        node.answer("GET", "/v1/agents/bo", {"name": "bo"})
        node.answer("POST", "/v1/agents/bo/rotate", {"name": "bo"})
        node.answer("POST", "/v1/agents/bo/revoke", {"name": "bo"})
        yield node


@pytest.fixture
def run(node: ScriptedNode, tmp_path: Path) -> Run:
    return lambda *words: perform(call_for(tmp_path, *words))


@pytest.mark.parametrize(
    ("words", "method", "path", "sent"),
    [
        (("vote", ID, "up"), "POST", VOTE, {"value": 1}),
        (("vote", ID, "withdraw"), "POST", VOTE, {"value": 0}),
        (
            ("vote", ID, "down", "--agent", "bo", "--reason", "tried it", "--of-version", "ab"),
            "POST", VOTE, {"value": -1, "agent": "bo", "reason": "tried it", "version": "ab"},
        ),
        (("votes", ID), "GET", VOTES, {}),
        (("votes", ID, "--of-version", "ab"), "GET", VOTES, {"version": "ab"}),
        (("agent", "add", "bo"), "POST", "/v1/agents", {"name": "bo"}),
        (("agent", "add", "bo", "--about", ""), "POST", "/v1/agents", {"name": "bo", "about": ""}),
        (("agent", "list"), "GET", "/v1/agents", {}),
        (("agent", "show", "bo", "--project", "home"), "GET", "/v1/agents/bo", {"project": "home"}),
        (("agent", "rotate", "bo"), "POST", "/v1/agents/bo/rotate", {}),
        (("agent", "revoke", "bo"), "POST", "/v1/agents/bo/revoke", {}),
        (("agent", "revoke", "bo", "--void-from", "0"), "POST", "/v1/agents/bo/revoke", {"void_from": 0}),
    ],
)  # fmt: skip
def test_a_command_is_one_call(
    node: ScriptedNode, run: Run, words: tuple[str, ...], method: str, path: str, sent: Any
) -> None:
    answer = run(*words)
    last = node.asked[-1]
    assert (last.method, last.path) == (method, path)
    assert (last.body if method == "POST" else last.query) == sent
    assert answer.code == EXIT_OK


def test_a_pending_vote_is_no_failure(run: Run) -> None:
    answer = run("vote", ID, "up")
    assert (answer.document, answer.code) == (PENDING, EXIT_OK)


def test_what_the_node_refuses_is_told(node: ScriptedNode, run: Run) -> None:
    node.answer("POST", VOTE, (403, problem(403, "agent_revoked", "the agent is revoked", "vote as another")))
    with pytest.raises(Problem, match="revoked") as refused:
        run("vote", ID, "up")
    assert refused.value.exit_code == EXIT_FAILED


@pytest.mark.parametrize(
    "words", [("vote", ID, "sideways"), ("vote", ID), ("agent", "revoke", "bo", "--void-from", "-1")]
)
def test_a_wrong_word_is_refused_before_the_node_is_asked(node: ScriptedNode, run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(Problem) as refused:
        run(*words)
    assert refused.value.status == 400 and not node.asked
