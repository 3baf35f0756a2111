"""What people see of the ledger: what is wrong stands out, and what an answer does not show is said."""

import io
from typing import Any

from node import render_ledger
from node.page import Page, write


def shown(show: Any, document: Any) -> str:
    page, stream = Page(), io.StringIO()
    show(page, document)
    write(page, stream, {})
    return stream.getvalue()


STATUS: dict[str, Any] = {
    "ledger": "ab", "size": 1_234, "votes": 1_200, "root": "cd", "checkpoint_at": "2026-05-11T08:30:00.000Z",
    "epoch": 1, "engine": "solo", "hubs": ["a"], "whole": True, "forks": 0, "frozen": None,
}  # fmt: skip
VERIFIED: dict[str, Any] = {
    "ok": True, "checked": 5, "votes": 2, "signatures": 5, "size": 9, "root": "ab", "whole": False, "findings": [],
}  # fmt: skip


def test_a_status_says_what_is_wrong_and_how_old_it_is() -> None:
    good = shown(render_ledger.status, STATUS)
    assert "1,234, 1,200 of them votes" in good and "whole" in good and "frozen" not in good and "fork" not in good
    frozen = {"index": 3, "code": "leaf", "detail": "not its hash"}
    bad = shown(render_ledger.status, STATUS | {"forks": 1, "frozen": frozen, "read": "local"})
    assert "two histories" in bad and "frozen: leaf" in bad and "as of 2026-05-11 08:30:00Z" in bad
    assert "whole" not in shown(render_ledger.status, STATUS | {"hub": "b"})


def test_a_node_that_knows_no_ledger_says_so() -> None:
    empty = STATUS | {"ledger": None, "size": 0, "votes": 0, "root": None, "checkpoint_at": None, "whole": False}
    assert "none yet" in shown(render_ledger.status, empty | {"epoch": None, "hubs": [], "read": "local"})


def test_a_node_with_gaps_says_what_it_has_not_checked() -> None:
    assert shown(render_ledger.verified, VERIFIED).startswith("ok: 5 of 9 entries")


def test_stamps_are_told_with_what_they_need() -> None:
    stamps = [{"size": 3, "stamped_at": None}, {"size": 5, "stamped_at": "2026-05-11T08:30:00Z"}]
    told = shown(render_ledger.verified, VERIFIED | {"anchors": stamps, "policy": False, "kept": True})
    assert "size 3: stamped; to check that: --tsa-cert" in told and "size 5: stamped 2026-05-11" in told
    assert "against itself" not in told


ENTRY: dict[str, Any] = {"index": 3, "kind": "enrolment", "time": None, "hash": "ab" * 32, "vote": None}


def test_entries_are_told_in_a_line_each() -> None:
    said = {"name": "claude", "agent": "cd" * 32, "owner": False, "void_from": None, "hubs": ["a", "b"]}
    told = shown(render_ledger.entries, {"entries": [ENTRY | {"statement": said}], "next": 4})
    assert f"name claude, agent {'cd' * 16}, hubs a b\n" in told
    assert "more with: --start 4" in told
    told = shown(
        render_ledger.entries, {"entries": [ENTRY | {"statement": {"owner": True, "void_from": 0}}], "next": 4}
    )
    assert "owner yes, void_from 0\n" in told
    assert shown(render_ledger.entries, {"entries": [], "next": None}) == "no entries from there on\n"
