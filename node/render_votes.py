"""What the commands on votes and agents show to people: a function from the JSON document to a `Page`, as in
node/render.py. Scores are shown as 1.000 for neutral, reputation as 0.700. Tests: tests/node/test_render_votes.py.
"""

from typing import Any

from node.page import Page
from node.render import when

VALUES = {1: "up", 0: "withdrawn", -1: "down"}


def voted(page: Page, document: Any) -> None:
    """`committed #12 3f2a...`, or `pending`; then what it comes to."""
    entry = document["entry"]
    said = f"committed #{entry['index']} {entry['hash']}" if entry else f"pending: {document['reason']}"
    page.line(said + (" (this vote was there already)" if document["duplicate"] else ""))
    page.line(f"{document['fact_id']} is {_judged(document)}", "dim")
    if document.get("own"):  # a node of the version before does not tell
        page.line("this vote weighs 0: its agent wrote the fact, or its machine did, in nobody's name", "yellow")


def votes(page: Page, document: Any) -> None:
    """The votes on one version, and what they come to."""
    page.line(f"{document['fact_id']}  {_judged(document)}", "bold")
    page.line(f"version {document['version']}", "dim")
    if not document["votes"]:
        page.line("nobody has voted on this version")
        return
    rows = [
        (
            one["agent"] or (one["agent_key"] or "")[:16],
            one["voice"],
            VALUES[one["value"]],
            one["weight"] if one["counts"] else "does not count" if one["state"] != "imported" else "imported",
            one["state"] if one["index"] is None else f"#{one['index']}",
            when(one["at"]),
            one["reason"],
        )
        for one in document["votes"]
    ]
    page.table(("agent", "node", "vote", "weight", "entry", "at", "reason"), rows)


def agent(page: Page, document: Any) -> None:
    """One agent with all that is known of it."""
    page.line(f"{' '.join(document['name'].split())}  {_state(document)}", "bold")  # a name may have line ends
    if document["about"]:
        page.line(document["about"])
    rows = [
        ("key", document["key"]),
        ("first key", document["principal"] if document["principal"] != document["key"] else None),
        ("node", _voice(document)),
        ("entry", None if document["since"] is None else f"#{document['since']}"),
    ]
    judged = document.get("reputations") or [document]
    weigh = "its votes till then weigh" if document["state"] == "revoked" else "votes weigh"
    rows += [(weigh, f"{one['weight']} of 1000 in {one['project']}, reputation {_reputation(one)}") for one in judged]
    rows.append(
        ("void", None if document["void_from"] is None else f"its votes from entry #{document['void_from']} on")
    )
    for name, value in rows:
        if value is not None:
            page.line(f"  {name:<11} {value}", "dim")


def agents(page: Page, document: Any) -> None:
    """All agents, by name."""
    rows = [
        (one["name"], _state(one), _reputation(one), one["weight"], _voice(one), one["key"][:16], one["about"])
        for one in document["agents"]
    ]
    if not rows:
        page.line("no agents yet; one is made by: cortex-node agent add NAME")
        return
    page.table(("name", "state", "reputation", "weight", "node", "key", "about"), rows)


def _state(one: Any) -> str:
    """What the agent is, and whether the ledger knows."""
    state = "owner" if one["owner"] and one["state"] == "enrolled" else one["state"]
    return state if one["in_ledger"] or one["state"] == "pending" else f"{state}, a change is pending"


def _voice(one: Any) -> str:
    return f"{one['voice_name']} ({one['voice']})" if one["voice_name"] else str(one["voice"])


def _reputation(one: Any) -> str:
    return f"{one['reputation'] / 1_000_000:.3f}"


def _judged(document: Any) -> str:
    score = f"{document['trust']}, score {_score(document['score'])}"
    if document["score_provisional"] != document["score"]:
        score += f", with what is pending {_score(document['score_provisional'])}"
    return score


def _score(thousandths: int) -> str:
    return f"{thousandths / 1_000:.3f}"
