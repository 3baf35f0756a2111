"""What each command shows to people: a function from its JSON document to a `Page`.

Ids come first, so that they can be copied; what everybody should see at once (retracted, conflict, what votes amount
to) stands beside them. Of a fact on which nobody has voted nothing is said about votes. How a page gets onto a terminal
or into a pipe is node/page.py's.

Tests: tests/node/test_render.py.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from node.page import Page


def stored(page: Page, fact: Any) -> None:
    page.line(fact["id"])


def changed(page: Page, fact: Any) -> None:
    _head(page, fact)
    page.line(fact["content"])


def unchanged(page: Page, fact: Any) -> None:
    page.line(f"{fact['id']}: the text is as it was, nothing was changed")


def fact(page: Page, fact: Any) -> None:
    """One fact with all that is known of it."""
    _head(page, fact)
    page.line(fact["content"])
    rows = [
        ("project", fact["project"]),
        ("type", fact["fact_type"]),
        ("confidence", fact["confidence"]),
        ("source", fact["source"]),
        ("agent", fact["agent"]),
        ("valid", _validity(fact)),
        ("stored", when(fact["created_at"])),
        ("changed", when(fact["updated_at"]) if fact["updated_at"] != fact["created_at"] else None),
        ("by node", fact["author"]),
        ("version", fact["version"]),
        ("votes", _votes(fact)),
        ("old id", fact["legacy_id"]),
    ]
    rows += [(f"meta {name}", value) for name, value in fact["meta"].items()]
    rows += [(link["relation"], link["to"]) for link in fact["links"]]
    for name, value in rows:
        if value not in (None, ""):
            page.line(f"  {name:<11} {value}", "dim")
    if fact.get("body"):
        page.line()
        page.line(fact["body"])


def facts(page: Page, document: Any) -> None:
    """A page of a list, and how to get the next."""
    for number, one in enumerate(document["facts"]):
        if number:
            page.line()
        _block(page, one)
    if not document["facts"]:
        page.line("no facts")
    if document["next_cursor"]:
        page.line()
        page.line(f"more with: --cursor {document['next_cursor']}", "dim")


def results(page: Page, document: Any) -> None:
    """What a search found, the best first."""
    for number, hit in enumerate(document["results"]):
        if number:
            page.line()
        _block(page, hit["fact"], f"match {hit['match']:.2f}")
    if not document["results"]:
        page.line("nothing found")


def history(page: Page, document: Any) -> None:
    """Every version, oldest first."""
    rows = [
        (
            when(one["at"]),
            one["state"],
            one["field"] or "fact",
            one["author"],
            one["version"][:12],
            _value(one["value"]),
        )
        for one in document["versions"]
    ]
    page.table(("at", "state", "field", "by node", "version", "value"), rows)


def graph(page: Page, document: Any) -> None:
    """The facts around one, each followed by the links that leave it."""
    leaving: dict[str, list[Any]] = {}
    for edge in document["edges"]:
        leaving.setdefault(edge["from"], []).append(edge)
    for node in document["nodes"]:
        page.line(node["id"] + ("  retracted" if node.get("retracted") else ""), "bold")
        page.line("not on this node" if node["content"] is None else node["content"])
        for edge in leaving.get(node["id"], ()):
            page.line(f"  {edge['relation']} -> {edge['to']}", "dim")
    if document["truncated"]:
        page.line("there is more: ask for a smaller --depth", "yellow")


def exported(page: Page, document: Any) -> None:
    page.line(f"{_number(document['facts'], 'fact')} written to {document['file']}")


def imported(page: Page, report: Any) -> None:
    """What an import did."""
    page.line(f"{_number(report['stored'], 'fact')} stored")
    for name, what, became in (
        ("already_stored", "fact", "stored before, by an earlier run of this import"),
        ("links", "link", "made"),
        ("bad_links", "link", "left out: what they lead to is not on this node"),
        ("bad_lines", "line", "left out:"),
    ):
        if report[name]:
            page.line(f"{_number(report[name], what)} {became}")
    _bad_lines(page, report)


def import_refused(page: Page, report: Any) -> None:
    """Why nothing was imported."""
    page.line(f"nothing was stored: {_number(report['bad_lines'], 'bad line')} (--skip-bad leaves them out)")
    _bad_lines(page, report)


def cortex_imported(page: Page, report: Any) -> None:
    """What an import of the earlier system's database did, and what its votes are worth here."""
    page.line(f"{_number(report['stored'], 'fact')} and {_number(report['votes'], 'old vote')} stored")
    for name, what, became in (
        ("already_stored", "fact", "stored before"),
        ("already_voted", "old vote", "stored before"),
        ("bad_votes", "old vote", "left out: neither up nor down, or by nobody with a name"),
        ("lone_votes", "old vote", "left out: what they are on is not in that database"),
        ("bad_facts", "fact", "left out:"),
    ):
        if report[name]:
            page.line(f"{_number(report[name], what)} {became}")
    _bad_facts(page, report)
    if report["missing"]:
        page.line(f"not in that database: {', '.join(report['missing'])}", "yellow")
    if report["votes"] or report["already_voted"]:
        page.line("Old votes are not signed: they weigh 0 here, and count in score_linear only.")
    if report["agents"]:
        page.line(
            f"Of {_number(report['agents'], 'agent')} only the names on their votes were taken over;"
            " who is to vote here needs a key: cortex-node agent add NAME"
        )


def cortex_refused(page: Page, report: Any) -> None:
    """Why nothing was imported."""
    page.line(f"nothing was stored: {_number(report['bad_facts'], 'bad fact')} (--skip-bad leaves them out)")
    _bad_facts(page, report)


def founded(page: Page, document: Any) -> None:
    page.line(f"founded the mesh {document['mesh']}")
    page.line(f"its ledger is {document['ledger'][:16]}, its owner's agent {document['owner'][:16]}")
    if document["engine"] == "none":
        page.line("votes stay pending until a machine takes the ledger over: cortex-node ledger takeover")
    elif not document["config_written"]:
        page.line('there was a node.toml already; to commit votes it needs engine = "solo" under [quorum]', "yellow")
    _at_home(page, document)


def joined(page: Page, document: Any) -> None:
    page.line(f"joined the mesh {document['mesh']} as {document['role']}")
    if not document["peers_written"]:
        page.line(f"there was a node.toml already; put into it: peers = {document['peers']}", "yellow")
    _at_home(page, document)


def invitation(page: Page, document: Any) -> None:
    """The code, and what to do with it."""
    page.line("On the other machine:")
    page.line()
    page.line(f"  cortex-node join {document['code']}", "bold")
    page.line()
    page.qr_code(document["code"])
    projects = "every project" if document["projects"] == ["*"] else ", ".join(document["projects"])
    page.line(f"Good once, until {when(document['expires_at'])}, for a {document['role']} of {projects}.")
    page.line(f"Reached at {', '.join(document['addresses'])}.")


def status(page: Page, document: Any) -> None:
    """The node, its projects, its peers, and what needs attention."""
    node, resources = document["node"], document["resources"]
    page.line(f"{node['name']} ({node['id']})", "bold")
    page.line(
        f"  version {node['version']}, profile {node['profile']}, pid {node['pid']}, up {_span(node['uptime_s'])}"
    )
    page.line(f"  memory {_of(resources['rss_bytes'], resources.get('rss_max_bytes'))}")
    page.line(f"  store {_of(resources['store_bytes'], resources.get('store_max_bytes'))}")
    if vectors := document.get("vectors"):
        built = f", {vectors['done']} of {vectors['total']} texts by {vectors['model']}" if vectors["model"] else ""
        page.line(f"  vectors {vectors['state']}{built}")
    if told := _clock(document.get("clock") or {}):
        page.line(f"  clock {told}")
    _ledger(page, document)
    if document["projects"]:
        page.line()
        rows = [
            (one["name"], one["facts"], "yes" if one.get("carried", True) else "no", one["root"])
            for one in document["projects"]
        ]
        page.table(("project", "facts", "synced", "root"), rows)
    page.line()
    peers(page, document)
    for warning in document["warnings"]:
        page.line()
        page.line(warning["text"], "yellow")
        page.line(f"  {warning['action']}")


def peers(page: Page, document: Any) -> None:
    """How each peer is, and how far behind it and we are."""
    if not document["peers"]:
        page.line("no peers: enrol another machine with `cortex-node invite`, or give an address to `peers add`")
        return
    rows = [
        (
            one["name"] or one["id"] or "",
            one["state"],
            _lag(one.get("behind")),
            _lag(one.get("ahead")),
            _ago(one.get("last_contact"), document.get("at")),
            ": ".join(str(part) for part in (one.get("reason"), one.get("detail")) if part),
            one["address"],
        )
        for one in document["peers"]
    ]
    page.table(("peer", "state", "behind", "ahead", "contact", "why", "address"), rows)


def rounds(page: Page, document: Any) -> None:
    """What each round moved."""
    if not document["rounds"]:
        page.line("there is no peer to sync with")
        return
    rows = [
        (one["peer"], one["result"], one["sent_ops"], one["received_ops"], amount(one["bytes"]), one["reason"])
        for one in document["rounds"]
    ]
    page.table(("peer", "result", "sent", "received", "bytes", "reason"), rows)


def checks(page: Page, document: Any) -> None:
    """What the doctor found, and how to mend it."""
    page.table(("state", "check", "found"), [(one["state"], one["name"], one["detail"]) for one in document["checks"]])
    ailing = [one for one in document["checks"] if one["action"]]
    if ailing:
        page.line()
    for one in ailing:
        page.line(f"{one['name']}: {one['action']}")


def settings(page: Page, document: Any) -> None:
    """Every key with its effective value and where that comes from."""
    rows = []
    for one in document["settings"]:
        value = ", ".join(one["value"]) if isinstance(one["value"], list | tuple) else one["value"]
        source = "node.toml" if one["source"] == document["file"] else one["source"]
        rows.append((one["key"], f"{value} {one['unit'] or ''}".strip(), source, one["doc"]))
    page.table(("key", "value", "from", "what it is"), rows)


def template(page: Page, document: Any) -> None:
    page.line(document["template"].rstrip("\n"))


def _at_home(page: Page, document: Any) -> None:
    page.line(f"this node is {document['name']} ({document['node']}), its data is in {document['home']}")
    page.line("start it with: cortex-node run")


def _head(page: Page, fact: Any, note: str = "") -> None:
    """The id, and what everybody should see at once."""
    marks = [note] if note else []
    if fact["retracted"]:
        marks.append(f"retracted: {fact['retracted_reason']}" if fact.get("retracted_reason") else "retracted")
    if fact["conflict"]:
        marks.append(f"conflict in {', '.join(fact.get('conflicts') or ['content'])}: see history")
    trust = fact.get("trust", "unsettled")  # a node of the version before does not tell
    if trust != "unsettled":
        marks.append(trust)
    marks += [f"#{tag}" for tag in fact["tags"]]
    doubtful = fact["retracted"] or fact["conflict"] or trust in ("disputed", "contested")
    style = "bold yellow" if doubtful else "bold"
    page.line("  ".join([fact["id"], *marks]), style)


def _block(page: Page, fact: Any, note: str = "") -> None:
    """A fact among others: head, content, and one line of where it comes from."""
    _head(page, fact, note)
    page.line(fact["content"])
    origin = [fact["project"], fact["fact_type"], fact["source"], _validity(fact), when(fact["created_at"])]
    page.line("  " + " | ".join(part for part in origin if part), "dim")


def _votes(fact: Any) -> str:
    """`verified, score 1.500: 3 up, 1 down; 1 pending would make it 1.333`; nothing while nobody has voted."""
    votes = fact.get("votes")
    if not votes or not any(votes.values()):
        return ""
    told = f"{fact['trust']}, score {_score(fact['score'])}: {votes['up']} up, {votes['down']} down"
    pending = f"; {votes['pending']} pending would make it {_score(fact['score_provisional'])}"
    return told + (pending if votes["pending"] else "")


def _score(thousandths: int) -> str:
    return f"{thousandths / 1000:.3f}"


def _validity(fact: Any) -> str:
    begins, ends = when(fact["valid_from"]), when(fact["valid_until"])
    return " ".join([*(["from", begins] if begins else []), *(["until", ends] if ends else [])])


def _value(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


def _bad_facts(page: Page, report: Any) -> None:
    for one in report["bad"]:
        page.line(f"  {one['id']}: {one['error']}", "yellow")
    if report["bad_facts"] > len(report["bad"]):
        page.line(f"  and {report['bad_facts'] - len(report['bad'])} more")


def _bad_lines(page: Page, report: Any) -> None:
    for one in report["bad"]:
        page.line(f"  line {one['line']}: {one['error']}")
    if report["bad_lines"] > len(report["bad"]):
        page.line(f"  and {report['bad_lines'] - len(report['bad'])} more")


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _of(used: int | None, limit: int | None) -> str:
    return amount(used) + (f" of {amount(limit)}" if limit else "")


def _lag(lag: Mapping[str, Any] | None) -> str:
    if not lag or not lag.get("ops"):
        return "0"
    seconds = lag.get("seconds")
    return f"{lag['ops']} ops" + (f", {_span(seconds)}" if seconds else "")


def _clock(clock: Mapping[str, Any]) -> str:
    """How our clock stands to the peers', and who holds what up."""
    offset = clock.get("offset_s")
    parts = []
    if offset is not None:
        way = "ahead of" if offset > 0 else "behind"
        parts.append(f"{_span(abs(offset))} {way} the peers'" if abs(offset) >= 1 else "agrees with the peers'")
    for culprit in clock.get("culprits", ()):
        who = culprit["name"] or culprit["node"]
        parts.append(f"{culprit['ops']} ops of {who} held until {when(culprit['until'])}")
    return ", ".join(parts)


def _ledger(page: Page, document: Any) -> None:
    """What waits for a hub, how far the ledger is here, and who commits; in red what `ledger verify` explains."""
    ledger = document.get("ledger")
    if not ledger:  # a node of the version before
        return
    if document.get("votes_pending"):
        page.line(f"  votes {document['votes_pending']:,} pending")
    if not ledger["size"]:
        page.line("  ledger none yet: it comes with the first sync")
        return
    missing = ledger["following"]["missing"]
    told = f"{ledger['size']:,} entries" + (f", {missing:,} of them not on this node" if missing else "")
    told += f"; signed {_ago(ledger['checkpoint_at'], document.get('at'))}" if ledger["checkpoint_at"] else ""
    page.line(f"  ledger {told}; {_hubs(document)}")
    if ledger["forks"]:
        page.line(f"  ledger {_number(ledger['forks'], 'fork')}: see `cortex-node ledger verify`", "red")
    if ledger["frozen"]:
        page.line(f"  ledger frozen: {ledger['frozen']['code']}: {ledger['frozen']['detail']}", "red")


def _hubs(document: Any) -> str:
    """`hub: attic (offline)`."""
    ledger, own = document["ledger"], document["node"]["id"]
    if own in ledger["hubs"]:
        mode = ledger["hub"]["mode"]
        if mode == "dormant":
            return "nobody commits votes yet; `cortex-node ledger takeover` lets this node"
        stopped = "" if mode in ("idle", "working") else f", and commits nothing: {mode.replace('_', ' ')}"
        return f"this node is its hub{stopped}"
    known = {peer["id"]: f"{peer['name'] or peer['id']} ({peer['state']})" for peer in document["peers"]}
    names = [known.get(hub, f"{hub} (no peer of this node)") for hub in ledger["hubs"]]
    return f"hub: {', '.join(names)}" if names else "it has no hub"


def _ago(moment: str | None, now: str | None) -> str:
    """How long before `now` that was; the time itself where `now` is not told."""
    if not moment or not now:
        return when(moment)
    passed = datetime.fromisoformat(now) - datetime.fromisoformat(moment)
    return f"{_span(max(0.0, passed.total_seconds()))} ago"


def _span(seconds: float) -> str:
    """A span of time in its two largest units: `3 d 4 h`."""
    left = int(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def when(moment: str | None) -> str:
    """`2026-05-11T08:30:00.123Z` as `2026-05-11 08:30:00Z`."""
    return re.sub(r"^(\S{10})T(\S{8})(\.\d+)?", r"\1 \2", moment) if moment else ""


def amount(number: int | None) -> str:
    """A number of bytes as `1.5 MB`, in steps of 1,024 like `store_max_mb`."""
    if number is None:
        return ""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
