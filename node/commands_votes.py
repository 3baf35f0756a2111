"""What the commands on votes and agents do: vote, votes, agent add, list, show, rotate, revoke.

Each is a call over the node's socket. A vote that is still pending is no failure: the node has it, and a hub will
commit it. Tests: tests/node/test_commands_votes.py.
"""

from typing import Final

from node import render_votes as render
from node.client import segment
from node.commands import Answer, Call

VALUES: Final = {"up": 1, "withdraw": 0, "down": -1}


def vote(call: Call) -> Answer:
    """Vote on the version of a fact that is shown."""
    args = call.args
    wanted = {"value": VALUES[args.value], "agent": args.agent, "reason": args.reason, "version": args.of_version}
    given = {name: value for name, value in wanted.items() if value is not None}
    return Answer(call.client.call("POST", f"/v1/facts/{segment(args.id)}/vote", given), render.voted)


def votes(call: Call) -> Answer:
    """The votes on a fact."""
    query = {"version": call.args.of_version}
    return Answer(call.client.call("GET", f"/v1/facts/{segment(call.args.id)}/votes", query=query), render.votes)


def agent_add(call: Call) -> Answer:
    """Enrol an agent, or change what it says of itself."""
    args = call.args
    wanted = {"name": args.name, "about": args.about}
    given = {name: value for name, value in wanted.items() if value is not None}
    return Answer(call.client.call("POST", "/v1/agents", given), render.agent)


def agent_list(call: Call) -> Answer:
    """All agents."""
    return Answer(call.client.call("GET", "/v1/agents", query={"project": call.args.project}), render.agents)


def agent_show(call: Call) -> Answer:
    """One agent."""
    return Answer(call.client.call("GET", _path(call), query={"project": call.args.project}), render.agent)


def agent_rotate(call: Call) -> Answer:
    """Give an agent a new key."""
    return Answer(call.client.call("POST", _path(call, "/rotate"), {}), render.agent)


def agent_revoke(call: Call) -> Answer:
    """End an agent."""
    void_from = call.args.void_from
    wanted = {} if void_from is None else {"void_from": void_from}
    return Answer(call.client.call("POST", _path(call, "/revoke"), wanted), render.agent)


def _path(call: Call, below: str = "") -> str:
    return f"/v1/agents/{segment(call.args.name)}{below}"
