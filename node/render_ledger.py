"""What the commands on the ledger show to people: a function from the JSON document to a `Page`, as in node/render.py.

A finding is told with its place and its code, and what an answer does not show is said too: what an export was checked
against, how old what was read here is. Tests: tests/node/test_render_ledger.py.
"""

from typing import Any

from node.page import Page
from node.render import when


def status(page: Page, document: Any) -> None:
    """How the ledger is, and what is wrong with it."""
    rows = [
        ("ledger", document["ledger"] or "none yet"),
        ("entries", f"{document['size']:,}, {document['votes']:,} of them votes"),
        ("root", document["root"]),
        ("signed", document["checkpoint_at"] and when(document["checkpoint_at"])),
        ("epoch", document["epoch"]),
        ("engine", document["engine"]),
        ("hubs", ", ".join(document["hubs"])),
    ]
    if "hub" not in document:  # it is this node that answered
        rows.append(("here", "whole" if document["whole"] else "the entries of the projects that this node carries"))
    for name, value in rows:
        if value not in (None, ""):
            page.line(f"{name:<8} {value}")
    if document["forks"]:
        page.line(f"{document['forks']} forks: the ledger was signed with two histories; see: ledger verify", "red")
    if document["frozen"]:
        page.line(f"frozen: {document['frozen']['code']}: {document['frozen']['detail']}", "red")
    _age(page, document)


def checkpoint(page: Page, document: Any) -> None:
    """The note itself, and nothing else: it is to be kept, and compared."""
    page.line(document["checkpoint"].rstrip("\n"))


def entries(page: Page, document: Any) -> None:
    """Entries, one a line."""
    rows = [
        (
            one["index"],
            one["kind"],
            when(one["time"]) if one["time"] else None,
            one["hash"][:16],
            _said(one),
        )
        for one in document["entries"]
    ]
    if rows:
        page.table(("index", "kind", "at", "hash", "about"), rows)
    else:
        page.line("no entries from there on")
    if document["next"] is not None:
        page.line(f"more with: --start {document['next']}", "dim")
    _age(page, document)


def receipt(page: Page, document: Any) -> None:
    """The receipt itself, for a file."""
    page.line(document["receipt"].rstrip("\n"))


def receipt_written(page: Page, document: Any) -> None:
    page.line(f"{document['file']}: entry {document['index']} of {document['size']:,}")


def verified(page: Page, document: Any) -> None:
    """What was found, one line each, and what that was checked against."""
    if document.get("index") is not None:
        what = f"entry {document['index']} is in a ledger of {document['size']:,} entries"
    else:
        of = "" if document["whole"] else f"of {document['size']:,} "
        what = f"{document['checked']:,} {of}entries, {document['votes']:,} of them votes"
        what += f", {document['signatures']:,} signatures"
    if document["ok"]:
        page.line(f"ok: {what}", "green")
        page.line(f"root {document['root']} of size {document['size']:,}", "dim")
    else:
        _findings(page, document)
        page.line(f"read: {what}", "dim")
    for stamp in document.get("anchors", ()):
        seen = f"stamped {stamp['stamped_at']}" if stamp["stamped_at"] else "stamped; to check that: --tsa-cert FILE"
        page.line(f"size {stamp['size']:,}: {seen}", "dim")
    if document.get("policy") is False and not document.get("kept"):
        page.line("It was checked against itself. That it is the ledger which others saw, and not one made up from the")
        page.line("beginning, show --policy FILE (whom you trust) and --checkpoint FILE (what you kept earlier).")


def exported(page: Page, document: Any) -> None:
    """Where it is, and that it is good."""
    if not document["ok"]:
        _findings(page, document)
    page.line(f"{document['folder']}: {document['size']:,} entries in {document['files']:,} files")
    page.line("anybody can check it: cortex-node ledger verify DIR --policy FILE", "dim")


def anchored(page: Page, document: Any) -> None:
    page.line(f"the checkpoint of {document['size']:,} entries was stamped at {when(document['stamped_at'])}")


def taken_over(page: Page, document: Any) -> None:
    """What the takeover did."""
    page.line(f"this node is the ledger's hub now, in epoch {document['epoch']}, from entry {document['start']:,} on")
    if document["abandoned"]:
        page.line(f"{document['abandoned']} entries lost their places; votes among them are pending again", "yellow")


def before_takeover(status: Any) -> str:
    """What it does, and what may be lost, before somebody says yes."""
    return (
        f"This node has {status['size']:,} entries of the ledger, and will go on from there as its hub.\n"
        "Do this only when the hub that was is gone for good: if it comes back it appends nothing more.\n"
        "What it committed and nobody else has seen is lost; those votes become pending again where their\n"
        "nodes still have them, and get new places.\n"
        "Go on? (yes/no) "
    )


def _findings(page: Page, document: Any) -> None:
    for one in document["findings"]:
        at = "the ledger" if one["index"] is None else f"entry {one['index']}"
        page.line(f"{at}: {one['code']}: {one['detail']}", "red")


def _said(one: Any) -> str:
    if said := one["statement"]:
        return ", ".join(
            f"{name} {_shown(value)}" for name, value in said.items() if value is not False and value is not None
        )
    if not one["vote"]:
        return ""
    vote = one["vote"]
    return f"{vote['value']:+d} on {vote['fact']} ({vote['project']}) by {vote['agent'][:16]}"


def _shown(value: Any) -> str:
    if value is True:
        return "yes"
    return " ".join(value) if isinstance(value, list) else str(value)[:32]


def _age(page: Page, document: Any) -> None:
    if document.get("read") == "local":
        at = document["checkpoint_at"]
        page.line(f"read here, as of {when(at) if at else 'an unknown time'}; a hub may have more", "dim")
